"""Network namespaces: finding, entering, making and removing them. Changes the namespace of the calling thread.

A namespace is meant by its key (nkform/namespace_key.py). Names are kept as iproute2 keeps
them (ip-netns(8)), so that both see the same ones.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from nkform.kernel.error import KernelError
from nkform.kernel.files import kind
from nkform.kernel.netlink import S32, Message, Request, Socket, u32, walk
from nkform.namespace_key import ROOT, Named, OfPath, OfPid, Root, Unnamed, can_be_a_name, described, key_of, meant_by

RUN = Path("/run/netns")
SELF = "/proc/thread-self/ns/net"
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
MS_REC = 16384
MS_SHARED = 1 << 20
MNT_DETACH = 2

RTM_GETNSID = 90
NETNSA_NSID = 1
NETNSA_FD = 3
RTGENMSG_BYTES = 4
"""struct rtgenmsg is one byte, the family, and padded."""

HELPERS = 7
"""So many threads beside the main one wait for grace periods where there are many to wait for."""

_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
"""O_NONBLOCK: a FIFO in a namespace's place makes nobody wait (fifo(7))."""

_libc = ctypes.CDLL(None, use_errno=True)


def _call(asked: str, result: int) -> None:
    if result < 0:
        raise KernelError(ctypes.get_errno(), asked)


def _mount(source: str, target: str, flags: int, asked: str) -> None:
    _call(asked, _libc.mount(source.encode(), target.encode(), b"none", flags, None))


def get_nsid(fd: int) -> Request:
    """Asks for the id that the caller's namespace knows another one by (rtgenmsg; -1 answers: none yet)."""
    return Request(RTM_GETNSID, 0, bytes(RTGENMSG_BYTES) + u32(NETNSA_FD, fd), "read a namespace's id")


def nsid_of(answer: Message) -> int:
    """The id that the kernel answered."""
    payload = walk(answer.buffer, answer.start + RTGENMSG_BYTES, answer.end)[NETNSA_NSID]
    return int(S32.unpack_from(payload)[0])


def processes() -> list[str]:
    """The keys of processes, one for each namespace that any is in: the oldest one. Those that this process may not
    look into are left out."""
    found: dict[tuple[int, int], int] = {}
    for number in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        with suppress(OSError):
            status = os.stat(f"/proc/{number}/ns/net")
            found.setdefault((status.st_dev, status.st_ino), number)
    return [key_of(OfPid(number)) for number in found.values()]


def stale() -> list[str]:
    """The names that stand for no namespace, since a reboot, say."""
    if not RUN.is_dir():
        return []
    return [entry.name for entry in os.scandir(RUN) if entry.stat().st_size != 0 or not os.path.ismount(entry.path)]


def is_held(path: Path) -> bool:
    """Whether something else than the file itself, such as a namespace, is mounted at it."""
    return os.path.ismount(path)  # Path.is_mount knows folders alone (Python 3.11)


