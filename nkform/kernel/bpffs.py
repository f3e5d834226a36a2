"""The BPF file system: where it is, and nkform's pins in it. Touches what lies below `<base>/nkform`, and may mount.

A pin keeps a link alive when the process that made it is gone, and its name says whose it is:

    <base>/nkform/<node>/<device>/<hook>/<entry>

bpffs refuses "." in names, which device names may have; so every part is written with `encode`. Folders are made with
mode 0700. What is no plain folder of our user's is refused, never followed: whoever could put a symbolic link or a
folder of his own there could hand us his programs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
from collections.abc import Iterator

from nkform.dataclass import dataclass, field
from nkform.kernel.error import KernelError
from nkform.kernel.files import writable_by_others
from nkform.model import is_node_name

BASE = "/sys/fs/bpf"
FOLDER = "nkform"
HELD = "nkform-held"
"""Where programs are pinned that a chain lost, and that going back to it would need."""
MAGIC = 0xCAFE4A11
"""BPF_FS_MAGIC, include/uapi/linux/magic.h."""

FOLDER_MODE = 0o700
NAME_BYTES = 255
"""NAME_MAX, include/uapi/linux/limits.h."""

AT_FDCWD = -100
"""include/uapi/linux/fcntl.h."""
RENAME_EXCHANGE = 2
"""include/uapi/linux/fs.h; bpffs can since Linux 5.17."""

MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8

_libc = ctypes.CDLL(None, use_errno=True)


# --- the file system --------------------------------------------------------------------


def is_mounted(base: str = BASE) -> bool:
    """Whether a folder is in a bpffs."""
    status = (ctypes.c_long * 64)()  # struct statfs, statfs(2): the type comes first, the whole has 120 bytes
    return _libc.statfs(os.fsencode(base), status) == 0 and status[0] & 0xFFFFFFFF == MAGIC


def is_covered(base: str = BASE) -> bool:
    """Whether something is mounted over a bpffs there, and pins are out of sight (proc_pid_mountinfo(5))."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return sum(line.split(" ", 5)[4] == base for line in file) > 1
    except OSError:
        return False  # no /proc: then nothing is known of it


def mount(base: str = BASE) -> None:
    """Mounts a bpffs that only root can enter, as systemd does. Raises KernelError (ENOENT: no such folder).

    The mount is seen in this mount namespace, and wherever its mounts propagate to.
    """
    options = MS_NOSUID | MS_NODEV | MS_NOEXEC
    if _libc.mount(b"bpf", os.fsencode(base), b"bpf", options, f"mode={FOLDER_MODE:o}".encode()) < 0:
        number = ctypes.get_errno()
        said = {
            errno.ENODEV: "this kernel was built without CONFIG_BPF_SYSCALL",
            errno.ENOENT: "the folder does not exist",
            errno.EPERM: "this takes root (CAP_SYS_ADMIN)",
        }
        raise KernelError(number, f"mount a bpffs at {base}", said.get(number, ""))


def require(base: str = BASE) -> None:
    """Raises KernelError where a folder is in no bpffs, and says how to mount one."""
    if not is_mounted(base):
        raise KernelError(errno.ENODEV, f"use the bpffs at {base}", f"mount it: mount -t bpf -o mode=700 bpf {base}")


# --- names ------------------------------------------------------------------------------

_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_@:+=,-")
_ESCAPED = rb"%([0-9A-F]{2})"


def encode(name: str) -> str:
    """A name as bpffs takes it: all but ASCII letters, digits and `_@:+=,-` becomes %XX, byte by byte (UTF-8).

    Raises ValueError for a name that is empty, or longer than 255 bytes when encoded.
    """
    raw = os.fsencode(name)
    plain = _SAFE.issuperset(raw)  # as nearly all are
    written = name if plain else "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in raw)
    if not 0 < len(written) <= NAME_BYTES:
        raise ValueError(f"no name for a pin: {name!r}")
    return written


