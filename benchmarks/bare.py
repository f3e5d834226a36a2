"""What the kernel alone takes to make, read and delete the state of the benchmark: its requests from one loop, and
nothing else.

`python -m benchmarks.bare SIZE` does it in namespaces of its own and prints the seconds of each phase as JSON. It is
no tool: it checks no state, keeps no journal and undoes nothing. What it takes is the floor under every tool that sends
the same requests; the kernel itself is worse than linear in some of them. Requests are those of nkform, in its order,
many to a datagram, encoded here once more so that nothing of nkform is in the figures.

Layouts and numbers: netlink(7), rtnetlink(7), include/uapi/linux/{if_link,if_addr,rtnetlink}.h.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import sandbox
from benchmarks.measure import Measurement
from benchmarks.measure import call as call_program
from benchmarks.scenario import ALIAS, GATEWAY4, GATEWAY6, MTU, PEER, ROUTE_PROTOCOL, Pair, Scenario

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_GETADDR = 20, 22
RTM_NEWROUTE, RTM_GETROUTE = 24, 26
NLMSG_ERROR, NLMSG_DONE = 2, 3
REQUEST, ACK, EXCL, CREATE, DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
IFLA_IFNAME, IFLA_MTU, IFLA_LINKINFO, IFLA_IFALIAS = 3, 4, 18, 20
IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK = 27, 28, 29
IFLA_INFO_KIND, IFLA_INFO_DATA, PEER_INFO = 1, 2, 1
SKIP_STATS = 8
IFA_ADDRESS, IFA_LOCAL, IFA_FLAGS, IFA_PROTO, NODAD = 1, 2, 8, 11, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_TABLE = 1, 4, 5, 15
RT_TABLE_MAIN, RTN_UNICAST, ONLINK = 254, 1, 4
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK, SO_RCVBUFFORCE = 270, 10, 12, 33
CLONE_NEWNET, MS_BIND, MS_SHARED, MS_REC, MNT_DETACH = 0x40000000, 4096, 1 << 20, 16384, 2
UP = 1
GROUP = 1 << 24
AT_ONCE = 200
QUEUE_BYTES = 4 << 20

RUN = Path("/run/netns")
LINK = struct.Struct("=BxHiII")
ADDRESS = struct.Struct("=BBBBI")
ROUTE = struct.Struct("=BBBBBBBBI")
HEADER = struct.Struct("=IHHII")

Request = tuple[int, int, bytes]
"""Type, flags, body."""

_libc = ctypes.CDLL(None, use_errno=True)


def attribute(number: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def u32(number: int, value: int) -> bytes:
    return attribute(number, struct.pack("=I", value))


def name_of(name: str) -> bytes:
    return attribute(IFLA_IFNAME, name.encode() + b"\0")


def call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Socket:
    """A netlink socket of the namespace that the process is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, requests: Sequence[Request]) -> list[bytes]:
        """Sends requests, many at a time; returns the bodies of what was answered. Raises OSError."""
        answers: list[bytes] = []
        for start in range(0, len(requests), AT_ONCE):
            some = requests[start : start + AT_ONCE]
            self._socket.send(
                b"".join(
                    HEADER.pack(16 + len(body), kind, REQUEST | ACK | flags, 1, 0) + body for kind, flags, body in some
                )
            )
            waiting = len(some)
            while waiting:
                for kind, body in self._received():
                    if kind == NLMSG_ERROR:
                        waiting -= 1
                        call(self._code(body))
                    else:
                        answers.append(body)
        return answers

    def dump(self, kind: int, body: bytes) -> int:
        """How many objects there are."""
        self._socket.send(HEADER.pack(16 + len(body), kind, REQUEST | DUMP, 1, 0) + body)
        count = 0
        while True:
            for answer, text in self._received():
                if answer == NLMSG_DONE:
                    return count
                if answer == NLMSG_ERROR:
                    call(self._code(text))
                count += 1

    def _received(self) -> Iterator[tuple[int, bytes]]:
        received, place = self._socket.recv(1 << 16), 0
        while place + 16 <= len(received):
            length, kind, _, _, _ = HEADER.unpack_from(received, place)
            yield kind, received[place + 16 : place + length]
            place += (length + 3) & ~3

    @staticmethod
    def _code(body: bytes) -> int:
        code = int(struct.unpack_from("=i", body)[0])
        ctypes.set_errno(-code)
        return code


