"""Legacy tc, for kernels without tcx (before Linux 6.6): direct-action programs as filters of a clsact qdisc.

A filter takes the place of a link, and the functions here have the shape of those in bpf_links.py. A filter of ours has
a priority of its own, which is its id and its place in the chain, and a name that says whose it is. Nothing holds a
filter but its device: there are no pins here. A program that returns TC_ACT_UNSPEC (NEXT, -1) leaves the packet to the
filter with the next higher priority.

clsact keeps no revision of its own. The one reported here is a checksum of the chain: it tells that a chain was
changed, but comparing it and making a filter are two steps, between which somebody else may come.

The filters go through pyroute2, and nothing of it is loaded before a Tc is made. What it lacks is added here: the
program's id and tag of a filter, and chains without filters. Numbers: include/uapi/linux/pkt_sched.h, pkt_cls.h,
rtnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket as sockets
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from nkform.dataclass import dataclass
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_links import After, Before, Chain, Entry, Position
from nkform.kernel.bpf_programs import prog_info, prog_name
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import NLM_F_CREATE, NLM_F_EXCL, U32, Request, Socket, u32, walk
from nkform.kernel.qdiscs import FILTER_PREFIX
from nkform.model import First, Last

PREFIX = FILTER_PREFIX

NAME_BYTES = 255
"""CLS_BPF_NAME_LEN (net/sched/cls_bpf.c), less its NUL."""

QDISC_HANDLE = 0xFFFF0000
"""Where clsact sits, and its elder brother, the ingress qdisc: a device has one of the two."""

HANDLE = 1
"""The handle of each filter of ours, which has its priority for itself."""

PRIORITY_START = 0x4000
PRIORITY_STEP = 0x100
PRIORITY_END = 0x10000
"""Priorities: where a chain begins, how far apart filters are put, and what is beyond the last one."""

MARK_CHAIN = 0x6E6B
"""An empty chain by this number (`nk`) says that nkform made the qdisc; packets never come to it."""

RTM_NEWCHAIN = 100
RTM_GETCHAIN = 102
TCMSG = struct.Struct("=B3xiIII")
"""family, ifindex, handle, parent, info"""
TCA_CHAIN = 11

LAST = Last()


class Direction(IntEnum):
    """The two hooks of a clsact: TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS), and TC_H_MIN_EGRESS."""

    INGRESS = 0xFFFFFFF2
    EGRESS = 0xFFFFFFF3

    @property
    def words(self) -> str:
        return f"clsact {self.name.lower()}"


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter, ours or another's. `prog_id` and `tag` are 0 and empty where it is none with a BPF program."""

    kind: str
    name: str
    priority: int
    protocol: int
    handle: int
    chain: int
    prog_id: int
    tag: str

    @property
    def ours(self) -> bool:
        return self.kind == "bpf" and self.name.startswith(PREFIX)