def decode(written: str) -> str:
    """The name that `encode` wrote so. Raises ValueError for what it never writes."""
    if written and _SAFE.issuperset(os.fsencode(written)):
        return written
    name = os.fsdecode(re.sub(_ESCAPED, lambda escape: bytes.fromhex(escape[1].decode()), os.fsencode(written)))
    if encode(name) != written:
        raise ValueError(f"no name that nkform gave to a pin: {written!r}")
    return name


@dataclass(frozen=True, slots=True)
class Pin:
    """A pin of ours: whose it is, where its program runs, and which one of the chain it is. `top`: FOLDER or HELD.

    `touched`, of a pin that was listed: somebody may have renamed it since, and it may hold what another one should.
    """

    node: str
    device: str
    hook: str
    entry: str
    top: str = FOLDER
    touched: bool = field(default=False, compare=False)

    def path(self, base: str = BASE) -> str:
        return f"{self.folders(base)[0]}/{encode(self.entry)}"

    def folders(self, base: str = BASE) -> tuple[str, str, str, str]:
        """The folders of the hook, the device, the node and nkform: from below."""
        nkform = f"{base}/{self.top}"
        node = f"{nkform}/{encode(self.node)}"
        device = f"{node}/{encode(self.device)}"
        return f"{device}/{encode(self.hook)}", device, node, nkform


# --- folders and pins -------------------------------------------------------------------


def prepare(pin: Pin, base: str = BASE) -> str:
    """Makes the folders that a pin goes into, and returns its path.

    Raises KernelError: ENODEV (no bpffs), ENOTDIR or EPERM (something that is not our folder is in the way).
    """
    folders = pin.folders(base)
    required = False
    for folder in reversed(folders):
        try:
            _check(folder)
        except FileNotFoundError:
            if not required:
                require(base)
                required = True
            _make(folder)
    return f"{folders[0]}/{encode(pin.entry)}"


def _make(folder: str) -> None:
    try:
        os.mkdir(folder, FOLDER_MODE)
    except FileExistsError:
        _check(folder)
    except OSError as error:
        raise _refused(error, f"make folder {folder}") from error


def pins(node: str, base: str = BASE, top: str = FOLDER) -> Iterator[Pin]:
    """All pins of a node, in no particular order. What has a name that nkform never gives is left out.

    Raises KernelError where something that is no folder of ours stands in place of one.
    """
    above = f"{base}/{top}"
    for folder in (above, f"{above}/{encode(node)}"):
        try:
            _check(folder)
        except FileNotFoundError:
            return
    for device in _entries(folder):
        for hook in _entries(device.path):
            yield from _pins_in(hook.path, Pin(node, decode(device.name), decode(hook.name), "-", top))


def pins_at(node: str, device: str, hook: str, base: str = BASE) -> Iterator[Pin]:
    """The pins of one hook: of a node with thousands, only these few are looked at. Raises KernelError."""
    where = Pin(node, device, hook, "-")
    folders = where.folders(base)
    for folder in reversed(folders):
        try:
            _check(folder)
        except FileNotFoundError:
            return
    yield from _pins_in(folders[0], where)


def _pins_in(folder: str, where: Pin) -> Iterator[Pin]:
    """The pins in the folder of a hook."""
    for entry in _entries(folder):
        if entry.is_file(follow_symlinks=False):
            touched = _is_touched(entry.path)
            yield Pin(where.node, where.device, where.hook, decode(entry.name), where.top, touched)


def is_touched(pin: Pin, base: str = BASE) -> bool:
    """Whether somebody may have renamed a pin: it may hold what another one should."""
    return _is_touched(pin.path(base))


def _is_touched(path: str) -> bool:
    """A rename moves a file's time of change (ctime) away from that of its content (mtime), which `rename` below puts
    right; so of thousands of pins none has to be opened to tell whether it is where nkform put it."""
    try:
        state = os.lstat(path)
    except FileNotFoundError:
        return False
    return state.st_ctime_ns != state.st_mtime_ns


def is_taken(pin: Pin, base: str = BASE) -> bool:
    """Whether there is a pin of that name, or anything else."""
    return os.path.lexists(pin.path(base))


