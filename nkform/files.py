"""Reading a file that somebody named. Nothing but a file is read, so that no name makes nkform wait or read for ever.

Touches the files that it is asked for, and opens nothing that is no file.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: what became a FIFO after it was looked at makes nobody wait (fifo(7))."""


class NoFileError(OSError):
    """A name that stands for something else than a file."""


def kind(mode: int) -> str:
    """What a mode (st_mode) stands for, in words; empty: a file."""
    if stat.S_ISREG(mode):
        return ""
    return next((words for is_kind, words in _KINDS if is_kind(mode)), "no file")


def writable_by_others(state: os.stat_result, *, root: bool = False) -> str:
    """Why others than this process's user could write to a file or folder, in words; empty: nobody else can.

    `root`: what belongs to root is as good as what belongs to this user.
    """
    ours = state.st_uid == os.geteuid() or (root and state.st_uid == 0)
    if ours and not state.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return ""
    return f"it belongs to user {state.st_uid}, mode {stat.S_IMODE(state.st_mode):o}: others could write to it"


def read(path: Path, most: int, *, within: Path | None = None, pipes: bool = False) -> bytes:
    """At most `most` bytes of a file, and one more if there is more.

    `within`: the folder that the file itself must lie in, whatever links lead to it. `pipes`: an anonymous pipe is as
    good as a file (the shell's `<(command)`). Raises OSError; NoFileError for what is no file, or lies elsewhere.
    """
    fd = opened(path, pipes=pipes)
    with os.fdopen(fd, "rb") as stream:
        if within is not None:
            _check_within(fd, path, within)
        return stream.read(most + 1)


def opened(path: Path, *, pipes: bool = False) -> int:
    """A file, open for reading; the descriptor is the caller's. See `read`."""
    try:
        _check(path, os.stat(path), pipes)  # noqa: PTH116  # of a path that may hold a NUL
        fd = os.open(path, _READ)
    except ValueError as error:  # a NUL, or what is no character
        raise NoFileError(errno.EINVAL, f"no file has such a name ({error})", str(path)) from None
    try:
        state = os.fstat(fd)
        _check(path, state, pipes)
        if stat.S_ISFIFO(state.st_mode):
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):  # noqa: PTH115  # it is no path
                raise NoFileError(errno.EINVAL, "it is a FIFO, and no file", str(path))
            os.set_blocking(fd, True)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(path: Path, state: os.stat_result, pipes: bool) -> None:
    if (words := kind(state.st_mode)) and not (pipes and stat.S_ISFIFO(state.st_mode)):
        raise NoFileError(errno.EINVAL, f"it is {words}, and no file", str(path))


def _check_within(fd: int, path: Path, folder: Path) -> None:
    """By the file that is open, not by its name, which may lead elsewhere by now."""
    real = Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
    if not real.is_relative_to(folder.resolve()):
        raise NoFileError(errno.EPERM, f"it is a link that leads out of {folder}", str(path))
