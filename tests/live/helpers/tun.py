"""A tun device: packets without an Ethernet header, from and to a file descriptor. tuntap.txt, linux/if_tun.h."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
from collections.abc import Iterator

from nkform.bpf.packets import build
from tests.live.helpers.support import ip

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
ETHERNET_BYTES = 14


class Tun:
    """Its end that is a file. Close it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(self._fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))

    def close(self) -> None:
        os.close(self._fd)

    def send(self, source: str, destination: str, port: int, payload: str) -> None:
        """A packet comes in by the device."""
        notation = {"ip": {"src": source, "dst": destination}, "udp": {"dport": port}, "payload": payload}
        built = build(notation, "l3")
        assert not built.problems
        os.write(self._fd, built.data[ETHERNET_BYTES:])

    def receive(self, text: bytes, seconds: float) -> bool:
        """Whether a packet with these bytes goes out by the device."""
        while select.select([self._fd], [], [], seconds)[0]:
            if text in os.read(self._fd, 4096):
                return True
        return False


@contextlib.contextmanager
def tun(name: str, *addresses: str) -> Iterator[Tun]:
    made = Tun(name)
    try:
        for address in addresses:
            ip("addr", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
        ip("link", "set", name, "up")
        yield made
    finally:
        made.close()
