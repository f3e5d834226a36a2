"""Reads what `nkform plan` reads, and does nothing with it: the kernel's own part of a look at a node.

subject.py runs it as `python -I -S bare_reader.py`. The root namespace first, then each named one is entered, straight
from the one before; there are a socket and three dumps in each: links, addresses, and routes of nkform's protocol
number. Nothing is decoded but what says that a dump is over. It says on standard output how many bytes came.

Layouts and numbers: netlink(7), rtnetlink(7), setns(2).
"""

import ctypes
import os
import socket
import struct

RUN = "/run/netns"
CLONE_NEWNET = 0x40000000
SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
NLM_F_REQUEST_DUMP = 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
HEADER = struct.Struct("=IHHII")
PROTOCOL = 78
SKIP_STATS = struct.pack("=HHI", 8, 29, 8)
"""IFLA_EXT_MASK with RTEXT_FILTER_SKIP_STATS."""
DUMPS = (
    (18, struct.pack("=BxHiII", 0, 0, 0, 0, 0) + SKIP_STATS),  # RTM_GETLINK, struct ifinfomsg
    (22, struct.pack("=BBBBI", 0, 0, 0, 0, 0)),  # RTM_GETADDR, struct ifaddrmsg
    (26, struct.pack("=BBBBBBBBI", 0, 0, 0, 0, 0, PROTOCOL, 0, 0, 0)),  # RTM_GETROUTE, struct rtmsg
)

_buffer = bytearray(1 << 16)


def read() -> int:
    """The bytes that the dumps of the thread's namespace came to."""
    total = 0
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as rtnetlink:
        rtnetlink.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        for kind, body in DUMPS:
            rtnetlink.send(HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST_DUMP, 1, 0) + body)
            over = False
            while not over:
                size = rtnetlink.recv_into(_buffer)
                total += size
                over = _is_last(size)
    return total


def _is_last(size: int) -> bool:
    place = 0
    while place + HEADER.size <= size:
        length, kind, *_ = HEADER.unpack_from(_buffer, place)
        if kind == NLMSG_ERROR:
            raise OSError(f"a dump failed: errno {-struct.unpack_from('=i', _buffer, place + HEADER.size)[0]}")
        if kind == NLMSG_DONE:
            return True
        place += (length + 3) & ~3
    return False


def main() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    total = read()
    for name in sorted(entry.name for entry in os.scandir(RUN)):
        fd = os.open(f"{RUN}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        if libc.setns(fd, CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), f"enter {name}")
        os.close(fd)
        total += read()
    print(total)


main()
