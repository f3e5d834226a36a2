"""Floods of packets along a site's pair, each of which is accounted for.

One stream goes to the port that chains let through, one to the port that they drop.

Senders are processes of their own. What arrives is counted by the kernel: the receiving sockets have a filter that
drops everything, and a socket knows how many packets it dropped, however many they were.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import struct
import time
from dataclasses import dataclass

from tests.live.helpers.chain_sites import OPEN, SHUT, Site, acquaint, udp

SO_ATTACH_FILTER = 26
SO_MEMINFO = 55
SK_MEMINFO_DROPS = 8
"""include/uapi/asm-generic/socket.h, include/uapi/linux/sock_diag.h"""

RETURN = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""struct sock_filter (include/uapi/linux/filter.h): BPF_RET, no byte of the packet is kept."""

_PAGE = mmap.PAGESIZE
_COUNT = struct.Struct("=Q")
BATCH = 64
SETTLED = 0.5
"""Seconds without a packet after which none is on its way any more."""


@dataclass(frozen=True)
class Tally:
    """Packets that were sent and that arrived: of those that may pass, and of those that may not."""

    sent: int
    arrived: int
    forbidden: int
    through: int


class Flood:
    """Runs while the block runs."""

    def __init__(self, site: Site) -> None:
        acquaint(site)
        self._into = {port: counting(udp(site.receiver, port)) for port in (OPEN, SHUT)}
        self._shared = mmap.mmap(-1, _PAGE)  # byte 0: stop; then each sender's count
        self._out = []
        for port in self._into:
            made = udp(site.sender)
            made.connect((site.receiver, port))
            self._out.append(made)
        self._senders: list[int] = []

    def __enter__(self) -> Flood:
        for number, out in enumerate(self._out, 1):
            if (sender := os.fork()) == 0:
                try:
                    _send(out, self._shared, number * _COUNT.size)
                finally:
                    os._exit(0)
            self._senders.append(sender)
        return self

    def __exit__(self, *_: object) -> None:
        self._shared[0] = 1
        for sender in self._senders:
            os.waitpid(sender, 0)
        self._senders = []

    def close(self) -> None:
        for each in (*self._out, *self._into.values()):
            each.close()
        self._shared.close()

    def tally(self) -> Tally:
        """How it stands. Exact once the block is left."""
        if not self._senders:
            before = -1
            while before != (before := self._arrived(OPEN)):
                time.sleep(SETTLED)
        sent, forbidden = (_COUNT.unpack_from(self._shared, number * _COUNT.size)[0] for number in (1, 2))
        return Tally(sent, self._arrived(OPEN), forbidden, self._arrived(SHUT))

    def _arrived(self, port: int) -> int:
        return arrived(self._into[port])


def arrived(counting: socket.socket) -> int:
    """How many packets arrived at such a socket."""
    numbers = counting.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36)
    return int(struct.unpack_from("=9I", numbers)[SK_MEMINFO_DROPS])


def counting(made: socket.socket) -> socket.socket:
    """The socket, which from now on counts what arrives and keeps nothing of it."""
    code = ctypes.create_string_buffer(RETURN, len(RETURN))
    made.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(code)))
    return made


def _send(out: socket.socket, shared: mmap.mmap, place: int) -> None:
    """Sends until it is told to stop, and says how many packets the kernel took."""
    os.nice(19)
    sent = 0
    while not shared[0]:
        for _ in range(BATCH):
            with contextlib.suppress(OSError):  # the kernel did not take it
                out.send(b"nkform")
                sent += 1
        _COUNT.pack_into(shared, place, sent)
