"""Gateways of IPv6, also of IPv4 routes: where the kernel would refuse them, `plan` says so."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.support import Node, ip, kinds, sh

pytestmark = pytest.mark.usefixtures("made_once")

Spec = dict[str, Any]

ROUTE = {"to": "10.7.0.0/24", "via": "fe80::2", "onlink": True}


def pair(kind: str = "veth", **own: Any) -> Spec:
    peer = {"name": "eth0", "namespace": "web"}
    devices = {"v0": {"kind": kind, "routes": [dict(ROUTE)], **own, "peer": peer}}
    return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": devices}


@pytest.mark.parametrize("kind", kinds())
def test_an_ipv4_route_needs_the_ipv6_of_its_gateway_that_the_spec_switches_off(node: Node, kind: str) -> None:
    error = node.refused(pair(kind, sysctl={"ipv6": {"disable_ipv6": 1}}))
    assert "NK0454" in error
    assert "10.7.0.0/24 via fe80::2" in error
    node.apply(pair(kind))
    assert "10.7.0.0/24 via inet6 fe80::2 dev v0" in ip("route")


@pytest.mark.parametrize("switch", ["v0", "default"])
def test_an_ipv4_route_needs_the_ipv6_of_its_gateway_that_somebody_switched_off(node: Node, switch: str) -> None:
    if switch == "v0":
        node.apply(pair(routes=[]))
    sh("sysctl", "-qw", f"net.ipv6.conf.{switch}.disable_ipv6=1")
    error = node.refused(pair())
    assert error.count("NK0454") == 1
    assert "10.7.0.0/24 via fe80::2" in error
    node.apply(pair(sysctl={"ipv6": {"disable_ipv6": 0}}))


@pytest.mark.parametrize("route", [ROUTE, {"to": "fd09::/64"}], ids=["gateway", "destination"])
def test_a_route_of_ipv6_needs_an_mtu_for_it(node: Node, route: dict[str, Any]) -> None:
    error = node.refused(pair(routes=[route], mtu=1000))
    assert "NK0312" in error
    assert "take the IPv6 routes out" in error
    node.apply(pair(routes=[route], mtu=1000, up=False))
    node.apply(pair(routes=[route], mtu=1280))


def test_an_ipv4_route_needs_an_mtu_for_its_ipv6_gateway_of_a_device_that_somebody_made_too_small(node: Node) -> None:
    node.apply(pair(routes=[]))
    ip("link", "set", "v0", "mtu", "1000")
    error = node.refused(pair())
    assert "NK0458" in error
    assert "10.7.0.0/24 via fe80::2" in error
    node.apply(pair(mtu=1280))


def test_an_ipv4_route_through_an_ipv6_gateway_outlives_the_ipv6_of_its_device(node: Node) -> None:
    """The kernel keeps it, and what is there needs nothing."""
    made = pair()
    node.apply(made)
    for line in ("sysctl -qw net.ipv6.conf.v0.disable_ipv6=1", "ip link set v0 mtu 1000"):
        sh(*line.split())
        assert "10.7.0.0/24 via inet6 fe80::2" in ip("route")
        assert node.changes(made) == []


HIDDEN: dict[str, list[dict[str, Any]]] = {
    "longer": [{"to": "fd05::/64", "via": "fd00::9"}, {"to": "fd05::/48"}, {"to": "fd09::/64", "via": "fd05::1"}],
    "metric": [
        {"to": "::/0"},
        {"to": "::/0", "via": "fd00::9", "metric": 256},
        {"to": "fd09::/64", "via": "fd05::1"},
    ],
    "address": [{"to": "fd00::/96", "via": "fd00::9:0:9"}, {"to": "fd09::/64", "via": "fd00::7"}],
    "link-local": [{"to": "fd00::/96", "via": "fe80::9"}, {"to": "fd09::/64", "via": "fd00::7"}],
    "table": [
        {"to": "fd05::/64", "via": "fd00::9", "table": 100},
        {"to": "fd05::/48", "table": 100},
        {"to": "fd09::/64", "via": "fd05::1", "table": 100},
    ],
}
SEEN: dict[str, list[dict[str, Any]]] = {
    "shorter": [{"to": "fd05::/48", "via": "fd00::9"}, {"to": "fd05::/64"}, {"to": "fd09::/64", "via": "fd05::1"}],
    "later": [{"to": "fd05::/48"}, {"to": "fd09::/64", "via": "fd05::1"}, {"to": "fd05::/64", "via": "fd00::9"}],
    "metric": [{"to": "::/0"}, {"to": "::/0", "via": "fd00::9", "metric": 2000}, {"to": "fd09::/64", "via": "fd05::1"}],
    "onlink": [
        {"to": "fd05::/64", "via": "fd00::9"},
        {"to": "fd05::/48"},
        {"to": "fd09::/64", "via": "fd05::1", "onlink": True},
    ],
    "another table": [
        {"to": "fd05::/64", "via": "fd00::9", "table": 100},
        {"to": "fd05::/48"},
        {"to": "fd09::/64", "via": "fd05::1"},
    ],
    "own table": [
        {"to": "fd05::/64", "via": "fd00::9"},
        {"to": "fd05::/48", "table": 100},
        {"to": "fd09::/64", "via": "fd05::1", "table": 100},
    ],
    "twice": [{"to": "fd05::/64", "via": "fd00::9"}, {"to": "fd05::1/128"}, {"to": "fd09::/64", "via": "fd05::1"}],
}


@pytest.mark.parametrize("name", HIDDEN)
def test_a_gateway_that_the_kernel_finds_through_another_one_is_told(node: Node, name: str) -> None:
    made = pair(addresses=["fd00::1/64"])
    node.apply(made)
    made = pair(addresses=["fd00::1/64"], routes=HIDDEN[name])
    assert "NK0313" in node.plan(made).err
    outcome = node.run("apply", "-y", str(node.path))
    assert (outcome.code, "EHOSTUNREACH" in outcome.err) == (1, True)
    node.destroy()
    error = node.refused(made)
    assert "NK0462" in error
    assert "finds the gateway" in error


@pytest.mark.parametrize("name", SEEN)
def test_a_gateway_that_the_kernel_finds_is_not_refused(node: Node, name: str) -> None:
    made = pair(addresses=["fd00::1/64"], routes=SEEN[name])
    assert "NK0313" not in node.plan(made).err
    node.apply(made)