def change(index: int, flags: int, mask: int, more: bytes) -> Request:
    return RTM_NEWLINK, 0, LINK.pack(0, 0, index, flags, mask) + more


def create(pair: Pair, kind: str, namespace: int) -> Request:
    mtu = u32(IFLA_MTU, MTU)
    peer = LINK.pack(0, 0, 0, 0, 0) + name_of(PEER) + mtu + u32(IFLA_NET_NS_FD, namespace)
    data = attribute(IFLA_INFO_DATA | 0x8000, attribute(PEER_INFO | 0x8000, peer))
    info = attribute(IFLA_LINKINFO | 0x8000, attribute(IFLA_INFO_KIND, kind.encode() + b"\0") + data)
    return RTM_NEWLINK, CREATE | EXCL, LINK.pack(0, 0, 0, 0, 0) + name_of(pair.name) + mtu + info


def address(index: int, text: str) -> Request:
    plain, _, length = text.partition("/")
    family = socket.AF_INET6 if ":" in plain else socket.AF_INET
    packed = socket.inet_pton(family, plain)
    body = ADDRESS.pack(family, int(length), 0, 0, index) + attribute(IFA_LOCAL, packed)
    body += attribute(IFA_ADDRESS, packed) + attribute(IFA_PROTO, bytes([ROUTE_PROTOCOL])) + u32(IFA_FLAGS, NODAD)
    return RTM_NEWADDR, CREATE | EXCL, body


def route(index: int, gateway: str, flags: int) -> Request:
    family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    body = ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, 0, RTN_UNICAST, flags)
    return RTM_NEWROUTE, CREATE | EXCL, body + u32(RTA_OIF, index) + attribute(
        RTA_GATEWAY, socket.inet_pton(family, gateway)
    )  # fmt: skip


