"""A folder of compiled objects, by key: safe against builders at the same time, and against objects of other people.

Whoever can plant an object here can run code in the kernel. So the folder and all above it must belong to root or to
us, and nobody else may write there; everything in it is reached through its file descriptor, so that nothing can be
exchanged after it was checked. An object is put in place whole (rename), and its SHA-256 beside it tells damage.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nkform.files import writable_by_others
from nkform.problem import NkformError, Problem

MAX_OBJECT = 16 << 20
MAX_OBJECTS = 2048
"""Objects kept; beyond that the ones that were not used for longest go."""

_KEY = re.compile(r"[0-9a-f]{64}")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: a FIFO in a file's place makes nobody wait."""


def default_path() -> Path:
    """Where objects are kept: for all of the machine where we are root, else in the user's own cache."""
    if os.geteuid() == 0:
        return Path("/var/cache/nkform/objects")
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "nkform" / "objects"


class Store:
    """A folder of objects. `create` makes it (mode 0700) where it does not exist. Raises NkformError if it cannot be
    trusted."""

    def __init__(self, path: Path, *, create: bool = True) -> None:
        self.path = path
        try:
            self._fd = _open(path, create)
        except OSError as error:
            raise NkformError(
                Problem("NK0733", f"cannot use the folder of objects {path}: {error.strerror or error}")
            ) from None

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: str) -> bytes | None:
        """An object, or None: it is not there, or what is there is damaged."""
        about = self.about(key)
        if about is None:
            return None
        data = self._read(f"{key}.o", MAX_OBJECT)
        if data is None or hashlib.sha256(data).hexdigest() != about.get("sha256"):
            return None
        with contextlib.suppress(OSError):
            os.utime(f"{key}.o", dir_fd=self._fd, follow_symlinks=False)
        return data

    def about(self, key: str) -> Mapping[str, Any] | None:
        """What was noted of an object when it was put here."""
        text = self._read(f"{_checked(key)}.json", 1 << 16)
        try:
            about = json.loads(text) if text is not None else None
        except (ValueError, RecursionError):
            return None
        return about if isinstance(about, dict) else None

    def put(self, key: str, data: bytes, about: Mapping[str, str]) -> None:
        """Stores an object, whole or not at all. Raises OSError."""
        noted = json.dumps({**about, "sha256": hashlib.sha256(data).hexdigest()}, indent=1).encode() + b"\n"
        self._write(f"{_checked(key)}.o", data)
        self._write(f"{key}.json", noted)
        self._prune()

    @contextlib.contextmanager
    def lock(self, key: str) -> Iterator[None]:
        """One builder of an object at a time; a builder that dies gives the lock back."""
        name = f"{_checked(key)}.lock"
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

    def note(self, name: str) -> bytes | None:
        """A small thing remembered beside the objects."""
        return self._read(f"{_checked(name)}.note", 1 << 12)

    def set_note(self, name: str, text: bytes) -> None:
        self._write(f"{_checked(name)}.note", text)

    def _is_still(self, name: str, fd: int) -> bool:
        try:
            there = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(there, os.fstat(fd))

    def _read(self, name: str, most: int) -> bytes | None:
        """A file that only we or root can have written, or None."""
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

    def _write(self, name: str, data: bytes) -> None:
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

    def _prune(self) -> None:
        objects = [name for name in os.listdir(self._fd) if name.endswith(".o")]  # noqa: PTH208  # by descriptor
        if len(objects) <= MAX_OBJECTS:
            return
        with contextlib.suppress(FileNotFoundError):
            objects.sort(key=lambda name: os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_mtime_ns)
            for name in objects[: len(objects) - MAX_OBJECTS]:
                os.unlink(name.removesuffix(".o") + ".json", dir_fd=self._fd)
                os.unlink(name, dir_fd=self._fd)


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is no key")
    return key


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
        raise _untrusted(path, "it is a symbolic link, or no folder") from None
    state = os.fstat(fd)
    if reason := writable_by_others(state, root=True):
        os.close(fd)
        raise _untrusted(path, reason)
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
        raise _untrusted(folder, reason)


def _untrusted(path: Path, reason: str) -> NkformError:
    return NkformError(
        Problem(
            "NK0733",
            f"cannot trust the folder {path}: {reason}",
            hint="who writes there could run code in the kernel; take a folder of your own, or mend its owner and mode",
        )
    )
