"""File descriptors: closing them, and having a second one of what is open."""

from __future__ import annotations

import os


class Owned:
    """A file descriptor that is closed at the end of the block, which gets it."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> int:
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def close(*fds: int) -> None:
    """Closes file descriptors; -1 among them stands for none."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)


def duplicate(fd: int) -> int:
    """A second file descriptor of what is open, the caller's to close; programs that are started do not inherit it."""
    return os.dup(fd)
