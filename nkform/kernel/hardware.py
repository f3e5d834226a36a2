"""What a device's packets begin with, by its hardware type, and its ifindex by its name.

Asks about devices of the thread's network namespace.

A program sees a packet from its link-layer header on, if the device has one: 14 bytes on Ethernet, none on tun,
WireGuard and IP tunnels. Numbers: include/uapi/linux/if_arp.h, sockios.h; struct ifreq: include/uapi/linux/if.h.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
from collections.abc import Mapping

from nkform.kernel.error import KernelError

SIOCGIFHWADDR = 0x8927
IFREQ = struct.Struct("=16sH22x")
"""ifr_name, and of ifr_hwaddr the family, which is the hardware type."""

FRAMINGS: Mapping[int, str] = {
    1: "ethernet",  # ARPHRD_ETHER
    772: "ethernet",  # ARPHRD_LOOPBACK: its headers are Ethernet's (drivers/net/loopback.c, eth_header_ops)
    519: "ip",  # ARPHRD_RAWIP
    768: "ip",  # ARPHRD_TUNNEL: IPIP
    769: "ip",  # ARPHRD_TUNNEL6
    776: "ip",  # ARPHRD_SIT
    65534: "ip",  # ARPHRD_NONE: tun, WireGuard
}
"""By hardware type; all others (PPP, GRE, InfiniBand …) have a header of their own, or none in one direction."""


def framing(name: str) -> str:
    """ethernet, ip (packets begin with their IP header) or other. Raises KernelError (ENODEV)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, SIOCGIFHWADDR, IFREQ.pack(name.encode(errors="surrogateescape"), 0))
        except OSError as error:
            raise KernelError(error.errno or 0, f"ask for the hardware type of {name}") from error
    return FRAMINGS.get(IFREQ.unpack(answer)[1], "other")


def index_of(name: str) -> int:
    """The ifindex of a device. Raises KernelError (ENODEV)."""
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise KernelError(errno.ENODEV, f"find the device {name}, which a program names") from error
