"""Actions of tc that redirect or copy packets to a device (act_mirred), found without looking at every filter.

Numbers: include/uapi/linux/rtnetlink.h, pkt_cls.h, tc_act/tc_mirred.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Request, Socket, consistent_dump, nested, string, text, walk

RTM_GETACTION = 50
TCAMSG = struct.Struct("=B3x")
"""family"""
TCA_ACT_TAB = 1
TCA_ACT_KIND = 1
TCA_ACT_OPTIONS = 2
TCA_MIRRED_PARMS = 2
MIRRED = struct.Struct("=IIiiiiI")
"""index, capability, verdict, references, bindings; what is done, ifindex"""


def redirects(socket: Socket) -> list[tuple[int, int]]:
    """The number of each such action of the socket's namespace, and the ifindex that it leads to.

    Raises KernelError.
    """
    try:
        return consistent_dump(_dump, socket)
    except KernelError as error:
        if error.errno != errno.EOPNOTSUPP:  # this kernel has no actions
            raise
        return []


def _dump(socket: Socket) -> Iterator[tuple[int, int]]:
    body = TCAMSG.pack(0) + nested(TCA_ACT_TAB, nested(1, text(TCA_ACT_KIND, "mirred")))
    for message in socket.dump(Request(RTM_GETACTION, 0, body, "list the actions that redirect packets")):
        actions = walk(message.buffer, message.start + TCAMSG.size, message.end).get(TCA_ACT_TAB, b"")
        for action in walk(actions, 0, len(actions)).values():
            parts = walk(action, 0, len(action))
            options = parts.get(TCA_ACT_OPTIONS, b"")
            parameters = walk(options, 0, len(options)).get(TCA_MIRRED_PARMS, b"")
            if string(parts.get(TCA_ACT_KIND)) == "mirred" and len(parameters) >= MIRRED.size:
                number, *_, index = MIRRED.unpack_from(parameters)
                yield number, index
