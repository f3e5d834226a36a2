"""Attacks on a run: a failure or a SIGKILL at any action, while a workload that is shut in tries to get out."""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from nkform.apply.executor import Executor
from nkform.kernel.netns import Namespaces
from nkform.plan.actions import Action
from tests.live.helpers.flood import SETTLED, arrived, counting
from tests.live.helpers.support import Node, ip
from tests.sizes import LAB

PORT = 9000
"""UDP: what no chain of the workload lets through."""

HOST, WORKLOAD = "10.99.0.1", "10.99.0.2"
PRISON = "prison"
"""A namespace that exists without nkform, so that what runs in it outlives every change."""


PAUSE = 0.02 if LAB else 0.002
"""Seconds between two bursts; in the lab a run has to share one processor with them."""


def _datagram() -> bytes:
    """The whole packet that a socket of the workload would send (RFC 791, RFC 768; no UDP checksum)."""
    addresses = socket.inet_aton(WORKLOAD) + socket.inet_aton(HOST)
    length = 28 + len(MESSAGE)
    head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, 64, socket.IPPROTO_UDP, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    head = head[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    return head + struct.pack("!HHHH", PORT, PORT, 8 + len(MESSAGE), 0) + MESSAGE


MESSAGE = b"let me out"
ETH_P_IP, BROADCAST = 0x0800, b"\xff" * 6
DATAGRAM = _datagram()


class EgressProbe:
    """A process in the workload's namespace that sends to a forbidden port as fast as it can, whatever comes back."""

    def __init__(self) -> None:
        ip("netns", "add", PRISON)
        ip("link", "set", "lo", "up", namespace=PRISON)
        self._caught = counting(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._caught.bind(("", PORT))
        self._shared = mmap.mmap(-1, mmap.PAGESIZE)
        self._sender = 0

    def __enter__(self) -> EgressProbe:
        with Namespaces() as namespaces, namespaces.open(PRISON) as fd, namespaces.entered(fd, PRISON):
            out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
        if (sender := os.fork()) == 0:
            with contextlib.suppress(BaseException):
                _send(out, raw, self._shared)
            os._exit(0)
        self._sender = sender
        out.close()
        raw.close()
        return self

    def __exit__(self, *_: object) -> None:
        self._shared[0] = 1
        os.waitpid(self._sender, 0)
        time.sleep(SETTLED if self.sent else 0)

    @property
    def sent(self) -> int:
        """Packets that left the workload's socket."""
        return int(struct.unpack_from("=Q", self._shared, 8)[0])

    @property
    def through(self) -> int:
        """Packets that reached the node."""
        return arrived(self._caught)

    def close(self) -> None:
        self._shared.close()
        self._caught.close()


def _send(out: socket.socket, raw: socket.socket, shared: mmap.mmap) -> None:
    """Sends in bursts, so that a run which shares the processor gets on too.

    Every second packet goes past the neighbour table, to whoever listens at the other end: a workload that is shut in
    gets no answer to the question where its gateway is.
    """
    sent = 0
    while not shared[0]:
        for _ in range(10):
            with contextlib.suppress(OSError):
                out.sendto(MESSAGE, (HOST, PORT))
                sent += 1
            with contextlib.suppress(OSError):
                raw.sendto(DATAGRAM, ("eth0", ETH_P_IP, 0, 0, BROADCAST))
                sent += 1
        struct.pack_into("=Q", shared, 8, sent)
        time.sleep(PAUSE)


def cell(kind: str, **changes: Any) -> dict[str, Any]:
    """A device whose workload is shut in. What is given changes it; it stays shut in."""
    peer = {
        "name": "eth0",
        "namespace": PRISON,
        "addresses": [f"{WORKLOAD}/32"],
        "routes": [{"to": "default", "via": HOST, "onlink": True}],
        "policy": "blackhole",
        **changes.pop("peer", {}),
    }
    own = {"kind": kind, "addresses": [f"{HOST}/32"], "routes": [{"to": f"{WORKLOAD}/32"}], "peer": peer}
    if kind == "netkit":
        own["mode"] = "l3"
    return {**own, **changes}


@contextlib.contextmanager
def stopped_after(count: int, total: int | None, stop: Callable[[], None]) -> Iterator[None]:
    """The next run of this process stops after so many of its actions, in the way that `stop` does; its guardian, which
    is a process of its own, does not."""
    genuine = Executor.run
    armed, runs = True, os.getpid()

    def run(self: Executor, actions: Sequence[Action]) -> None:
        nonlocal armed
        if not armed or os.getpid() != runs:
            genuine(self, actions)
            return
        armed = False
        assert total is None or len(actions) == total
        genuine(self, actions[:count])
        stop()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Executor, "run", run)
        yield


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Callable[[], None]) -> int:
    """Does something in a process of its own, and returns the signal that ended it, 0 if it ended by itself."""
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_after(node: Node, count: int, total: int | None = None, *words: str) -> None:
    """Applies the node's spec, or runs another command, in a process that is killed after so many actions, or after the
    last one."""

    def work() -> None:
        with stopped_after(count, total, die):
            node.run(*(words or ("apply", "-y", str(node.path))))

    assert in_child(work) == -signal.SIGKILL, "the run was not killed"
