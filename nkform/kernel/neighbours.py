"""Neighbour entries that somebody made, in rtnetlink messages: they go with their link, and with its `down`.

What the kernel finds out by itself is not looked at. Layouts: include/uapi/linux/neighbour.h.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from functools import partial
from socket import AF_INET, AF_INET6, AF_UNSPEC, inet_ntop

from nkform.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_REPLACE,
    U32,
    Request,
    Socket,
    attribute,
    consistent_dump,
    u32,
    walk,
)

RTM_NEWNEIGH = 28
RTM_GETNEIGH = 30
NDMSG = struct.Struct("=BxxxiHBB")
"""family, padding, index, state, flags, type"""

NDA_DST = 1
NDA_LLADDR = 2
NDA_IFINDEX = 8
NDA_PROTOCOL = 12
NDA_FLAGS_EXT = 15
NUD_PERMANENT = 0x80
NUD_VALID = 0xDE
"""PERMANENT, NOARP, REACHABLE, PROBE, STALE and DELAY: the states with a hardware address (include/net/neighbour.h)."""
NTF_PROXY = 0x08
NTF_EXT_LEARNED = 0x10
NTF_CHOSEN = 0xD8
"""Flags that somebody chose: PROXY, EXT_LEARNED, STICKY, ROUTER."""
NTF_EXT_MANAGED = 0x01
LINKS_ONE_BY_ONE = 2
"""Entries of so many links are asked for link by link: each time the kernel goes through all that it has."""

Key = tuple[int, bytes, int]
"""What tells an entry of a link from all others of it: family, address, and NTF_PROXY or 0."""


def made(socket: Socket, indexes: Collection[int]) -> list[tuple[int, bytes]]:
    """The entries of some links that somebody made, as they are, with the index of their link. Raises KernelError."""
    asked = indexes if len(indexes) <= LINKS_ONE_BY_ONE else [0]
    return [
        each
        for index in asked
        for flags in (0, NTF_PROXY)
        for each in consistent_dump(partial(_dump, index=index, flags=flags), socket)
        if each[0] in indexes
    ]


def _dump(socket: Socket, index: int, flags: int) -> Iterator[tuple[int, bytes]]:
    """Entries, or with NTF_PROXY the addresses that are answered for; of one link alone, if `index` is said."""
    body = NDMSG.pack(AF_UNSPEC, 0, 0, flags, 0) + (u32(NDA_IFINDEX, index) if index else b"")
    for message in socket.dump(Request(RTM_GETNEIGH, 0, body, "list the neighbours")):
        family, link, state, found, _ = NDMSG.unpack_from(message.buffer, message.start)
        if family not in (AF_INET, AF_INET6):
            continue
        entry = bytes(message.buffer[message.start : message.end])
        if state & NUD_PERMANENT or found & (NTF_PROXY | NTF_EXT_LEARNED) or _is_managed(entry):
            yield link, entry


def _is_managed(entry: bytes) -> bool:
    """Whether the kernel is asked to keep an entry's hardware address known (Linux 5.16)."""
    parts = walk(entry, NDMSG.size, len(entry))
    return NDA_FLAGS_EXT in parts and bool(U32.unpack_from(parts[NDA_FLAGS_EXT])[0] & NTF_EXT_MANAGED)


def text(entry: bytes) -> str:
    """The address of an entry."""
    family, address, _ = key(entry)
    return inet_ntop(family, address) if address else "?"


def key(entry: bytes) -> Key:
    family, _, _, flags, _ = NDMSG.unpack_from(entry)
    return family, bytes(walk(entry, NDMSG.size, len(entry)).get(NDA_DST, b"")), flags & NTF_PROXY


def add(entry: bytes, index: int, name: str) -> Request:
    """Has an entry as it was dumped at a link, in the place of what the kernel may have found out since.

    A managed one gets no hardware address: the kernel asks for it, and refuses one (net/core/neighbour.c, neigh_add).
    """
    family, _, state, flags, kind = NDMSG.unpack_from(entry)
    managed = _is_managed(entry)
    body = NDMSG.pack(family, index, 0 if managed else state & NUD_VALID, flags & NTF_CHOSEN, kind)
    for number, payload in walk(entry, NDMSG.size, len(entry)).items():
        if number in (NDA_DST, NDA_PROTOCOL, NDA_FLAGS_EXT) or (number == NDA_LLADDR and not managed):
            body += attribute(number, bytes(payload))
    return Request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body, f"give {name} a neighbour of others")