class Bare:
    """One scenario, made, read and deleted."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._pairs = list(scenario.pairs)
        self._home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def namespaces(self) -> None:
        RUN.mkdir(exist_ok=True)
        call(_libc.mount(bytes(RUN), bytes(RUN), b"none", MS_BIND | MS_REC, None))
        call(_libc.mount(b"", bytes(RUN), b"none", MS_SHARED | MS_REC, None))
        for pair in self._pairs:
            target = str(RUN / pair.namespace).encode()
            os.close(os.open(target, os.O_RDONLY | os.O_CREAT | os.O_EXCL, 0o444))
            call(_libc.unshare(CLONE_NEWNET))
            with Socket() as inside:
                inside.ask([change(1, UP, UP, attribute(IFLA_IFALIAS, ALIAS.encode()))])
            call(_libc.mount(b"/proc/thread-self/ns/net", target, b"none", MS_BIND, None))
            self._return()

    def pairs(self) -> None:
        with Socket() as outside:
            for start in range(0, len(self._pairs), AT_ONCE):
                some = self._pairs[start : start + AT_ONCE]
                opened = [os.open(RUN / pair.namespace, os.O_RDONLY) for pair in some]
                outside.ask([create(p, self._scenario.kind, fd) for p, fd in zip(some, opened, strict=True)])
                for fd in opened:
                    os.close(fd)
                outside.ask([change(0, 0, 0, name_of(p.name) + attribute(IFLA_IFALIAS, ALIAS.encode())) for p in some])

    def inside(self) -> None:
        for pair in self._pairs:
            self._enter(pair)
            with Socket() as inside:
                answers = inside.ask([(RTM_GETLINK, 0, LINK.pack(0, 0, 0, 0, 0) + name_of(PEER))])
                index = int(LINK.unpack_from(answers[0])[2])
                inside.ask(
                    [
                        address(index, pair.address4),
                        address(index, pair.address6),
                        change(index, UP, UP, b""),
                        route(index, GATEWAY4, ONLINK),
                        route(index, GATEWAY6, 0),
                    ]
                )
        self._return()

    def up(self) -> None:
        with Socket() as outside:
            outside.ask([change(0, UP, UP, name_of(pair.name)) for pair in self._pairs])

    def read(self) -> None:
        self._dumps()
        for pair in self._pairs:
            self._enter(pair)
            self._dumps()
        self._return()

    def delete_pairs(self) -> None:
        with Socket() as outside:
            outside.ask([change(0, 0, 0, name_of(pair.name) + u32(IFLA_GROUP, GROUP)) for pair in self._pairs])
            outside.ask([(RTM_DELLINK, 0, LINK.pack(0, 0, 0, 0, 0) + u32(IFLA_GROUP, GROUP))])

    def delete_namespaces(self) -> None:
        for pair in self._pairs:
            target = RUN / pair.namespace
            call(_libc.umount2(bytes(target), MNT_DETACH))
            target.unlink()

    def _dumps(self) -> None:
        with Socket() as here:
            here.dump(RTM_GETLINK, LINK.pack(0, 0, 0, 0, 0) + u32(IFLA_EXT_MASK, SKIP_STATS))
            here.dump(RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0))
            here.dump(RTM_GETROUTE, ROUTE.pack(0, 0, 0, 0, 0, ROUTE_PROTOCOL, 0, 0, 0))

    def _enter(self, pair: Pair) -> None:
        fd = os.open(RUN / pair.namespace, os.O_RDONLY)
        call(_libc.setns(fd, CLONE_NEWNET))
        os.close(fd)

    def _return(self) -> None:
        call(_libc.setns(self._home, CLONE_NEWNET))


def inside(size: int, kind: str, outer: str) -> None:
    """Does it all, in the sandbox that `main` started. Prints wall and CPU seconds by phase."""
    sandbox.enter(outer)
    bare = Bare(Scenario(size, kind))
    phases: list[Callable[[], None]] = [bare.namespaces, bare.pairs, bare.inside, bare.up, bare.read]
    phases += [bare.delete_pairs, bare.delete_namespaces]
    figures: dict[str, dict[str, float] | float] = {}
    for phase in phases:
        start, used = time.monotonic(), _cpu()
        phase()
        figures[phase.__name__] = {"wall": round(time.monotonic() - start, 3), "cpu": round(_cpu() - used, 3)}
    figures["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # KiB; MB
    json.dump(figures, sys.stdout)
    print()


MADE, UNMADE = "made and read by bare requests", "read and deleted by bare requests"
"""Phases of `floor`: the kernel's part of an apply, and of a destroy."""
_PARTS = {
    MADE: ("namespaces", "pairs", "inside", "up", "read"),
    UNMADE: ("read", "delete_pairs", "delete_namespaces"),
}


def floor(size: int, kind: str) -> Iterator[Measurement]:
    """What the kernel alone takes for so many pairs, in namespaces of their own."""
    said = call_program(sys.executable, "-I", __file__, str(size), kind)
    figures = json.loads(said.splitlines()[-1])
    for phase, parts in _PARTS.items():
        wall, cpu = (sum(figures[part][unit] for part in parts) for unit in ("wall", "cpu"))
        yield Measurement(phase, wall, cpu, figures["peak"])


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "--inside":
        inside(int(arguments[1]), arguments[2], arguments[3])
        return 0
    kind = arguments[1] if len(arguments) > 1 else "veth"
    sandbox.settle()
    inner = [sys.executable, __file__, "--inside", arguments[0], kind, sandbox.outside()]
    return subprocess.run(sandbox.command(inner), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
