"""Which boot of which machine, and which of its network namespaces, this process works in."""

from __future__ import annotations

import socket
import struct
from functools import cache
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_COOKIE = struct.Struct("=Q")
SO_NETNS_COOKIE = 71
"""include/uapi/asm-generic/socket.h, since Linux 5.14: a number that no other namespace of this boot ever gets."""


def place() -> str:
    """The same text in one network namespace of one boot, and nowhere else. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        return f"{boot()}:{cookie_of(probe)}"


@cache
def boot() -> str:
    """The number that this boot of the kernel gave itself (random(4), boot_id). Raises OSError."""
    return BOOT_ID.read_text().strip()


def cookie_of(probe: socket.socket) -> int:
    """The number of the network namespace that a socket is of. Raises OSError."""
    (cookie,) = _COOKIE.unpack(probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8))
    return int(cookie)
