"""`plan` names what others lose: routes that no other device can be given, and IPv6 where an MTU gets too small."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.support import Node, ip, kinds
from tests.live.test_moved_peers import pair

BOUND = {
    "nexthop": ["nexthop add id 5 via 10.7.0.9 dev eth0", "route add 10.9.0.0/24 nhid 5"],
    "group": [
        "nexthop add id 5 via 10.7.0.9 dev eth0",
        "nexthop add id 6 via 10.7.0.8 dev eth0",
        "nexthop add id 7 group 5/6",
        "route add 10.9.0.0/24 nhid 7",
    ],
    "several": ["route add 10.9.0.0/24 nexthop via 10.7.0.9 dev eth0 nexthop via 10.6.0.9 dev d0 onlink"],
    "twice": ["route add 10.9.0.0/24 nexthop via 10.7.0.9 dev eth0 nexthop via 10.7.0.8 dev eth0"],
    "ipv6": [
        "-6 nexthop add id 5 via fe80::9 dev eth0",
        "-6 route add fd09::/64 nhid 5",
    ],
    "several ipv6": ["-6 route add fd09::/64 nexthop via fe80::9 dev eth0 nexthop via fe80::8 dev d0"],
    "passing": ["-6 route add fd09::/64 via fe80::9 dev eth0 expires 3600"],
}
"""What somebody does in the workload's namespace."""

SAID = {
    "nexthop": ["route 10.9.0.0/24 via 10.7.0.9 through eth0 in web", "nexthop 5 through eth0 in web"],
    "group": ["route 10.9.0.0/24", "nexthop 5 through eth0 in web", "nexthop 6 through eth0 in web"],
    "ipv6": ["route fd09::/64 via fe80::9 through eth0 in web", "nexthop 5 through eth0 in web"],
    "several ipv6": ["route fd09::/64"],
    "passing": ["route fd09::/64 via fe80::9 through eth0 in web"],
}


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("moved", [False, True], ids=["made anew", "moved"])
@pytest.mark.parametrize("name", BOUND)
def test_a_route_that_cannot_be_carried_is_said(node: Node, kind: str, moved: bool, name: str) -> None:
    more: dict[str, Any] = {"mode": "l2"} if kind == "netkit" else {"numtxqueues": 2}
    second = pair("web2", kind) if moved else pair("web", kind, **more)
    node.apply(pair("web", kind))
    for line in (
        "link add d0 type veth peer name d1",
        "link set d0 up",
        "link set d1 up",
    ):
        ip(*line.split(), namespace="web")
    assert "route" not in node.plan(second).err
    for line in BOUND[name]:
        ip(*line.split(), namespace="web")
    said = node.plan(second).err
    assert "NK0426" in said
    for words in SAID.get(name, ["route 10.9.0.0/24 via 10.7.0.9 through eth0 in web"]):
        assert words in said
    node.apply(second)
    assert "10.9.0.0/24" not in node.run("plan", str(node.path)).err


@pytest.mark.parametrize("kind", kinds())
def test_an_mtu_too_small_for_ipv6_is_said(node: Node, kind: str) -> None:
    node.apply(pair("web", kind))
    assert "NK0426" not in node.plan(pair("web", kind, mtu=1000)).err
    for line in ("addr add fd08::2/64 dev eth0 nodad", "addr add 10.8.0.2/24 dev eth0", *BOUND["ipv6"]):
        ip(*line.split(), namespace="web")
    assert "NK0426" not in node.plan(pair("web", kind, mtu=1300)).err
    said = node.plan(pair("web", kind, mtu=1000)).err
    assert "NK0426" in said
    for words in ("address fd08::2/64 of eth0 in web", "route fd09::/64 via fe80::9 through eth0 in web"):
        assert words in said
    assert "10.8.0.2" not in said
    node.apply(pair("web", kind, mtu=1000))
    assert "NK0426" not in node.plan(pair("web", kind, mtu=1100)).err