class Tc:
    """The way to the filters of the network namespace that the thread is in when this is made, and stays in.

    Raises BpfError.
    """

    def __init__(self) -> None:
        _teach_pyroute2()
        from pyroute2 import IPRoute

        self._route: Any = IPRoute(ext_ack=True)
        self._socket = Socket()

    def close(self) -> None:
        self._route.close()
        self._socket.close()

    def __enter__(self) -> Tc:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- the qdisc ----------------------------------------------------------------------

    def qdisc(self, ifindex: int) -> str:
        """What a device has in clsact's place: `clsact`, `ingress` or nothing."""
        with _explained(f"list the qdiscs of {_device(ifindex)}"):
            for found in self._route.get_qdiscs(index=ifindex):
                if found["index"] == ifindex and found["handle"] == QDISC_HANDLE:
                    return str(found.get_attr("TCA_KIND"))
        return ""

    def ensure(self, ifindex: int) -> bool:
        """Makes a device's clsact qdisc, marked as ours; whether there was none.

        Raises BpfError: ENODEV; EBUSY (an ingress qdisc sits there, which has no egress).
        """
        found = self.qdisc(ifindex)
        asked = f"make the clsact qdisc of {_device(ifindex)}"
        if found == "clsact":
            return False
        if found:
            raise BpfError(errno.EBUSY, asked, f"its {found} qdisc takes clsact's place, and has to go first")
        try:
            with _explained(asked):
                self._route.tc("add", "clsact", ifindex)
        except BpfError as error:
            if error.errno == errno.EEXIST and self.qdisc(ifindex) == "clsact":  # somebody was faster
                return False
            raise
        body = TCMSG.pack(0, ifindex, 0, Direction.INGRESS, 0) + u32(TCA_CHAIN, MARK_CHAIN)
        said = f"mark the clsact qdisc of {_device(ifindex)}"
        refused = self._socket.ask([Request(RTM_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, body, said)])[0][0]
        if refused is not None:
            raise BpfError(refused.errno or errno.EIO, said, refused.extack)
        return True

    def is_ours(self, ifindex: int) -> bool:
        """Whether nkform made a device's clsact."""
        body = TCMSG.pack(0, ifindex, 0, Direction.INGRESS, 0)
        marked = False
        try:
            for message in self._socket.dump(Request(RTM_GETCHAIN, 0, body, f"list the chains of {_device(ifindex)}")):
                number = walk(message.buffer, message.start + TCMSG.size, message.end).get(TCA_CHAIN)
                marked = marked or (number is not None and U32.unpack(number)[0] == MARK_CHAIN)
        except KernelError as error:
            raise BpfError(error.errno or errno.EIO, error.asked, error.extack) from error
        return marked

    def release(self, ifindex: int) -> bool:
        """Removes a device's clsact if nkform made it and nobody has a filter there; whether it did."""
        if self.qdisc(ifindex) != "clsact" or not self.is_ours(ifindex):
            return False
        if any(self.filters(ifindex, direction) for direction in Direction):
            return False
        with _explained(f"remove the clsact qdisc of {_device(ifindex)}"):
            self._route.tc("del", "clsact", ifindex)
        return True

    # --- filters ------------------------------------------------------------------------

    def filters(self, ifindex: int, direction: Direction) -> tuple[Filter, ...]:
        """All filters of a hook, in the order they run; those of further chains (which only `goto` reaches) last."""
        with _explained(f"list the filters at {direction.words} of {_device(ifindex)}"):
            found = [_decode(message) for message in self._route.get_filters(index=ifindex, parent=direction)]
        real = {(each.chain, each.priority) for each in found if each.handle}
        # Each priority has a head, without a handle; it counts only where the filters themselves are not shown.
        kept = [each for each in found if each.handle or (each.chain, each.priority) not in real]
        return tuple(sorted(kept, key=lambda each: (each.chain, each.priority)))

    def query(self, ifindex: int, direction: Direction) -> Chain:
        """The chain of a hook: of each entry the program's id (0: no program), and as `link_id` its priority.

        Raises BpfError (ENODEV).
        """
        if not _exists(ifindex):
            asked = f"read the chain at {direction.words} of {_device(ifindex)}"
            raise BpfError(errno.ENODEV, asked, "there is no such device in this network namespace")
        return chain_of(self.filters(ifindex, direction))

    def filter_create(
        self,
        prog_fd: int,
        ifindex: int,
        direction: Direction,
        position: Position = LAST,
        *,
        name: str,
        revision: int = 0,
    ) -> int:
        """Attaches a program under a name (without PREFIX); returns the priority, the filter's id.

        The device must have its clsact (ensure). Positions are relative to programs, and to priorities as link ids; one
        that several filters of others share is one place. Raises BpfError: ESTALE (another revision, 0: any), EEXIST
        (the program is in the chain), ENOENT (the anchor is not), ENOSPC (no priority is free there), ENODEV.
        """
        said = prog_name(prog_fd)
        asked = f"attach {said} at {direction.words} of {_device(ifindex)}"
        chain = self.query(ifindex, direction)
        if revision not in {0, chain.revision}:
            raise BpfError(errno.ESTALE, asked, "the chain was changed meanwhile")
        if any(entry.prog_id == prog_info(prog_fd).id for entry in chain.entries):
            raise BpfError(errno.EEXIST, asked, f"{said} is in this chain already")
        try:
            priority = free_priority(chain.entries, position)
        except LookupError as error:
            number = errno.ENOENT if isinstance(error, KeyError) else errno.ENOSPC
            raise BpfError(number, asked, error.args[0]) from None
        self._set("add-filter", asked, (ifindex, direction, priority), prog_fd, name)
        return priority

    def filter_update(self, ifindex: int, direction: Direction, priority: int, prog_fd: int, *, name: str) -> None:
        """Puts another program and name into a filter of ours, in one step and in its place.

        The kernel swaps the filter in its list: each packet meets the old program or the new one. Raises BpfError:
        ENOENT (we have no filter there), EEXIST (the program is in the chain).
        """
        said = prog_name(prog_fd)
        asked = f"replace filter {priority} at {direction.words} of {_device(ifindex)} by {said}"
        chain = self.filters(ifindex, direction)
        if _ours_at(chain, priority) is None:
            raise BpfError(errno.ENOENT, asked, "nkform has no filter there")
        number = prog_info(prog_fd).id
        if any(each.prog_id == number and each.priority != priority for each in chain if not each.chain):
            raise BpfError(errno.EEXIST, asked, f"{said} is in this chain already")
        self._set("change-filter", asked, (ifindex, direction, priority), prog_fd, name)

    def filter_detach(self, ifindex: int, direction: Direction, priority: int) -> None:
        """Removes a filter of ours; one that is not there, or not ours, is left alone. Raises BpfError."""
        if _ours_at(self.filters(ifindex, direction), priority) is None:
            return
        with _explained(f"detach filter {priority} at {direction.words} of {_device(ifindex)}"):
            self._route.tc("del-filter", "bpf", ifindex, HANDLE, parent=direction, prio=priority)

    def _set(self, command: str, asked: str, place: tuple[int, Direction, int], prog_fd: int, name: str) -> None:
        ifindex, direction, priority = place
        full = PREFIX + name
        if len(full.encode()) > NAME_BYTES:
            raise ValueError(f"the name of a filter has at most {NAME_BYTES - len(PREFIX)} bytes: {name!r}")
        with _explained(asked):
            self._route.tc(
                command,
                "bpf",
                ifindex,
                HANDLE,
                parent=direction,
                prio=priority,
                fd=prog_fd,
                name=full,
                direct_action=True,
            )


