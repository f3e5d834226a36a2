"""Nexthop objects, in rtnetlink messages: they go with their link, and the routes through them.

Layouts: include/uapi/linux/nexthop.h, ip-nexthop(8).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import partial
from socket import AF_UNSPEC

from nkform.kernel.netlink import U32, Request, Socket, consistent_dump, u32, walk

RTM_GETNEXTHOP = 106
NHMSG = struct.Struct("=BBBxI")
"""family, scope, protocol, flags"""
NHA_ID = 1
NHA_OIF = 5


def of_link(socket: Socket, index: int) -> list[int]:
    """The ids of those that lead through a link. Raises KernelError."""
    return consistent_dump(partial(_dump, index=index), socket)


def _dump(socket: Socket, index: int) -> Iterator[int]:
    body = NHMSG.pack(AF_UNSPEC, 0, 0, 0) + u32(NHA_OIF, index)
    for message in socket.dump(Request(RTM_GETNEXTHOP, 0, body, "list nexthop objects")):
        parts = walk(message.buffer, message.start + NHMSG.size, message.end)
        yield U32.unpack_from(parts[NHA_ID])[0]
