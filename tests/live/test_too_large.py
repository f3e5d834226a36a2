"""Objects of a workload that are larger than all that the kernel has for a message: they stop nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, batch, ip
from tests.live.test_confirm import guardians

Spec = dict[str, Any]

HOPS = 1500
"""Each takes 28 bytes in a message of at most 32 KiB (net/netlink/af_netlink.c, netlink_dump)."""


def spec(mtu: int = 1500) -> Spec:
    web = {"name": "eth0", "namespace": "web", "addresses": ["10.7.0.2/24", "fd07::2/64"]}
    devices = {
        "v0": {"kind": "veth", "mtu": mtu, "addresses": ["10.7.0.1/24"], "peer": web},
        "v1": {"kind": "veth", "mtu": mtu, "peer": {"name": "v1p"}},
    }
    return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": devices}


def remove() -> None:
    """`ip` cannot list it either."""
    batch(["route del fd09::/64 dev eth0"] * HOPS, "web")


@pytest.fixture(params=["", "proto 78"], ids=["of others", "as if ours"])
def large(request: pytest.FixtureRequest, node: Node) -> str:
    """A node with a route that no dump has room for."""
    node.apply(spec())
    batch([f"route append fd09::/64 via fd07::{n:x} dev eth0 {request.param}" for n in range(16, 16 + HOPS)], "web")
    return str(request.param)


def mtu_of(name: str) -> str:
    return ip("link", "show", name).partition("mtu ")[2].partition(" ")[0]


def test_the_rest_is_applied(node: Node, large: str) -> None:
    node.write(spec(1400))
    outcome = node.run("plan", str(node.path))
    if large:
        assert outcome.code == 1
        assert "NK0419" in outcome.err
        assert "too large" in outcome.err
    outcome = node.run("apply", "-y", str(node.path), "--keep-going")
    assert mtu_of("v1") == "1400"
    assert (outcome.code, mtu_of("v0")) == ((1, "1500") if large else (0, "1400"))
    for command in "show", "status":
        assert node.run(command).code == 0
    remove()
    node.apply(spec(1400))


def test_the_rest_goes_back(node: Node, large: str) -> None:
    del large
    remove()
    node.write(spec(1400))
    outcome = node.run("apply", "-y", str(node.path), "--confirm", "2s", "--detach")
    assert outcome.code == 0, outcome.err
    batch([f"route append fd09::/64 via fd07::{n:x} dev eth0 proto 78" for n in range(16, 16 + HOPS)], "web")
    until(lambda: mtu_of("v1") == "1500")
    remove()
    until(lambda: mtu_of("v0") == "1500")
    until(lambda: not guardians())


def test_it_goes_with_its_node(node: Node, large: str) -> None:
    del large
    node.destroy()
    assert "v0" not in ip("link")
    assert "web" not in ip("netns")
