"""UDP packets at a known rate from one socket to another, and what became of them.

Sender and receiver are processes of their own, so that whatever goes on in this one does not delay them; the sockets
are the caller's, made wherever he wants them.

The kernel finds the way of a packet first and sends it afterwards. A sender that it stops in between, for longer than a
grace period, sends by a way that may be gone by then: the packet is thrown away in silence, whatever the route was
replaced with (net/core/dst.c, dst_dev_put). Whoever changes routes cannot prevent it. So packets in whose sending the
sender was stopped are told apart.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from nkform.kernel.netlink import SO_RCVBUFFORCE

PACKET = struct.Struct("=Qd")
"""number, and when it was sent (seconds of the monotonic clock)"""
ROOM = 8 << 20
"""Bytes that wait at the receiver: it never drops what arrived."""
LINGER = 0.5
"""Seconds that the last packets have to arrive in."""
STOPPED = 0.001
"""Seconds: if a packet took longer to send, the sender was stopped while it was sent; an expedited grace period is
not much longer."""


@dataclass(frozen=True)
class Fate:
    """Packets sent, packets that arrived, and the longest time (ms) between two that arrived, with lost ones between.

    The times are those of sending: a receiver that is not scheduled for a while makes no gap.
    """

    sent: int
    arrived: int
    gap: float
    stopped: int
    """Of the lost packets, those in whose sending the sender was stopped."""

    @property
    def lost(self) -> int:
        return self.sent - self.arrived


class Stream:
    """Packets from a connected socket to a bound one, one every `interval` seconds; starts at once."""

    def __init__(self, out: socket.socket, into: socket.socket, interval: float) -> None:
        into.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        self._receiver = _Process(lambda until: _receive(into, until))
        self._sender = _Process(lambda until: _send(out, interval, until))

    def stop(self) -> Fate:
        """Ends it when what is on its way had time to arrive."""
        sent, stopped = pickle.loads(self._sender.stop())
        time.sleep(LINGER)
        arrived, gap = pickle.loads(self._receiver.stop())
        return Fate(sent, len(arrived), gap * 1000, len(stopped - arrived))


class _Process:
    """A child that works until it is told to stop, and then answers."""

    def __init__(self, work: Callable[[Callable[[], bool]], object]) -> None:
        self._answer, answer = os.pipe()
        self._pid = os.fork()
        if not self._pid:
            stopped = False

            def stop(*_: object) -> None:
                nonlocal stopped
                stopped = True

            try:
                signal.signal(signal.SIGTERM, stop)
                with os.fdopen(answer, "wb") as pipe:
                    pickle.dump(work(lambda: stopped), pipe)
            finally:
                os._exit(0)
        os.close(answer)

    def stop(self) -> bytes:
        os.kill(self._pid, signal.SIGTERM)
        with os.fdopen(self._answer, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(self._pid, 0)
        return answer


def _send(out: socket.socket, interval: float, stopped: Callable[[], bool]) -> tuple[int, set[int]]:
    """How many it sent, and the numbers of those that took long."""
    number, long = 0, set()
    due = time.monotonic()
    while not stopped():
        start = time.monotonic()
        with contextlib.suppress(OSError):  # no route, no device: the packet is lost
            out.send(PACKET.pack(number, start))
            if time.monotonic() - start > STOPPED:
                long.add(number)
        number += 1
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    return number, long


def _receive(into: socket.socket, stopped: Callable[[], bool]) -> tuple[set[int], float]:
    """The numbers of those that arrived, and the longest gap in seconds."""
    arrived: set[int] = set()
    expected, last, gap = 0, 0.0, 0.0
    into.settimeout(0.1)
    while True:
        try:
            number, sent = PACKET.unpack(into.recv(64))
        except TimeoutError:
            if stopped():
                return arrived, gap
            continue
        if number > expected and arrived:
            gap = max(gap, sent - last)
        arrived.add(number)
        expected, last = number + 1, sent
