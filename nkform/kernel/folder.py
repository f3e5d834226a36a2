"""A folder that nobody else can write to: it and all above it are of root or ours, and its files cannot be exchanged.

All in it is reached through its file descriptor, so that nothing can be exchanged after it was checked.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from nkform.kernel.files import writable_by_others

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: a FIFO in a file's place makes nobody wait."""


class UntrustedError(Exception):
    """Others could write to a `folder`, or exchange it; the text says why."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(reason)
        self.folder = folder


def of_user(system: Path, own: str) -> Path:
    """The folder of the system where we are root, else `own` in the user's cache (XDG Base Directory Specification)."""
    if os.geteuid() == 0:
        return system
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / own


class Folder:
    """One folder. `create` makes it (mode 0700) where it does not exist. Raises OSError, UntrustedError. Close it."""

    def __init__(self, path: Path, *, create: bool) -> None:
        self._fd = _open(path, create)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self, name: str, most: int) -> bytes | None:
        """A file that only we or root can have written; None: there is none, or it has more than `most` bytes."""
        try:
            fd = os.open(name, _FILE, dir_fd=self._fd)
        except OSError:
            return None
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or writable_by_others(state, root=True):
            os.close(fd)
            return None
        with os.fdopen(fd, "rb") as stream:
            data = stream.read(most + 1)
        return data if len(data) <= most else None

    def write(self, name: str, data: bytes) -> None:
        """Puts a file in place, whole or not at all. Raises OSError."""
        temporary = f".{os.getpid()}.{os.urandom(6).hex()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
        try:
            with os.fdopen(fd, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(fd)
            os.rename(temporary, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=self._fd)
            raise

    def note_use(self, name: str) -> None:
        """A file was used just now, if that can be noted."""
        with contextlib.suppress(OSError):
            os.utime(name, dir_fd=self._fd, follow_symlinks=False)

    def names(self) -> list[str]:
        """What is in it."""
        return os.listdir(self._fd)  # by descriptor

    def used(self, name: str) -> int:
        """When a file was used last (ns). Raises OSError."""
        return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mtime_ns

    def remove(self, name: str) -> None:
        """Raises OSError."""
        os.unlink(name, dir_fd=self._fd)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Within the block a file is this process's alone, for which it waits; it goes with the block.

        A process that dies gives it back.
        """
        while True:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                if not self._is_still(name, fd):  # the one before us has removed it when it was done
                    continue
                try:
                    yield
                finally:
                    with contextlib.suppress(OSError):  # it is gone, or the file system cannot be written to any more
                        os.unlink(name, dir_fd=self._fd)
                return
            finally:
                os.close(fd)

    def _is_still(self, name: str, fd: int) -> bool:
        try:
            there = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))


def _open(path: Path, create: bool) -> int:
    """The folder's file descriptor. Symbolic links above the folder are followed first; the folder is none."""
    absolute = path.absolute()
    parent = absolute.parent.resolve()
    if create:
        _make_parents(parent)
    for above in (parent, *parent.parents):
        _check_above(above)
    if create:
        with contextlib.suppress(FileExistsError):
            (parent / absolute.name).mkdir(mode=0o700)
    try:
        fd = os.open(parent / absolute.name, _FOLDER)
    except NotADirectoryError:
        raise UntrustedError(path, "it is a symbolic link, or no folder") from None
    state = os.fstat(fd)
    if reason := writable_by_others(state, root=True):
        os.close(fd)
        raise UntrustedError(path, reason)
    return fd


def _make_parents(parent: Path) -> None:
    for folder in (*reversed(parent.parents), parent):
        if not folder.exists():
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o755)


def _check_above(folder: Path) -> None:
    """In a sticky folder, such as /tmp, others can add things but not exchange ours."""
    state = folder.stat()
    sticky = state.st_mode & stat.S_ISVTX
    if (reason := writable_by_others(state, root=True)) and not (sticky and state.st_uid in (0, os.geteuid())):
        raise UntrustedError(folder, reason)
