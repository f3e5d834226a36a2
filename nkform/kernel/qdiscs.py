"""Which devices have a clsact qdisc, found without loading anything for it: most nodes have none.

Numbers: include/uapi/linux/rtnetlink.h, pkt_sched.h.
"""

from __future__ import annotations

import struct

from nkform.kernel.netlink import Request, Socket, string, walk

RTM_GETQDISC = 38
TCMSG = struct.Struct("=B3xiIII")
TCA_KIND = 1


def with_clsact(socket: Socket) -> set[int]:
    """The ifindexes of the devices of the socket's namespace that have one."""
    found = set()
    for message in socket.dump(Request(RTM_GETQDISC, 0, TCMSG.pack(0, 0, 0, 0, 0), "list the qdiscs")):
        _, index, *_ = TCMSG.unpack_from(message.buffer, message.start)
        kind = walk(message.buffer, message.start + TCMSG.size, message.end).get(TCA_KIND)
        if string(kind) == "clsact":
            found.add(index)
    return found
