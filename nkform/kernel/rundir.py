"""Small files below /run/nkform/<node>, and the lock beside them: what may vanish at reboot.

The folders must be ours alone: whoever could write there could lie to us, and a symbolic link would lead elsewhere.
Everything here raises KernelError.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar, TextIO

from nkform.kernel.error import KernelError
from nkform.kernel.files import kind, writable_by_others
from nkform.model import is_node_name

RUN = Path("/run/nkform")
FOLDER_MODE = 0o700
FILE_MODE = 0o600
JOURNAL = "journal"
"""The file of a run under way, or of one that was killed (apply/journal.py)."""
GUARDIAN = "guardian"
"""The file that the guardian of a run that waits to be confirmed has the lock of (session/guardian.py)."""
GOING_BACK = "going-back"
"""The file that a guardian has the lock of, in the machine's folder, while it goes back or waits for its turn."""
LOCK = "@lock"
MACHINE = "@machine"
"""The folder of what is the machine's and not a node's. No node has these names: theirs have no @."""

_OPEN = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""O_NONBLOCK: a FIFO in a file's place makes nobody wait (fifo(7))."""


def _open_folder(path: Path) -> int:
    """A folder of ours, made if it is not there. EPERM: somebody else could write there."""
    asked = f"use the folder {path}"
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, FOLDER_MODE)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _OPEN)
    except OSError as error:
        told = "it is a symbolic link or a file, which nkform never made; remove it"
        raise KernelError(
            error.errno or errno.EIO, asked, told if error.errno in (errno.ELOOP, errno.ENOTDIR) else ""
        ) from error
    try:
        _check(os.fstat(fd), asked)
    except KernelError:
        os.close(fd)
        raise
    return fd


def _check(state: os.stat_result, asked: str) -> None:
    if reason := writable_by_others(state):
        raise KernelError(errno.EPERM, asked, reason)


def _check_file(state: os.stat_result, asked: str) -> None:
    if words := kind(state.st_mode):
        raise KernelError(errno.EINVAL, asked, f"it is {words}, which nkform never made; remove it")
    _check(state, asked)


def _path(node: str, base: Path, asked: str) -> Path:
    """Where the folder of a node is. EINVAL: the name is none, and might lead elsewhere."""
    if node != MACHINE and not is_node_name(node):
        raise KernelError(errno.EINVAL, asked, "that is no name of a node")
    return base / node


@contextlib.contextmanager
def _folder(node: str, base: Path, asked: str) -> Iterator[int]:
    """The folder of a node, as a file descriptor. What fails within says what was asked."""
    os.close(_open_folder(base))
    fd = _open_folder(_path(node, base, asked))
    try:
        yield fd
    except KernelError:
        raise
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, asked) from error
    finally:
        os.close(fd)


def read(node: str, name: str, base: Path = RUN) -> str | None:
    """A file's text; None where there is none."""
    file = _opened(node, name, base)
    return None if file is None else "".join(_lines(file, f"read {base / node / name}"))


def lines(node: str, name: str, base: Path = RUN) -> Iterator[str] | None:
    """A file's lines, each with its end, one at a time; None where there is none."""
    file = _opened(node, name, base)
    return None if file is None else _lines(file, f"read {base / node / name}")


def _opened(node: str, name: str, base: Path) -> TextIO | None:
    """A file that is there and ours."""
    if not os.path.lexists(base / node):
        return None
    asked = f"read {base / node / name}"
    with _folder(node, base, asked) as folder:
        try:
            fd = os.open(name, os.O_RDONLY | _OPEN, dir_fd=folder)
        except FileNotFoundError:
            return None
    try:
        _check_file(os.fstat(fd), asked)
    except KernelError:
        os.close(fd)
        raise
    return os.fdopen(fd, encoding="utf-8", errors="surrogateescape", newline="\n")


def _lines(file: TextIO, asked: str) -> Iterator[str]:
    with file:
        try:
            yield from file
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, asked) from error