class Namespaces:
    """The way into namespaces and back to the one that this object was made in."""

    def __init__(self, run: Path = RUN) -> None:
        self.run = run
        self._root = os.open(SELF, os.O_RDONLY | os.O_CLOEXEC)
        self._identity = self._identify(self._root)
        self._prepared = False

    def close(self) -> None:
        os.close(self._root)

    def __enter__(self) -> Namespaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @staticmethod
    def _identify(fd: int) -> tuple[int, int]:
        status = os.fstat(fd)
        return status.st_dev, status.st_ino

    def path(self, key: str) -> str:
        """The file that a key stands for. Raises KernelError (ENOENT) where none does."""
        match meant_by(key):
            case Root():
                return SELF
            case Named(name):
                return f"{self.run}/{name}"
            case OfPid(pid):
                return f"/proc/{pid}/ns/net"
            case OfPath(path):
                return path
            case Unnamed():
                raise KernelError(errno.ENOENT, f"open {described(key)}", "nothing leads there")

    def names(self) -> list[str]:
        """The named namespaces, in order; files that are none (left over from a reboot, say) among them.

        A name that a key would take for something else is left out: no spec can mean it.
        """
        try:
            names = sorted(entry.name for entry in os.scandir(self.run))
            return [name for name in names if can_be_a_name(name)]
        except FileNotFoundError:
            return []

    def named_at(self) -> int | None:
        """When a namespace was last named or lost its name (ns since 1970); None where none ever was."""
        try:
            return self.run.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def is_plain(self, name: str) -> bool:
        """Whether a name stands for a plain file, as that of a namespace does that did not come to be, or is gone."""
        path = Path(self.path(name))
        return path.exists() and not is_held(path)

    def remove_plain(self, name: str) -> None:
        """Removes such a file. Raises OSError."""
        Path(self.path(name)).unlink()

    @contextmanager
    def open(self, key: str) -> Iterator[int]:
        """A file descriptor of a namespace. Raises KernelError (ENOENT: there is none).

        What a name stands for need not be a namespace: entering it tells. What a path stands for, which anybody may
        have made, is not opened if it is no file: opening a device can set things going.
        """
        if key == ROOT:
            yield self._root
            return
        fd = self.descriptor(key)
        try:
            yield fd
        finally:
            os.close(fd)

    def descriptor(self, key: str) -> int:
        """The same to be closed by the caller, of a key that is not ROOT."""
        try:
            if isinstance(meant_by(key), OfPath) and (words := kind(os.stat(self.path(key)).st_mode)):
                raise KernelError(errno.EINVAL, f"open namespace {key}", f"it is {words}")
            return os.open(self.path(key), _READ)
        except KernelError:
            raise
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"open namespace {key}") from error

    def is_root(self, fd: int) -> bool:
        return self._identify(fd) == self._identity

    @contextmanager
    def entered(self, fd: int, key: str) -> Iterator[None]:
        """The calling thread is in the namespace within the block, and back at home after it."""
        _call(f"enter namespace {key}", _libc.setns(fd, CLONE_NEWNET))
        try:
            yield
        finally:
            _call("return to the namespace nkform was started in", _libc.setns(self._root, CLONE_NEWNET))

    @contextmanager
    def away(self) -> Iterator[Callable[[int, str], None]]:
        """Within the block the calling thread enters namespaces, one after the other, by the function that it gets.

        The function takes a namespace's file descriptor and key, and raises KernelError (EINVAL: it is none). The
        thread is back at home after the block.
        """
        try:
            yield lambda fd, key: _call(f"enter namespace {key}", _libc.setns(fd, CLONE_NEWNET))
        finally:
            _call("return to the namespace nkform was started in", _libc.setns(self._root, CLONE_NEWNET))

    def home_id(self, socket: Socket) -> int:
        """By what id the namespace of a socket knows the one that nkform was started in; -1: it has none for it."""
        return nsid_of(socket.get(get_nsid(self._root)))

    @contextmanager
    def throwaway(self) -> Iterator[None]:
        """A nameless namespace that is gone after the block."""
        _call("make a namespace", _libc.unshare(CLONE_NEWNET))
        try:
            yield
        finally:
            _call("return to the namespace nkform was started in", _libc.setns(self._root, CLONE_NEWNET))

    def create(self, name: str, inside: Callable[[], None], held: Path | None = None) -> None:
        """Makes a named namespace that appears once `inside`, called within it, has returned; or gives the name to one
        that is `held`.

        Raises KernelError (EEXIST: the name is taken).
        """
        self._prepare()
        target = self.path(name)
        asked = f"create namespace {name}"
        try:
            os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, asked) from error
        try:
            with self.throwaway() if held is None else self._within(held):
                inside()
                _mount(SELF, target, MS_BIND, asked)
        except BaseException:
            with suppress(OSError):  # a file that leads to no namespace is left: what failed first is said
                os.unlink(target)
            raise

    @contextmanager
    def _within(self, held: Path) -> Iterator[None]:
        try:
            fd = os.open(held, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"open {held}") from error
        try:
            with self.entered(fd, str(held)):
                yield
        finally:
            os.close(fd)

    def hold(self, name: str, target: Path) -> None:
        """Keeps a namespace, whatever becomes of its name: `target` is a file for it, which is made.

        Raises KernelError.
        """
        asked = f"hold namespace {name}"
        try:
            os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o400))
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, asked) from error
        if not is_held(target):
            _mount(self.path(name), str(target), MS_BIND, asked)

    @staticmethod
    def let_go(target: Path) -> None:
        """Keeps a namespace no longer. Raises KernelError."""
        if _libc.umount2(os.fsencode(target), MNT_DETACH) < 0 and ctypes.get_errno() not in (
            errno.EINVAL,
            errno.ENOENT,
        ):
            raise KernelError(ctypes.get_errno(), f"let go of {target}")
        try:
            target.unlink(missing_ok=True)
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, f"let go of {target}") from error

    def _prepare(self) -> None:
        """Makes the folder of names a shared mount of its own, so that names appear in all mount namespaces."""
        if self._prepared:
            return
        self.run.mkdir(mode=0o755, parents=True, exist_ok=True)
        run = str(self.run)
        asked = f"prepare {run}"
        try:
            _mount("", run, MS_SHARED | MS_REC, asked)
        except KernelError as error:
            if error.errno != errno.EINVAL:  # EINVAL: not a mount point yet
                raise
            _mount(run, run, MS_BIND | MS_REC, asked)
            _mount("", run, MS_SHARED | MS_REC, asked)
        self._prepared = True

    def delete_all(self, names: Sequence[str]) -> list[KernelError | None]:
        """Removes names side by side; one outcome each (None: done).

        With each the kernel waits for an RCU grace period (namespace_unlock in fs/namespace.c); one serves all who
        wait at the time.
        """
        outcomes: list[KernelError | None] = [KernelError(errno.ENOMEM, f"delete namespace {name}") for name in names]
        waiting = deque(enumerate(names))

        def work() -> None:
            while waiting:
                with suppress(IndexError, MemoryError):  # another one was faster; or it stays not done
                    place, name = waiting.popleft()
                    try:
                        self.delete(name)
                        outcomes[place] = None
                    except KernelError as error:
                        outcomes[place] = error

        helpers = [threading.Thread(target=work) for _ in range(min(HELPERS, len(names) - 1))]
        try:
            with suppress(RuntimeError):  # no more threads are to be had: those that there are do it
                for helper in helpers:
                    helper.start()
            work()
        finally:
            for helper in helpers:
                if helper.ident is not None:
                    helper.join()
        return outcomes

    def delete(self, name: str) -> None:
        """Removes a name; the namespace goes when nobody is in it any more. Raises KernelError: it is as it was."""
        asked = f"delete namespace {name}"
        target = self.path(name)
        with self.open(name) as fd:
            mounted = _libc.umount2(target.encode(), MNT_DETACH) == 0
            if not mounted and ctypes.get_errno() != errno.EINVAL:
                raise KernelError(ctypes.get_errno(), asked)
            try:
                os.unlink(target)
            except OSError as error:
                if mounted:
                    _mount(f"/proc/self/fd/{fd}", target, MS_BIND, asked)
                raise KernelError(error.errno or errno.EIO, asked) from error
