"""A peer that goes to another namespace: what others lose by it, and what is in its way, is said by `plan`."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, ip, kinds, links
from tests.live.test_carried import made, queue

Spec = dict[str, Any]


def pair(namespace: str, kind: str = "veth", **own: Any) -> Spec:
    peer = {"name": "eth0", "namespace": namespace, "addresses": ["10.7.0.2/24"]}
    namespaces = {"web": {"create": True}, "web2": {"create": True}}
    return {"version": 1, "node": "w", "namespaces": namespaces, "devices": {"v0": {"kind": kind, **own, "peer": peer}}}


def settle(namespace: str) -> None:
    """What somebody does in the workload's namespace."""
    for line in (
        "addr add 10.8.0.2/24 dev eth0",
        "addr add fd08::2/64 dev eth0 nodad",
        "route add 10.9.0.0/24 via 10.7.0.9 dev eth0",
        "-6 route add fd09::/64 via fd08::9 dev eth0",
        "neigh add 10.7.0.9 lladdr 02:00:00:00:00:09 dev eth0 nud permanent",
    ):
        ip(*line.split(), namespace=namespace)


SETTLED = (
    *("address 10.8.0.2/24 of eth0 in web", "address fd08::2/64 of eth0 in web"),
    *("route 10.9.0.0/24 via 10.7.0.9 through eth0 in web", "route fd09::/64 via fd08::9 through eth0 in web"),
    "neighbour 10.7.0.9 of eth0 in web",
)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("anew", [False, True], ids=["moved", "made anew"])
def test_what_others_lose_is_said(node: Node, kind: str, anew: bool) -> None:
    more: Spec = {} if not anew else {"mode": "l2"} if kind == "netkit" else {"numtxqueues": 2}
    node.apply(pair("web", kind))
    settle("web")
    queue("root", "pfifo", "limit", "77", device="eth0", namespace="web")
    said = node.plan(pair("web2", kind, **more)).err
    assert "NK0426" in said
    assert anew or "as eth0 goes from the namespace web to the namespace web2" in said
    for words in (*SETTLED, "qdisc pfifo of eth0 in web"):
        assert words in said
    assert "10.7.0.2" not in said
    node.apply(pair("web2", kind, **more))
    assert "NK0426" not in node.plan(pair("web", kind, **more)).err


def test_the_place_in_a_bridge_is_said(node: Node) -> None:
    node.apply(pair("web"))
    ip("link", "add", "br0", "type", "bridge", namespace="web")
    ip("link", "set", "eth0", "master", "br0", namespace="web")
    assert "the place of eth0 in bridge br0 in web" in node.plan(pair("web2")).err
    node.apply(pair("web2"))


def test_a_device_that_is_made_upon_it_is_said(node: Node) -> None:
    node.apply(pair("web"))
    made("inner", "type", "vlan", "id", "6", lower="eth0", namespace="web")
    assert "vlan inner in web" in node.plan(pair("web2")).err
    node.apply(pair("web2"))


def test_of_many_things_some_are_named(node: Node) -> None:
    node.apply(pair("web"))
    for number in range(20):
        ip("addr", "add", f"10.8.0.{number}/32", "dev", "eth0", namespace="web")
    said = node.plan(pair("web2")).err
    assert "address 10.8.0.7/32" in said
    assert "10.8.0.8/32" not in said
    assert "12 more" in said


def test_what_stays_with_the_link_is_no_loss(node: Node) -> None:
    node.apply(pair("web"))
    ip("link", "property", "add", "dev", "eth0", "altname", "up1", namespace="web")
    assert "NK0426" not in node.plan(pair("web2")).err
    node.apply(pair("web2"))
    assert "altname up1" in ip("link", "show", "eth0", namespace="web2")


@pytest.mark.parametrize("how", ["a name", "a further name", "declared", "its own"])
def test_a_further_name_that_is_taken_where_the_peer_goes_is_named(node: Node, how: str) -> None:
    node.apply(pair("web"))
    ip("link", "property", "add", "dev", "eth0", "altname", "up1", namespace="web")
    second = pair("web2")
    match how:
        case "a name":
            ip("link", "add", "up1", "type", "veth", "peer", "name", "x", namespace="web2")
        case "a further name":
            ip("link", "add", "other", "type", "veth", "peer", "name", "x", namespace="web2")
            ip("link", "property", "add", "dev", "other", "altname", "up1", namespace="web2")
        case "declared":
            second["devices"]["v1"] = {"kind": "veth", "peer": {"name": "up1", "namespace": "web2"}}
        case _:
            second["devices"]["v0"]["peer"]["name"] = "up1"
    error = node.refused(second)
    assert "NK0480" in error
    assert "up1" in error
    assert "eth0" in links("web")
    ip("link", "property", "del", "dev", "eth0", "altname", "up1", namespace="web")
    node.apply(second)


def test_a_pair_that_is_made_anew_takes_no_further_name_along(node: Node) -> None:
    node.apply(pair("web"))
    ip("link", "property", "add", "dev", "eth0", "altname", "up1", namespace="web")
    ip("link", "add", "up1", "type", "veth", "peer", "name", "x", namespace="web2")
    node.apply(pair("web2", numtxqueues=2))


EXCHANGES = {"two": [1, 0], "a ring": [1, 2, 0], "a line": [1, 2, 3], "a line and a ring": [1, 2, 5, 4, 3]}


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("targets", EXCHANGES.values(), ids=EXCHANGES.keys())
def test_peers_take_names_of_others_and_give_them_back(node: Node, kind: str, targets: list[int]) -> None:
    """One pair of a ring is made anew, all others keep theirs; whatever the order in the spec is."""

    def spec(numbers: list[int], *, backwards: bool = False) -> dict[str, Any]:
        devices = {
            f"v{place}": {
                "kind": kind,
                "peer": {"name": f"eth{number}", "namespace": "a", "addresses": [f"10.7.{place}.2/24"]},
            }
            for place, number in enumerate(numbers)
        }
        order = reversed(devices) if backwards else devices
        return {
            "version": 1, "node": "w", "namespaces": {"a": {"create": True}},
            "devices": {name: devices[name] for name in order},
        }  # fmt: skip

    first = list(range(len(targets)))
    node.apply(spec(first))
    before = netstate_snapshot()
    for backwards in (False, True):
        changes = node.changes(spec(targets, backwards=backwards))
        rings = int(any(target < place for place, target in enumerate(targets)))
        assert [change["operation"] for change in changes].count("replace") == rings
        node.apply(spec(targets, backwards=backwards))
        for place, number in enumerate(targets):
            assert f"10.7.{place}.2/24" in ip("addr", "show", "dev", f"eth{number}", namespace="a")
        assert node.run("rollback", "-y").code == 0
        assert differences(before, netstate_snapshot()) == []
