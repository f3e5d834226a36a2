"""Files that somebody named: reading, listing and writing them.

Nothing but a file is read, so that no name makes nkform wait or read for ever; nothing that is no file is opened.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path
from typing import TextIO

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: what became a FIFO after it was looked at makes nobody wait (fifo(7))."""
_OWNERS_ALONE = 0o600


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
    fd = _opened(path, pipes=pipes)
    with os.fdopen(fd, "rb") as stream:
        if within is not None:
            _check_within(fd, path, within)
        return stream.read(most + 1)


def opened(path: Path) -> TextIO:
    """A file's text, open for reading; the caller closes it. Raises OSError, as `read` does."""
    return os.fdopen(_opened(path), encoding="utf-8", errors="surrogateescape")


def distrust(file: TextIO) -> str:
    """Why others than this process's user could write to an open file; empty: nobody else can."""
    return writable_by_others(os.fstat(file.fileno()))


def standard_input(most: int) -> bytes:
    """At most `most` bytes of the standard input, and one more if there is more. Raises OSError."""
    return sys.stdin.buffer.read(most + 1)


def _opened(path: Path, *, pipes: bool = False) -> int:
    try:
        _check(path, os.stat(path), pipes)  # of a path that may hold a NUL
        fd = os.open(path, _READ)
    except ValueError as error:  # a NUL, or what is no character
        raise NoFileError(errno.EINVAL, f"no file has such a name ({error})", str(path)) from None
    try:
        state = os.fstat(fd)
        _check(path, state, pipes)
        if stat.S_ISFIFO(state.st_mode):
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:"):  # it is no path
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
    real = Path(os.readlink(f"/proc/self/fd/{fd}"))
    if not real.is_relative_to(folder.resolve()):
        raise NoFileError(errno.EPERM, f"it is a link that leads out of {folder}", str(path))


# --- folders ----------------------------------------------------------------------------


def is_folder(path: Path) -> bool:
    """Whether a path leads to a folder."""
    return path.is_dir()


def is_file(path: Path) -> bool:
    """Whether a path leads to a file."""
    return path.is_file()


def is_there(path: Path) -> bool:
    """Whether there is anything of that name, if only a link that leads nowhere. Raises OSError."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def entries(folder: Path) -> list[Path]:
    """What is in a folder, by name. Raises OSError, ValueError (no folder has such a name)."""
    return sorted(folder.iterdir())


def entries_below(folder: Path) -> list[Path]:
    """What is in a folder, and in the folders in it."""
    return sorted(folder.rglob("*"))


def absolute(path: Path) -> Path:
    """The same path from the top, links and all."""
    return path.absolute()


def resolved(path: Path) -> Path:
    """Where a path leads, without links."""
    return path.resolve()


def identity(path: Path) -> str:
    """What changes when the file changes that a path leads to. Raises OSError."""
    state = path.stat()
    return f"{path.resolve()}\0{state.st_ino}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}"


# --- writing ----------------------------------------------------------------------------


def put(path: Path, text: str) -> None:
    """Writes a file, readable by its owner alone, whole or not at all; or into a device, such as /dev/null.

    Raises OSError; NoFileError for what is neither.
    """
    if _is_device(path):
        _write_into(path, text)
    else:
        _replace(path, text)


def _is_device(path: Path) -> bool:
    """Whether a text is written into what is there, rather than put in its place.

    Raises NoFileError where neither will do.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISCHR(mode):
        return True
    if words := kind(mode):
        raise NoFileError(errno.EINVAL, f"it is {words}, and no file", str(path))
    if path.is_symlink() and str(path.readlink()).startswith("/proc/"):  # /dev/stdout, say
        raise NoFileError(errno.EINVAL, "it is a link into /proc, which is not put aside", str(path))
    return False


def _write_into(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)


def _replace(path: Path, text: str) -> None:
    """Puts a file in place, whole or not at all; a link is put aside."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _OWNERS_ALONE)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(fd)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