def has_node(node: str, base: str = BASE, top: str = FOLDER) -> bool:
    """Whether a node may have pins here."""
    return os.path.lexists(f"{base}/{top}/{encode(node)}")


def nodes(base: str = BASE) -> tuple[str, ...]:
    """The nodes that have folders here. Raises KernelError."""
    try:
        _check(top := f"{base}/{FOLDER}")
    except FileNotFoundError:
        return ()
    return tuple(sorted(filter(is_node_name, (decode(entry.name) for entry in _entries(top)))))


def remove(pin: Pin, base: str = BASE) -> bool:
    """Removes a pin and the folders that it leaves empty; whether it was there.

    The object goes with its last pin and file descriptor: a link is detached then. Raises KernelError.
    """
    path = pin.path(base)
    try:
        _check_all(pin, base)
        os.unlink(path)
        there = True
    except FileNotFoundError:
        there = False
    except KernelError:
        raise
    except OSError as error:
        raise _refused(error, f"remove the pin {path}") from error
    tidy(pin, base)
    return there


def tidy(pin: Pin, base: str = BASE) -> None:
    """Removes the folders of a pin that are empty, from below, that of nkform itself last."""
    for folder in pin.folders(base):
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError:  # not empty: it is still needed, and so are those above
            return


def tidy_node(node: str, base: str = BASE, top: str = FOLDER) -> None:
    """Removes all folders of a node that are empty, which a run that was killed may have left. Raises KernelError."""
    for device in _entries(f"{base}/{top}/{encode(node)}"):
        for hook in _entries(device.path):
            tidy(Pin(node, decode(device.name), decode(hook.name), "-", top), base)
        tidy(Pin(node, decode(device.name), "-", "-", top), base)
    tidy(Pin(node, "-", "-", "-", top), base)


def rename(old: Pin, new: Pin, base: str = BASE) -> None:
    """Renames a pin in one step, over one that has the new name already; folders come and go as needed.

    Raises KernelError (ENOENT: no such pin).
    """
    target = prepare(new, base)
    try:
        os.rename(old.path(base), target)
    except OSError as error:
        tidy(new, base)
        raise _refused(error, f"rename the pin {old.path(base)} to {target}") from error
    _accept(target)
    tidy(old, base)


def exchange(one: Pin, other: Pin, base: str = BASE) -> None:
    """Exchanges two pins in one step: each gets the other's name. Raises KernelError (ENOENT: one is not there)."""
    paths = [os.fsencode(pin.path(base)) for pin in (one, other)]
    _check_all(one, base)
    _check_all(other, base)
    if _libc.renameat2(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) < 0:
        asked = f"exchange the pins {one.path(base)} and {other.path(base)}"
        raise KernelError(ctypes.get_errno(), asked)


def accept(pin: Pin, base: str = BASE) -> None:
    """A pin is where it should be: it does not count as touched any more."""
    _accept(pin.path(base))


def _accept(path: str) -> None:
    with contextlib.suppress(OSError):  # then it is looked at again
        os.utime(path)


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder of ours and has a name that we gave; of its folders each one must be ours."""
    found = []
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError, ValueError):
                decode(entry.name)
                if not entry.is_file(follow_symlinks=False):
                    _check(entry.path)
                found.append(entry)
    return found


def _check_all(pin: Pin, base: str) -> None:
    """The folders of a pin from above, so that each one is looked at through folders that are ours."""
    for folder in reversed(pin.folders(base)):
        _check(folder)


def _check(folder: str) -> None:
    """Raises KernelError where a path is not a plain folder that only our user can write to, FileNotFoundError where
    there is nothing."""
    try:
        status = os.lstat(folder)
    except NotADirectoryError as error:
        raise _refused(error, f"use folder {folder}") from error
    if not stat.S_ISDIR(status.st_mode):
        found = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a file"
        raise KernelError(errno.ENOTDIR, f"use folder {folder}", f"it is {found}, which nkform never made; remove it")
    if reason := writable_by_others(status):
        raise KernelError(errno.EPERM, f"use folder {folder}", reason)


def _refused(error: OSError, asked: str) -> KernelError:
    return KernelError(error.errno or errno.EIO, asked)