def chain_of(filters: Sequence[Filter]) -> Chain:
    """The filters that packets meet, as a chain; its revision is a checksum, and 1 while there are none."""
    main = [each for each in filters if not each.chain]
    told = repr([(each.priority, each.handle, each.kind, each.name, each.prog_id) for each in main])
    revision = zlib.crc32(told.encode(errors="surrogateescape")) + 2 if main else 1
    return Chain(revision, tuple(Entry(each.prog_id, each.priority) for each in main))


def free_priority(entries: Sequence[Entry], position: Position) -> int:
    """A priority for a new filter. Raises KeyError (the anchor is not there), IndexError (no room)."""
    taken = sorted({entry.link_id for entry in entries})
    match position:
        case First():
            place = 0
        case Last():
            place = len(taken)
        case Before(link_id, prog_id):
            place = taken.index(_anchor(entries, link_id, prog_id))
        case After(link_id, prog_id):
            place = taken.index(_anchor(entries, link_id, prog_id)) + 1
    low = taken[place - 1] if place else 0
    high = taken[place] if place < len(taken) else PRIORITY_END
    if high - low < 2:
        after = f" and {high}" if high < PRIORITY_END else ""
        raise IndexError(f"no priority is free {'between' if after else 'after'} {low}{after}")
    if not taken:
        return PRIORITY_START
    if place == len(taken):
        return min(low + PRIORITY_STEP, (low + high) // 2)
    return max(high - PRIORITY_STEP, (low + high) // 2) if not place else (low + high) // 2


def _anchor(entries: Sequence[Entry], link_id: int, prog_id: int) -> int:
    for entry in entries:
        if (link_id and entry.link_id == link_id) or (prog_id and entry.prog_id == prog_id):
            return entry.link_id
    raise KeyError(f"{f'filter {link_id}' if link_id else f'program {prog_id}'} is not in this chain")


def _ours_at(filters: Sequence[Filter], priority: int) -> Filter | None:
    for each in filters:
        if each.ours and not each.chain and (each.priority, each.handle) == (priority, HANDLE):
            return each
    return None


def _decode(message: Any) -> Filter:
    options = message.get_attr("TCA_OPTIONS")
    of_bpf: Callable[[str], Any] = options.get_attr if hasattr(options, "get_attr") else lambda _: None
    info = message["info"]
    return Filter(
        kind=str(message.get_attr("TCA_KIND") or ""),
        name=of_bpf("TCA_BPF_NAME") or "",
        priority=info >> 16,
        protocol=sockets.ntohs(info & 0xFFFF),
        handle=message["handle"],
        chain=message.get_attr("TCA_CHAIN") or 0,
        prog_id=of_bpf("TCA_BPF_ID") or 0,
        tag=(of_bpf("TCA_BPF_TAG") or "").replace(":", ""),
    )


def _teach_pyroute2() -> None:
    """Adds the attributes that pyroute2's tables end before; they must be there when the first message is decoded."""
    from pyroute2.netlink.rtnl.tcmsg import sched_bpf, tcmsg

    _extend(
        tcmsg,
        "TCA_STAB",
        (
            ("TCA_PAD", "hex"),
            ("TCA_DUMP_INVISIBLE", "flag"),
            ("TCA_CHAIN", "uint32"),
        ),
    )
    _extend(
        sched_bpf.options,
        "TCA_BPF_FLAGS",
        (
            ("TCA_BPF_FLAGS_GEN", "uint32"),
            ("TCA_BPF_TAG", "hex"),
            ("TCA_BPF_ID", "uint32"),
        ),
    )


def _extend(table: Any, last: str, rows: tuple[tuple[str, str], ...]) -> None:
    """Appends rows to a table of attributes that ends with `last`; a newer pyroute2 may have them."""
    if table.nla_map[-1][0] == last:
        table.nla_map = (*table.nla_map, *rows)


@contextmanager
def _explained(asked: str) -> Iterator[None]:
    """pyroute2's errors as ours."""
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        yield
    except NetlinkError as error:
        number = error.code or errno.EIO
        told = str(error.args[1]) if len(error.args) > 1 else ""
        raise BpfError(number, asked, told if told != os.strerror(number) else "") from error


def _exists(ifindex: int) -> bool:
    try:
        sockets.if_indextoname(ifindex)
    except OSError:
        return False
    return True


def _device(ifindex: int) -> str:
    try:
        return f"{sockets.if_indextoname(ifindex)} (ifindex {ifindex})"
    except OSError:
        return f"ifindex {ifindex}"
