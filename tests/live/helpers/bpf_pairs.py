"""One pair of devices with a hook to try programs at, and packets that pass it. For the tests of bpf(2) and clsact."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from nkform.kernel import bpf
from nkform.kernel import bpf_links as links
from nkform.kernel.bpf_links import AttachType, Chain, Position
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.descriptors import Owned
from nkform.kernel.error import KernelError
from nkform.kernel.inet import add_address
from nkform.kernel.link_requests import change, create, delete
from nkform.kernel.netlink import Request, Socket, first_error
from nkform.kernel.netns import Namespaces
from nkform.model import Address, Device, Endpoint, Last
from tests.live.helpers.bpf_programs import NEXT, program
from tests.live.helpers.support import ip

PRIMARY, PEER = "10.9.0.1", "10.9.0.2"
MACS = {PRIMARY: "02:00:00:00:09:01", PEER: "02:00:00:00:09:02"}
FAR = "far"
PORT = 4000
LAST = Last()
PATIENCE = 5.0
"""Seconds until a packet that should arrive counts as lost; emulated kernels are slow."""


@dataclass(frozen=True)
class Hook:
    """A hook as tests see it: where programs attach, at which kind of pair, and which end's packets pass it."""

    attach_type: AttachType
    kind: str
    sender: str

    def __str__(self) -> str:
        return self.attach_type.words.replace(" ", "-")


HOOKS = (
    Hook(AttachType.NETKIT_PRIMARY, "netkit", PRIMARY),
    Hook(AttachType.NETKIT_PEER, "netkit", PEER),
    Hook(AttachType.TCX_INGRESS, "veth", PEER),
    Hook(AttachType.TCX_EGRESS, "veth", PRIMARY),
)


def ask(*requests: Request) -> None:
    with Socket() as rtnetlink:
        if (error := first_error(rtnetlink.ask(requests)[0])) is not None:
            raise error


class Pair:
    """A pair, `near` in the test's namespace and `eth0` in the namespace FAR, both up and with addresses."""

    def __init__(self, kind: str) -> None:
        self._namespaces = Namespaces()
        self._namespaces.create(FAR, lambda: None)
        ends = []
        for name, address, namespace in (("near", PRIMARY, ""), ("eth0", PEER, FAR)):
            attrs = {"up": True, "mtu": 1500} | ({"mac": MACS[address]} if kind == "veth" else {})
            ends.append(Endpoint(name, namespace, attrs, (Address(f"{address}/24"),)))
        device = Device("near", kind, {"mode": "l3"} if kind == "netkit" else {}, ends[0], ends[1])
        with self._namespaces.open(FAR) as fd:
            ask(create(device, fd))
        for end, other in zip(ends, (PEER, PRIMARY), strict=True):
            with self.inside(end.namespace):
                index = socket.if_nametoindex(end.name)
                ask(change(end.name, {"up": True}), add_address(index, end.name, end.addresses[0]))
            if kind == "veth":
                ip("neigh", "add", other, "lladdr", MACS[other], "dev", end.name, namespace=end.namespace)
        self.index = socket.if_nametoindex("near")

    def close(self) -> None:
        with contextlib.suppress(KernelError):
            self.delete()
        self._namespaces.close()

    @contextlib.contextmanager
    def inside(self, namespace: str) -> Iterator[None]:
        if not namespace:
            yield
            return
        with self._namespaces.open(namespace) as fd, self._namespaces.entered(fd, namespace):
            yield

    def peer_index(self) -> int:
        with self.inside(FAR):
            return socket.if_nametoindex("eth0")

    def delete(self) -> None:
        ask(delete(self.index, "near"))

    def peer_address(self, sender: str) -> str:
        return PEER if sender == PRIMARY else PRIMARY

    @contextlib.contextmanager
    def sockets(self, sender: str) -> Iterator[tuple[socket.socket, socket.socket]]:
        """A sending and a receiving socket at opposite ends, once packets get through (the kernel takes its time to
        say that a new device has a carrier)."""
        with contextlib.ExitStack() as stack:
            made = []
            for address in (sender, self.peer_address(sender)):
                with self.inside(FAR if address == PEER else ""):
                    udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    udp.bind((address, PORT))
                    made.append(udp)
            out, back = made
            out.connect((self.peer_address(sender), PORT))
            deadline = time.monotonic() + PATIENCE
            while not passes(out, back, 0.05):
                assert time.monotonic() < deadline, "no packet gets through, even without programs"
            while passes(None, back, 0.05):
                pass
            yield out, back


def passes(out: socket.socket | None, back: socket.socket, wait: float = 1.0) -> bool:
    """Whether a packet that is sent arrives, within some seconds."""
    if out is not None:
        out.send(b"nkform")
    back.settimeout(wait)
    try:
        back.recv(64)
    except TimeoutError:
        return False
    return True


@contextlib.contextmanager
def traffic(out: socket.socket) -> Iterator[list[int]]:
    """Sends packets as fast as Python can while the block runs; the list holds how many it were."""
    sent = [0]
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            out.send(b"nkform")
            sent[0] += 1

    sender = threading.Thread(target=send)
    sender.start()
    try:
        yield sent
    finally:
        stop.set()
        sender.join()


class Site:
    """A pair and one of its hooks, with what a test attaches there; all of it goes with the test."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.pair = Pair(hook.kind)
        self.index = self.pair.index
        self._fds = contextlib.ExitStack()

    def close(self) -> None:
        self.pair.close()  # first: closing a link costs a grace period, deleting a device one for all its links
        self._fds.close()

    def keep(self, fd: int) -> int:
        return self._fds.enter_context(Owned(fd))

    def program(self, name: str = "", verdict: int = NEXT) -> int:
        return self.keep(program(verdict, name))

    def attach(self, prog_fd: int, position: Position = LAST, revision: int = 0) -> int:
        return self.keep(links.link_create(prog_fd, self.index, self.hook.attach_type, position, revision))

    def attach_new(self, name: str = "", position: Position = LAST, verdict: int = NEXT) -> int:
        """Attaches a program of its own; returns the link's file descriptor."""
        return self.attach(self.program(name, verdict), position)

    def chain(self) -> Chain:
        return links.query(self.index, self.hook.attach_type)

    def names(self) -> str:
        """The names of the chain's programs, in order."""
        found = []
        for entry in self.chain().entries:
            with Owned(bpf.prog_fd(entry.prog_id)) as fd:
                found.append(prog_info(fd).name)
        return " ".join(found)

    def link_index(self) -> int:
        """The ifindex that links of this hook report: a netkit peer's are the peer's."""
        return self.pair.peer_index() if self.hook.attach_type == AttachType.NETKIT_PEER else self.index


def churn(out: socket.socket, step: Callable[[int], None], times: int) -> None:
    """Does something again and again, at least some times and until as many packets went by."""
    deadline = time.monotonic() + 10 * PATIENCE
    with traffic(out) as sent:
        turn = 0
        while turn < times or sent[0] < 10 * times:
            step(turn)
            turn += 1
            assert time.monotonic() < deadline, f"{turn} turns, {sent[0]} packets"


def needs_hook(attach_type: AttachType) -> None:
    if not links.supported(attach_type):
        pytest.skip(f"needs {attach_type.feature}")
