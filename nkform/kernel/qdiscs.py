"""Which devices have a clsact or ingress qdisc, or one of others, found without loading anything: most have none.

Numbers: include/uapi/linux/rtnetlink.h, pkt_sched.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping

from nkform.kernel.netlink import NLM_F_CREATE, NLM_F_REPLACE, Request, Socket, attribute, string, walk
from nkform.kinds import TcPlace

RTM_NEWQDISC = 36
RTM_GETQDISC = 38
RTM_GETTFILTER = 46
TCMSG = struct.Struct("=B3xiIII")
"""family, ifindex, handle, parent, info"""
TCA_KIND = 1
TCA_OPTIONS = 2
TCA_BPF_NAME = 7
BLOCKS: Mapping[int, TcPlace] = {13: "ingress", 14: "egress"}
"""TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK: the kernel takes filters for such a block by its number alone."""
FILTER_PREFIX = "nkform:"
"""How the names of all filters of ours begin."""
TC_H_INGRESS = 0xFFFFFFF1
"""The parent of both, so that a device has one of them at most (TC_H_CLSACT is the same number)."""
DEFAULT = "noqueue"
"""What a device gets that has no queue of its own (net/sched/sch_generic.c, attach_one_default_qdisc)."""
REMADE = ("pfifo", "bfifo", "tbf", "codel", "fq", "fq_codel", "pie", "fq_pie", "cake")
"""Kinds without classes that take what they report as what they are to be; what hangs below one does not count."""
ROOT = 0xFFFFFFFF
"""TC_H_ROOT"""
HOLDERS = ("clsact", "ingress")
"""They queue nothing: what they are for is their filters."""
PARENTS = (0xFFFFFFF2, 0xFFFFFFF3)
"""Ingress and egress of a clsact: TC_H_CLSACT with TC_H_MIN_INGRESS, TC_H_MIN_EGRESS."""


def at_ingress(socket: Socket) -> tuple[set[int], dict[int, tuple[TcPlace, ...]]]:
    """The ifindexes of the devices of the socket's namespace that have a clsact, and of those where no filters can be
    given to one: an ingress qdisc has its place, or its filters of a side are those of a block that devices share."""
    clsact: set[int] = set()
    taken: dict[int, tuple[TcPlace, ...]] = {}
    for message in socket.dump(Request(RTM_GETQDISC, 0, TCMSG.pack(0, 0, 0, 0, 0), "list the qdiscs")):
        _, index, _, parent, _ = TCMSG.unpack_from(message.buffer, message.start)
        if parent != TC_H_INGRESS:
            continue  # as with nearly all: nothing more is decoded of it
        found = walk(message.buffer, message.start + TCMSG.size, message.end)
        kind = string(found.get(TCA_KIND))
        if kind == "clsact":
            clsact.add(index)
            if shared := tuple(side for number, side in BLOCKS.items() if number in found):
                taken[index] = shared
        elif kind == "ingress":
            taken[index] = ("qdisc",)
    return clsact, taken


def has_filter(socket: Socket, index: int, prefix: str) -> bool:
    """Whether a device has a BPF filter whose name begins so. Raises KernelError."""
    return any(name.startswith(prefix) for name in _filters(socket, index))


def _filters(socket: Socket, index: int) -> Iterator[str]:
    """The names of a device's filters at ingress and egress, empty where they are none of BPF. Raises KernelError."""
    for parent in PARENTS:
        body = TCMSG.pack(0, index, 0, parent, 0)
        for message in socket.dump(Request(RTM_GETTFILTER, 0, body, "list the filters")):
            found = walk(message.buffer, message.start + TCMSG.size, message.end)
            options = found.get(TCA_OPTIONS)
            if options is not None:
                bpf = string(found.get(TCA_KIND)) == "bpf"
                yield string(walk(options, 0, len(options)).get(TCA_BPF_NAME)) if bpf else ""


def of_others(socket: Socket, indexes: Collection[int]) -> dict[int, list[str]]:
    """The kinds of queueing disciplines that somebody gave some links, by their ifindexes; a clsact and the like only
    where it has filters that are not ours, and nothing of what can be had again (`REMADE`). Raises KernelError."""
    found: dict[int, list[str]] = {}
    for message in socket.dump(Request(RTM_GETQDISC, 0, TCMSG.pack(0, 0, 0, 0, 0), "list the qdiscs")):
        _, index, _, parent, _ = TCMSG.unpack_from(message.buffer, message.start)
        if index not in indexes:
            continue
        kind = string(walk(message.buffer, message.start + TCMSG.size, message.end).get(TCA_KIND))
        if parent != ROOT or kind not in REMADE:
            found.setdefault(index, []).append(kind)
    return {
        index: some
        for index, kinds in found.items()
        if (some := [kind for kind in kinds if kind != DEFAULT and (kind not in HOLDERS or _is_used(socket, index))])
    }


def _is_used(socket: Socket, index: int) -> bool:
    """Whether a device has filters that are not ours."""
    return any(not name.startswith(FILTER_PREFIX) for name in _filters(socket, index))


def at_root(socket: Socket, indexes: Collection[int]) -> dict[int, tuple[str, bytes]]:
    """What somebody had some links queue by, by their ifindexes: its kind, and the message as it is. Raises
    KernelError."""
    found: dict[int, tuple[str, bytes]] = {}
    for message in socket.dump(Request(RTM_GETQDISC, 0, TCMSG.pack(0, 0, 0, 0, 0), "list the qdiscs")):
        _, index, _, parent, _ = TCMSG.unpack_from(message.buffer, message.start)
        if index in indexes and parent == ROOT:
            body = bytes(message.buffer[message.start : message.end])
            kind = string(walk(body, TCMSG.size, len(body)).get(TCA_KIND))
            if kind != DEFAULT:
                found[index] = kind, body
    return found


def add(qdisc: bytes, index: int, name: str) -> Request:
    """Has a link queue by what was dumped at another."""
    _, _, handle, parent, _ = TCMSG.unpack_from(qdisc)
    found = walk(qdisc, TCMSG.size, len(qdisc))
    body = TCMSG.pack(0, index, handle, parent, 0)
    for number in (TCA_KIND, TCA_OPTIONS):
        if number in found:
            body += attribute(number, bytes(found[number]))
    return Request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE, body, f"give {name} the qdisc of others")
