"""Who is root in a workload's namespace does there what no spec can say: `show` prints the rest, and says so."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.live.helpers.support import Node, ip

SPEC: dict[str, Any] = {
    "version": 1,
    "node": "ev",
    "namespaces": {"a": {"create": True}},
    "devices": {
        "v0": {
            "kind": "veth",
            "addresses": ["10.0.0.1/16", "fd00::1/64"],
            "peer": {
                "name": "eth0",
                "namespace": "a",
                "addresses": ["10.0.0.2/16", "fd00::2/64"],
                "routes": [{"to": "10.9.0.0/16", "via": "10.0.0.1"}, {"to": "fd05::/64", "via": "fd00::1"}],
            },
        },
        "w0": {"kind": "veth", "mtu": 1400, "peer": {"name": "w1"}},
    },
}

UNSAYABLE = {
    "several next hops": [
        "route add 10.11.0.0/16 proto 78 nexthop via 10.0.0.7 dev eth0 nexthop via 10.0.0.8 dev eth0"
    ],
    "a next hop beside": ["-6 route append fd05::/64 via fd00::3 dev eth0 proto 78"],
    "several IPv6 next hops": [
        "-6 route add fd08::/64 proto 78 nexthop via fd00::3 dev eth0 nexthop via fd00::4 dev eth0"
    ],
    "next hops of others": ["-6 route add fd07::/64 nexthop via fd00::3 dev eth0 nexthop via fd00::4 dev eth0"],
    "multicast": ["-6 route add ff05::/16 dev eth0 proto 78"],
    "many of multicast": [f"-6 route add ff0{number}::/16 dev eth0 proto 78" for number in range(1, 10)],
    "type of service": ["route add 10.9.0.0/16 via 10.0.0.5 tos 4 proto 78"],
    "metrics": ["route add 10.12.0.0/16 via 10.0.0.5 initcwnd 5 mtu 1300 proto 78"],
    "scope": ["route add 10.12.0.0/16 dev eth0 scope global proto 78"],
    "congestion control": ["route add 10.12.0.0/16 via 10.0.0.5 features ecn advmss 500 proto 78"],
    "an IPv6 route that passes": ["-6 route add fd0a::/64 via fd00::1 expires 1000 proto 78"],
    "the mark": ["link set lo alias mine"],
    "all at once": [
        "-6 route append fd05::/64 via fd00::3 dev eth0 proto 78",
        "-6 route add ff05::/16 dev eth0 proto 78",
        "route add 10.9.0.0/16 via 10.0.0.5 tos 4 proto 78",
    ],
}
SAYABLE = [
    "route add 10.12.0.0/16 via 10.0.0.5 proto 78",
    "route add default via 10.0.0.5 proto 78 table 300 metric 7",
    "-6 route add fd0a::/64 via fd00::1 proto 78",
]


def shown(node: Node) -> str:
    """What `show` prints, which must be valid; and what it warns of."""
    outcome = node.run("show")
    assert outcome.code == 0, outcome.err
    node.write(outcome.out)
    planned = node.plan()
    assert planned.code == 0, planned.err
    return outcome.err


@pytest.mark.parametrize("lines", UNSAYABLE.values(), ids=list(UNSAYABLE))
def test_what_no_spec_can_say_is_left_out_and_told(node: Node, lines: list[str]) -> None:
    node.apply(SPEC)
    for line in lines:
        ip(*line.split(), namespace="a")
    assert "NK0619" in shown(node)
    node.apply()
    node.apply(SPEC)


@pytest.mark.parametrize("line", SAYABLE)
def test_what_a_spec_can_say_is_shown_and_plans_empty(node: Node, line: str) -> None:
    node.apply(SPEC)
    ip(*line.split(), namespace="a")
    assert shown(node) == ""
    assert node.changes() == []
    assert len(yaml.safe_load(node.path.read_text())["devices"]["v0"]["peer"]["routes"]) == 3


NAMES = ["\x1b[31m", "\x01\x7f", "\u202e", "\u2028", "\x85", "\u2028" * 5, "\x01" * 15]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_that_no_spec_can_have_are_spelled_otherwise(node: Node, name: str) -> None:
    node.apply(SPEC)
    ip("link", "set", "eth0", "down", namespace="a")
    ip("link", "set", "eth0", "name", name, namespace="a")
    assert "NK0608" in shown(node)
    node.apply()
    node.apply(SPEC)


def test_bytes_that_are_no_text_and_too_many_to_be_spelled(node: Node) -> None:
    node.apply(SPEC)
    ip("link", "set", "eth0", "down", namespace="a")
    ip("link", "set", "eth0", "name", b"\xff\xfe\xfd\xfc\xfb".decode(errors="surrogateescape"), namespace="a")
    assert "NK0608" in shown(node)
    node.apply(SPEC)
