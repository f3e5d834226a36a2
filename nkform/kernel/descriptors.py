"""File descriptors: closing them, second ones of what is open, and files that are in memory alone."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Iterator

from nkform.kernel.error import KernelError

ENOUGH, LEAST = 1024, 64
"""So many files a run can have open at once, which works on some hundred devices together; and with fewer than so many
it could neither do its work nor undo it."""


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


@contextlib.contextmanager
def enough_files(*, refuse: bool) -> Iterator[None]:
    """Within the block, this process may have ENOUGH files open (getrlimit(2)), or as many as it can be allowed to.

    `refuse`: raises KernelError (EMFILE) where these are not even the LEAST, which takes CAP_SYS_RESOURCE to change.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard
    if soft != resource.RLIM_INFINITY and soft < ENOUGH:
        if hard != resource.RLIM_INFINITY and hard < ENOUGH:
            with contextlib.suppress(ValueError, OSError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, ENOUGH))
                most = ENOUGH
        enough = ENOUGH if most == resource.RLIM_INFINITY else min(most, ENOUGH)
        resource.setrlimit(resource.RLIMIT_NOFILE, (enough, most))
        if refuse and enough < LEAST:
            reason = f"no more than {enough} may be open: raise what limits them (`ulimit -n`, LimitNOFILE=)"
            raise KernelError(errno.EMFILE, f"open {LEAST} files, which a run may need", reason)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
