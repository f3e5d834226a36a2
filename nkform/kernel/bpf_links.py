"""Links between programs and devices at the multi-program hooks (tcx and netkit), and what is attached there.

A link is how a program is attached: it holds the program's place in a chain, and detaches it when its last file
descriptor and its last pin are gone. tcx and netkit share one implementation, kernel/bpf/mprog.c, and so they share
these functions. The peer of a netkit is reached through its primary's ifindex. Ifindexes are those of the calling
thread's network namespace.

Layouts and numbers: include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import errno
import functools
import os
import socket
from collections.abc import Mapping
from enum import IntEnum

from nkform.dataclass import dataclass
from nkform.kernel import bpf
from nkform.kernel.bpf import BpfError, Command, Layout
from nkform.kernel.bpf_programs import prog_name
from nkform.model import MAX_PROGRAMS, First, Last

BPF_F_REPLACE = 1 << 2
BPF_F_BEFORE = 1 << 3
BPF_F_AFTER = 1 << 4
BPF_F_ID = 1 << 5
BPF_F_LINK = 1 << 13

LINK_TYPE_TCX = 11
LINK_TYPE_NETKIT = 13
_DEVICE_LINKS = (LINK_TYPE_TCX, LINK_TYPE_NETKIT)

LINK_CREATE = Layout(
    "bpf_attr.link_create",
    ("prog_fd", "I"),
    ("target_ifindex", "I"),
    ("attach_type", "I"),
    ("flags", "I"),
    ("tcx.relative_fd", "I"),
    ("", "4x"),
    ("tcx.expected_revision", "Q"),
)
LINK_UPDATE = Layout(
    "bpf_attr.link_update", ("link_fd", "I"), ("new_prog_fd", "I"), ("flags", "I"), ("old_prog_fd", "I")
)
LINK_DETACH = Layout("bpf_attr.link_detach", ("link_fd", "I"))
PROG_QUERY = Layout(
    "bpf_attr.query",
    ("target_ifindex", "I"),
    ("attach_type", "I"),
    ("query_flags", "I"),
    ("attach_flags", "I"),
    ("prog_ids", "Q"),
    ("count", "I"),
    ("", "4x"),
    ("prog_attach_flags", "Q"),
    ("link_ids", "Q"),
    ("link_attach_flags", "Q"),
    ("revision", "Q"),
)
LINK_INFO = Layout(
    "bpf_link_info",
    ("type", "I"),
    ("id", "I"),
    ("prog_id", "I"),
    ("", "4x"),
    ("tcx.ifindex", "I"),
    ("tcx.attach_type", "I"),
)


class AttachType(IntEnum):
    """Where a program can be linked (enum bpf_attach_type)."""

    TCX_INGRESS = 46
    TCX_EGRESS = 47
    NETKIT_PRIMARY = 54
    NETKIT_PEER = 55

    @property
    def words(self) -> str:
        return self.name.lower().replace("_", " ")

    @property
    def feature(self) -> str:
        """What the kernel must have, and the version that brought it."""
        return "netkit (CONFIG_NETKIT): Linux 6.7" if self >= self.NETKIT_PRIMARY else "tcx links: Linux 6.6"


@dataclass(frozen=True, slots=True)
class Before:
    """Right before the program of a link, or before a program; exactly one of the two ids."""

    link_id: int = 0
    prog_id: int = 0

    def __post_init__(self) -> None:
        _one(self.link_id, self.prog_id)


@dataclass(frozen=True, slots=True)
class After:
    """Right after the program of a link, or after a program; exactly one of the two ids."""

    link_id: int = 0
    prog_id: int = 0

    def __post_init__(self) -> None:
        _one(self.link_id, self.prog_id)


Position = First | Last | Before | After


def _one(link_id: int, prog_id: int) -> None:
    if bool(link_id) == bool(prog_id):
        raise ValueError("a position is relative to one link or to one program")


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A link. Of one whose device was deleted, and of one that was detached, `ifindex` is 0.

    Of a netkit peer's link `ifindex` is the peer's, in the peer's namespace. Of links that are neither tcx nor netkit,
    `ifindex` and `attach_type` are 0.
    """

    id: int
    type: int
    prog_id: int
    ifindex: int
    attach_type: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One program of a chain; `link_id` is 0 where it was attached without a link."""

    prog_id: int
    link_id: int


@dataclass(frozen=True, slots=True)
class Chain:
    """The programs of a hook in the order they run, and the hook's revision, which grows with each change.

    An empty netkit hook always says revision 1, whatever its counter is: expect revision 0 (any) there.
    """

    revision: int
    entries: tuple[Entry, ...]


def link_create(
    prog_fd: int, ifindex: int, attach_type: AttachType, position: Position = Last(), revision: int = 0
) -> int:
    """Attaches a program to a device's hook; returns the link.

    `revision` is the one that the chain must have, 0 for any. Raises BpfError: ESTALE (another revision), EEXIST (the
    program is in the chain), ENOENT (the anchor is not), ERANGE (the chain is full), ENODEV, ENXIO (no netkit), EACCES
    (a netkit's peer).
    """
    flags, relative = _place(position)
    attr = LINK_CREATE.fill(prog_fd, ifindex, attach_type, flags, relative, revision)
    fd = bpf.call(Command.LINK_CREATE, attr, LINK_CREATE.size)
    if fd < 0:
        raise _create_error(-fd, prog_fd, (ifindex, attach_type), position, revision)
    return fd


def link_update(link_fd: int, prog_fd: int, old_prog_fd: int | None = None) -> None:
    """Puts another program into a link, in one step and in its place; the link keeps its id.

    With `old_prog_fd` only if that is the program it has. Raises BpfError: ENOLINK (the link is detached), EEXIST (the
    program is in the chain), EPERM (it has another program).
    """
    flags, old = (0, 0) if old_prog_fd is None else (BPF_F_REPLACE, old_prog_fd)
    result = bpf.call(Command.LINK_UPDATE, LINK_UPDATE.fill(link_fd, prog_fd, flags, old), LINK_UPDATE.size)
    if result < 0:
        said = prog_name(prog_fd)
        meanings = {
            errno.ENOLINK: "the link is detached: its device was deleted, or somebody detached it",
            errno.EEXIST: f"{said} is in this chain already, and a chain takes a program only once",
            errno.EINVAL: f"{said} is of another type than the link's, or the link cannot be updated",
            errno.EPERM: "the link has another program than the expected one" if flags else bpf.PRIVILEGE,
        }
        raise bpf.error(-result, f"replace the program of {_link_name(link_fd)} by {said}", meanings)


def link_detach(link_fd: int) -> None:
    """Takes a link's program out of its chain; the link remains, detached. Doing it again does nothing."""
    result = bpf.call(Command.LINK_DETACH, LINK_DETACH.fill(link_fd), LINK_DETACH.size)
    if result < 0:
        meanings = {errno.EOPNOTSUPP: "links of this type cannot be detached"}
        raise bpf.error(-result, f"detach {_link_name(link_fd)}", meanings)


def link_info(link_fd: int) -> LinkInfo:
    """What a link is and where. Raises BpfError."""
    info = bpf.room(LINK_INFO.size)
    bpf.read_info(link_fd, info, "link")
    kind, number, prog_id, ifindex, attach_type = LINK_INFO.struct.unpack_from(info)
    if kind not in _DEVICE_LINKS:
        ifindex = attach_type = 0
    return LinkInfo(number, kind, prog_id, ifindex, attach_type)


def open_link(path: str | os.PathLike[str]) -> int:
    """A pinned link. Raises BpfError (ENOENT: no such pin; EINVAL: the pin is of another kind of object)."""
    fd = bpf.get(path)
    if (found := bpf.kind(fd)) != "link":
        os.close(fd)
        raise BpfError(errno.EINVAL, f"open the link pinned as {os.fspath(path)}", f"it is a {found or 'file'}")
    return fd


_count = PROG_QUERY.getter("count")
_revision = PROG_QUERY.getter("revision")


def query(ifindex: int, attach_type: AttachType) -> Chain:
    """The chain of a device's hook. Raises BpfError: ENODEV, ENXIO (no netkit), EACCES (a netkit's peer)."""
    size = MAX_PROGRAMS + 1
    while True:
        ids = bpf.room(8 * size)
        progs = bpf.address(ids)
        attr = PROG_QUERY.fill(ifindex, attach_type, 0, 0, progs, size, 0, progs + 4 * size, 0, 0)
        result = bpf.call(Command.PROG_QUERY, attr, PROG_QUERY.size)
        count = _count(attr)
        if result == -errno.ENOSPC and count > size:
            size = count
            continue
        if result < 0:
            asked = f"read the chain at {_hook_name(ifindex, attach_type)}"
            raise bpf.error(-result, asked, _DEVICE_MEANINGS, _missing(-result, attach_type))
        found = memoryview(ids).cast("B").cast("I")
        entries = tuple(map(Entry, found[:count], found[size : size + count]))
        return Chain(_revision(attr), entries)


@functools.cache
def supported(attach_type: AttachType) -> bool:
    """Whether this kernel has a hook at all, found by asking for it on a device that cannot be."""
    no_device = 0x7FFFFFFF
    attr = PROG_QUERY.fill(no_device, attach_type, 0, 0, 0, 0, 0, 0, 0, 0)
    return bpf.call(Command.PROG_QUERY, attr, PROG_QUERY.size) == -errno.ENODEV


def _place(position: Position) -> tuple[int, int]:
    """A position as flags and the anchor's id."""
    match position:
        case First():
            return BPF_F_BEFORE, 0
        case Last():
            return BPF_F_AFTER, 0
        case Before(link_id, prog_id):
            side = BPF_F_BEFORE
        case After(link_id, prog_id):
            side = BPF_F_AFTER
    return side | BPF_F_ID | (BPF_F_LINK if link_id else 0), link_id or prog_id


# --- errors in words --------------------------------------------------------------------

_DEVICE_MEANINGS: Mapping[int, str] = {
    errno.ENODEV: "there is no such device in this network namespace",
    errno.ENXIO: "the device is no netkit",
    errno.EACCES: "it is a netkit's peer: its programs are reached through the primary, as `netkit peer`",
    errno.EOPNOTSUPP: "a netkit without a peer takes no programs",
}


def _create_error(
    number: int, prog_fd: int, hook: tuple[int, AttachType], position: Position, revision: int
) -> BpfError:
    said = prog_name(prog_fd)
    anchor = _anchor_name(position)
    meanings = {
        **_DEVICE_MEANINGS,
        errno.ESTALE: f"the chain is not at revision {revision} any more: it was changed meanwhile",
        errno.EEXIST: f"{said} is in this chain already, and a chain takes a program only once",
        errno.ENOENT: f"{anchor} is not in this chain",
        errno.ERANGE: f"the chain is full: the kernel takes {MAX_PROGRAMS} programs",
        errno.EINVAL: f"{said} is of another type than SCHED_CLS",
        errno.EBADF: "the file descriptor to attach is no BPF program",
    }
    where = {First: "first", Last: "last", Before: f"before {anchor}", After: f"after {anchor}"}[type(position)]
    asked = f"attach {said} {where} at {_hook_name(*hook)}"
    return bpf.error(number, asked, meanings, _missing(number, hook[1]))


def _missing(number: int, attach_type: AttachType) -> str:
    """The feature that an EINVAL is about, if the kernel lacks it."""
    return attach_type.feature if number == errno.EINVAL and not supported(attach_type) else ""


def _anchor_name(position: Position) -> str:
    match position:
        case First() | Last():
            return "the anchor"
        case Before(link_id, prog_id) | After(link_id, prog_id):
            return f"link {link_id}" if link_id else f"program {prog_id}"


def _hook_name(ifindex: int, attach_type: AttachType) -> str:
    try:
        name = socket.if_indextoname(ifindex)
    except OSError:
        return f"{attach_type.words} of ifindex {ifindex}"
    return f"{attach_type.words} of {name} (ifindex {ifindex})"


def _link_name(link_fd: int) -> str:
    try:
        return f"link {link_info(link_fd).id}"
    except OSError:
        return f"file descriptor {link_fd}, which is no link"
