"""File descriptors: closing them, second ones of what is open, and files that are in memory alone."""

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


def in_memory(data: bytes) -> int:
    """A file in memory that holds this (memfd_create(2)), its position at the beginning; the caller closes it."""
    fd = os.memfd_create("nkform", os.MFD_CLOEXEC)
    try:
        with os.fdopen(os.dup(fd), "wb") as stream:
            stream.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def content(fd: int) -> bytes:
    """All that a file holds, wherever its position is."""
    return os.pread(fd, os.fstat(fd).st_size, 0)