def write(node: str, name: str, text: str | Iterable[str], base: Path = RUN) -> None:
    """Puts a file in place, whole or not at all, and waits until it is. One process at a time does so: it has the lock.

    `text` may come in parts, so that it need not be in memory as a whole.

    What a killed one left of it is written over, or goes with the file.
    """
    draft = _draft(name)
    with _folder(node, base, f"write {base / node / name}") as folder:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _OPEN, FILE_MODE, dir_fd=folder)
        with os.fdopen(fd, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.writelines((text,) if isinstance(text, str) else text)
            file.flush()
            os.fsync(fd)
        os.rename(draft, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _draft(name: str) -> str:
    return f".{name}"


class Lasting:
    """A file that is there, to be added to: what was added is on disk. Close it. `what` it is, for errors."""

    def __init__(self, node: str, name: str, what: str, base: Path = RUN) -> None:
        self._asked = f"write {what}"
        with _folder(node, base, f"write {base / node / name}") as folder:
            self._fd = os.open(name, os.O_WRONLY | os.O_APPEND | _OPEN, dir_fd=folder)

    def add(self, text: str) -> None:
        try:
            os.write(self._fd, text.encode(errors="surrogateescape"))
            os.fsync(self._fd)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, self._asked) from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Appended:
    """A file that lines are added to, made with the first of them. Close it."""

    def __init__(self, node: str, name: str, base: Path = RUN) -> None:
        self._place = node, name, base
        self._fd = -1

    def add(self, text: str) -> None:
        node, name, base = self._place
        if self._fd < 0:
            with _folder(node, base, f"write {base / node / name}") as folder:
                self._fd = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _OPEN, FILE_MODE, dir_fd=folder)
        try:
            os.write(self._fd, text.encode(errors="surrogateescape"))
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"write {base / node / name}") from error

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Appended:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def rewrite(node: str, name: str, text: str, base: Path = RUN) -> None:
    """Puts a short text in place of what a file says; the file stays the same one, with whoever has its lock."""
    with _folder(node, base, f"write {base / node / name}") as folder:
        fd = os.open(name, os.O_WRONLY | _OPEN, dir_fd=folder)
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, text.encode(errors="surrogateescape"), 0)
        finally:
            os.close(fd)


def reserve(node: str, names: Sequence[str], like: str, more: int, base: Path = RUN) -> None:
    """Files that do nothing but take room: the first as many bytes as another file, and `more`; each an inode.

    None of them is left where there is not enough room.
    """
    with _folder(node, base, f"reserve {base / node / names[0]}") as folder:
        size = os.stat(like, dir_fd=folder, follow_symlinks=False).st_size + more
        try:
            for name in names:
                fd = os.open(name, os.O_WRONLY | os.O_CREAT | _OPEN, FILE_MODE, dir_fd=folder)
                try:
                    if size:
                        os.posix_fallocate(fd, 0, size)
                finally:
                    os.close(fd)
                size = 0
        except OSError:
            remove(node, *names, base=base)
            raise


def stamp(node: str, name: str, base: Path = RUN) -> tuple[int, int] | None:
    """A file's inode and when it was last written (ns); None where there is none."""
    try:
        state = os.lstat(base / node / name)
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns


def rename(node: str, old: str, new: str, base: Path = RUN) -> None:
    """Renames a file, over one that has the new name already. Not waited for: it is done, or it fails, as a whole."""
    with _folder(node, base, f"rename {base / node / old} to {new}") as folder:
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)


def remove(node: str, *names: str, base: Path = RUN) -> None:
    """Removes files if they are there, and the node's folder if that leaves it empty."""
    if not os.path.lexists(base / node):
        return
    with _folder(node, base, f"remove files in {base / node}") as folder:
        for each in (part for name in names for part in (name, _draft(name))):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(each, dir_fd=folder)
    with contextlib.suppress(OSError):
        os.rmdir(base / node)


def folder(node: str, base: Path = RUN) -> Path:
    """The folder of a node, which is ours alone, made if it is not there."""
    with _folder(node, base, f"use the folder {base / node}"):
        return base / node


def files(node: str, prefix: str, base: Path = RUN) -> list[Path]:
    """The files of a node whose names begin so."""
    if not os.path.lexists(base / node):
        return []
    with _folder(node, base, f"list {base / node}") as folder:
        return [base / node / name for name in sorted(os.listdir(folder)) if name.startswith(prefix)]


def nodes(base: Path = RUN) -> list[str]:
    """The names of all nodes that have a folder here which nobody else can write to: nothing in another counts."""
    return sorted(entry.name for entry, reason in _folders(base) if not reason)


