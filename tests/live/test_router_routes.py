"""A link of ours that becomes a router does not cost the machine the default route that a router advertised."""

from __future__ import annotations

import signal
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.live.helpers.attack import in_child
from tests.live.helpers.chain_sites import inside
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds
from tests.live.test_confirm import Apply
from tests.live.test_confirm import guardians as alive
from tests.live.test_pairs import veth

ROUTER = "router"
LIFETIME = 1800
"""Seconds."""
SYSCTL = "/proc/sys/net/ipv6/conf"

pytestmark = pytest.mark.usefixtures("made_once")


def advertise(device: str) -> None:
    """A router's advertisement to all nodes of a link: it is a default router (RFC 4861, 4.2)."""
    with inside(ROUTER), socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
        index = socket.if_nametoindex(device)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, LIFETIME, 0, 0), ("ff02::1", 0, 0, index))


def advertised(namespace: str = "") -> list[str]:
    """The default routes that routers advertised, without their lifetimes."""
    lines = ip("-6", "route", "show", "default", namespace=namespace).splitlines()
    assert all("expires" in line for line in lines)
    return [line.partition(" expires")[0] for line in lines if "proto ra" in line]


def heard(far: str, namespace: str = "") -> bool:
    """Has the router advertise itself, once it has an address of its own, and looks whether that has come through."""
    if "fe80" in ip("-6", "addr", "show", "dev", far, "-tentative", namespace=ROUTER):
        advertise(far)
    return bool(advertised(namespace))


def value(device: str, key: str, namespace: str = "") -> str:
    if namespace:
        with inside(namespace):
            return value(device, key)
    return Path(SYSCTL, device, key).read_text().strip()


def uplink(accept: str = "1", namespace: str = "") -> list[str]:
    """A device of others, named ext, whose router advertised a default route."""
    if not Path("/run/netns", ROUTER).exists():
        ip("netns", "add", ROUTER)
    far = f"r{namespace}"
    ip("link", "add", "ext", "type", "veth", "peer", "name", far, "netns", ROUTER, namespace=namespace)
    with inside(ROUTER):
        Path(SYSCTL, far, "accept_dad").write_text("0")
        Path(SYSCTL, far, "forwarding").write_text("1")
    ip("link", "set", far, "up", namespace=ROUTER)

    def listen() -> None:
        Path(SYSCTL, "ext", "accept_ra").write_text("1")
        Path(SYSCTL, "ext", "accept_dad").write_text("0")

    if namespace:
        with inside(namespace):
            listen()
    else:
        listen()
    ip("link", "set", "ext", "up", namespace=namespace)

    until(lambda: heard(far, namespace))
    if namespace:
        with inside(namespace):
            Path(SYSCTL, "ext", "accept_ra").write_text(accept)
    else:
        Path(SYSCTL, "ext", "accept_ra").write_text(accept)
    return advertised(namespace)


def spec(forwarding: int = 1, kind: str = "veth") -> dict[str, Any]:
    made = veth(kind)
    for device in made["devices"].values():
        device["sysctl"] = {"ipv6": {"forwarding": forwarding}}
        device["peer"]["sysctl"] = {"ipv6": {"forwarding": forwarding}}
    return made


@pytest.mark.parametrize("accept", ["0", "1", "2"])
@pytest.mark.parametrize("kind", kinds())
def test_a_device_that_forwards_takes_no_default_route_of_others(node: Node, kind: str, accept: str) -> None:
    """Nor does the way back to it; and whether others listen to routers is as they chose."""
    routes = uplink(accept)
    node.apply(spec(0, kind))
    node.apply(spec(1, kind))
    assert (advertised(), value("ext", "accept_ra")) == (routes, accept)
    for _ in range(2):
        assert node.run("rollback", "-y").code == 0
        assert advertised() == routes
    node.destroy()
    node.apply(spec(1, kind))
    assert (advertised(), value("ext", "accept_ra")) == (routes, accept)


def test_an_end_that_forwards_in_a_workload_takes_no_default_route_of_it(node: Node) -> None:
    node.apply(veth())
    routes = uplink(namespace="a")
    node.apply(spec())
    assert (advertised("a"), value("ext", "accept_ra", "a")) == (routes, "1")
    assert node.run("rollback", "-y").code == 0
    assert node.run("rollback", "-y").code == 0
    assert (advertised("a"), value("ext", "accept_ra", "a")) == (routes, "1")


def test_a_trial_of_forwarding_takes_no_default_route_of_others(node: Node) -> None:
    node.apply(spec(0))
    routes = uplink()
    run = Apply(node, spec(), 2)
    run.hears("confirm")
    assert advertised() == routes
    run.ended()
    until(lambda: not alive())
    assert (value("to-a", "forwarding"), advertised(), value("ext", "accept_ra")) == ("0", routes, "1")


@pytest.mark.parametrize("call", ["set sysctl ipv6.forwarding of to-a to 1", "set sysctl ipv6.accept_ra of ext to 1"])
def test_what_was_lent_for_a_moment_is_as_before_whatever_fails(node: Node, call: str) -> None:
    node.apply(spec(0))
    routes = uplink()
    node.write(spec())
    with injected(call) as injection:
        assert "NK0505" in node.run("apply", "-y", str(node.path)).err
    assert injection.hit, injection.made
    assert (value("to-a", "forwarding"), advertised(), value("ext", "accept_ra")) == ("0", routes, "1")


def test_what_was_lent_by_a_run_that_was_killed_is_put_back(node: Node) -> None:
    node.apply(spec(0))
    routes = uplink()
    node.write(spec())

    def work() -> None:
        with injected("set sysctl ipv6.accept_ra of ext to 1", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    assert (value("to-a", "forwarding"), advertised(), value("ext", "accept_ra")) == ("1", routes, "2")
    assert node.run("recover", "-y").code == 0
    assert (value("to-a", "forwarding"), advertised(), value("ext", "accept_ra")) == ("0", routes, "1")


def test_a_device_of_ours_that_becomes_a_router_loses_what_routers_told_it(node: Node) -> None:
    """As the kernel has it: a router asks no router, unless accept_ra is 2."""
    made = spec(0)
    made["devices"] = {"ext": {"kind": "veth", "peer": {"name": "r", "namespace": ROUTER}}}
    made["namespaces"] = {ROUTER: {"create": True}}
    node.apply(made)
    with inside(ROUTER):
        Path(SYSCTL, "r", "forwarding").write_text("1")
    Path(SYSCTL, "ext", "accept_ra").write_text("1")
    until(lambda: heard("r"))
    made["devices"]["ext"]["sysctl"] = {"ipv6": {"forwarding": 1}}
    node.apply(made)
    assert advertised() == []