def untrusted(base: Path = RUN) -> list[tuple[Path, str]]:
    """What others could write to in the place of nodes' folders, or of files in them, and why."""
    found = []
    for entry, reason in _folders(base):
        path = base / entry.name
        if reason:
            found.append((path, reason))
            continue
        with contextlib.suppress(OSError):  # it has gone meanwhile
            within = [(path / file.name, file.stat(follow_symlinks=False)) for file in os.scandir(path)]
            found += [(file, reason) for file, state in within if (reason := writable_by_others(state))]
    return sorted(found)


def _folders(base: Path) -> Iterator[tuple[os.DirEntry[str], str]]:
    """The folders that are called as nodes are, and why others could write there; empty: nobody else can."""
    try:
        entries = [entry for entry in os.scandir(base) if is_node_name(entry.name)]
    except FileNotFoundError:
        return
    for entry in entries:
        with contextlib.suppress(OSError):  # it has gone meanwhile
            if entry.is_dir(follow_symlinks=False):
                yield entry, writable_by_others(entry.stat(follow_symlinks=False))


class Lock:
    """Something that one process has at a time, by a lock on a file. Release it, or let the process end.

    The lock belongs to the open file (F_OFD_SETLK, fcntl(2)): forked children have it too, until all have closed it.
    """

    of_machine: ClassVar[Lock | None] = None
    """The machine's, while this process has it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        if Lock.of_machine is self:
            Lock.of_machine = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def is_removed(self) -> bool:
        """Whether the file is there no more, under any name; one that is out of sight (mount(8)) is."""
        return os.fstat(self._fd).st_nlink == 0

    def leave(self) -> None:
        """Closes this process's copy; a process that was forked from this one, or that forked this one, keeps it."""
        self.release()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def lock(words: str, base: Path = RUN) -> Lock | str:
    """Takes the machine's lock, or tells who has it: `words` say so of us."""
    os.close(_open_folder(base))
    taken = _take(base, LOCK, words)
    if isinstance(taken, Lock):
        Lock.of_machine = taken
    return taken


def has_lock() -> bool:
    """Whether this process has the machine's lock."""
    return Lock.of_machine is not None


def is_locked(base: Path = RUN) -> bool:
    """Whether a run is changing this machine; takes nothing."""
    return _is_taken(base / LOCK)


def lock_holder(base: Path = RUN) -> str | None:
    """What whoever last took the machine's lock says of itself."""
    try:
        with (base / LOCK).open(encoding="utf-8", errors="replace") as file:
            return file.read(500).strip()
    except OSError:
        return None


def hold(node: str, name: str, words: str, base: Path = RUN) -> Lock | str:
    """Takes the lock of a file in the folder of a node, or tells what it says."""
    path = _path(node, base, f"lock {base / node / name}")
    os.close(_open_folder(base))
    os.close(_open_folder(path))
    return _take(path, name, words)


def is_held(node: str, name: str, base: Path = RUN) -> bool:
    """Whether a process has the lock of a file in the folder of a node; takes nothing."""
    return _is_taken(base / node / name)


_FLOCK = struct.Struct("@hhqqi0q")
"""struct flock, fcntl(2): type, whence, start, length and pid; a length of 0 is the whole file."""


def _take(path: Path, name: str, words: str) -> Lock | str:
    asked = f"lock {path / name}"
    text = words.encode(errors="backslashreplace")
    folder = _open_folder(path)
    try:
        fd = os.open(name, os.O_RDWR | os.O_CREAT | _OPEN, FILE_MODE, dir_fd=folder)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, asked) from error
    finally:
        os.close(folder)
    try:
        _check_file(os.fstat(fd), asked)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: somebody has it
        holder = os.pread(fd, 500, 0).decode(errors="replace").strip()
        os.close(fd)
        return holder or "another process"
    except BaseException:
        os.close(fd)
        raise
    try:
        os.pwrite(fd, text, 0)  # over what is there, which needs no more room
        os.ftruncate(fd, len(text))
    except OSError as error:
        os.close(fd)  # who cannot say that it has the lock has it not
        raise KernelError(error.errno or errno.EIO, asked) from error
    return Lock(fd)


def _is_taken(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | _OPEN)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"see who has the lock {path}") from error
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
