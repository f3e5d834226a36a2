"""Routes whose destination, table and metric others use too: nkform adds and removes exactly its own."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from nkform.kernel import inet
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.support import Node, batch, ip, kinds

Spec = dict[str, Any]

DAEMON = "2001:db8:9::9"
"""A next hop that a routing daemon has for the same destination."""


def spec(gateway: str, kind: str = "veth") -> Spec:
    """A device whose default routes are nkform's, of both families."""
    return {
        "version": 1,
        "node": "w",
        "namespaces": {"web": {"create": True}},
        "devices": {
            "v0": {
                "kind": kind,
                "addresses": ["10.7.0.1/24", "fd07::1/64"],
                "routes": [{"to": "default", "via": f"10.7.0.{gateway}"}, {"to": "::/0", "via": f"fd07::{gateway}"}],
                "peer": {
                    "name": "eth0",
                    "namespace": "web",
                    "addresses": ["10.7.0.2/24", "fd07::2/64"],
                    "routes": [
                        {"to": "default", "via": f"10.7.0.{gateway}"},
                        {"to": "::/0", "via": f"fd07::{gateway}"},
                    ],
                },
            }
        },
    }


@pytest.fixture
def uplink() -> None:
    """A device of others that leads elsewhere."""
    ip("link", "add", "uplink", "type", "veth", "peer", "name", "far")
    for name, number in (("uplink", 1), ("far", 2)):
        ip("link", "set", name, "addrgenmode", "none", "up")
        ip("addr", "add", f"192.168.15.{number}/24", "dev", name)
        ip("addr", "add", f"2001:db8:9::{number}/64", "dev", name, "nodad")


def hops(namespace: str = "") -> list[tuple[str, str, str]]:
    """Gateway, device and protocol of each IPv4 default route, the first one first."""
    routes = json.loads(ip("-j", "-4", "route", "show", "default", namespace=namespace))
    return [(route["gateway"], route["dev"], route.get("protocol", "boot")) for route in routes]


def hops6(namespace: str = "") -> set[str]:
    """The gateways of the IPv6 default routes, whosever they are."""
    routes = json.loads(ip("-j", "-6", "route", "show", "default", namespace=namespace))
    return {hop["gateway"] for route in routes for hop in route.get("nexthops", [route])}


@pytest.mark.usefixtures("uplink")
@pytest.mark.parametrize("way", ["prepend", "append"])
@pytest.mark.parametrize("kind", kinds())
def test_a_route_of_others_with_the_same_key_stays_when_ours_changes(node: Node, kind: str, way: str) -> None:
    node.apply(spec("8", kind))
    ip("route", way, "default", "via", "192.168.15.2", "dev", "uplink", "proto", "static")
    ip("-6", "route", "append", "default", "via", DAEMON, "dev", "uplink", "proto", "bird", "metric", "1024")
    assert node.changes() == []
    for gateway in "9", "8", "7":
        node.apply(spec(gateway, kind))
        theirs, ours = ("192.168.15.2", "uplink", "static"), (f"10.7.0.{gateway}", "v0", "78")
        assert hops() == ([theirs, ours] if way == "prepend" else [ours, theirs])
        assert hops6() == {DAEMON, f"fd07::{gateway}"}
    assert node.run("rollback", "-y").code == 0
    assert set(hops()) == {("192.168.15.2", "uplink", "static"), ("10.7.0.8", "v0", "78")}
    assert hops6() == {DAEMON, "fd07::8"}
    node.destroy()
    assert hops() == [("192.168.15.2", "uplink", "static")]
    assert hops6() == {DAEMON}


def test_a_next_hop_of_a_daemon_through_our_own_device_stays(node: Node) -> None:
    """The kernel tells the protocol of the first of an IPv6 route's next hops alone."""
    node.apply(spec("8"))
    for namespace, device in (("", "v0"), ("web", "eth0")):
        for number in "5", "6":
            words = ("via", f"fd07::{number}", "dev", device, "proto", "bird", "metric", "1024")
            ip("-6", "route", "append", "default", *words, namespace=namespace)
        ip("route", "append", "default", "via", "10.7.0.5", "dev", device, "proto", "bird", namespace=namespace)
    assert node.changes() == []
    for gateway in "9", "8", "7":
        node.apply(spec(gateway))
        for namespace, device in (("", "v0"), ("web", "eth0")):
            assert hops6(namespace) == {"fd07::5", "fd07::6", f"fd07::{gateway}"}
            expected = {("10.7.0.5", device, "bird"), (f"10.7.0.{gateway}", device, "78")}
            assert set(hops(namespace)) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"mtu": 1400},
        {"src": "10.7.0.1"},
        {"onlink": True},
        {"via": "10.7.0.9", "mtu": 1400},
        {"via": "10.7.0.9", "src": "10.7.0.1"},
        {"via": None},
    ],
    ids=str,
)
def test_each_part_of_a_route_changes_beside_one_of_others(node: Node, change: dict[str, Any]) -> None:
    made = spec("8")
    node.apply(made)
    ip("route", "append", "default", "via", "10.7.0.5", "dev", "v0", "proto", "bird")
    ip("-6", "route", "append", "default", "via", "fd07::5", "dev", "v0", "proto", "bird", "metric", "1024")
    route = made["devices"]["v0"]["routes"][0]
    six = made["devices"]["v0"]["routes"][1]
    plain = [dict(route), dict(six)]
    route.update(change)
    six.update({key: str(value).replace("10.7.0.", "fd07::") if isinstance(value, str) else value
                for key, value in change.items()})  # fmt: skip
    if change == {"via": None}:
        del route["via"], six["via"]
    node.apply(made)
    assert "via 10.7.0.5 dev v0 proto bird" in ip("route")
    assert "fd07::5 dev v0" in ip("-6", "route")
    made["devices"]["v0"]["routes"] = plain
    node.apply(made)
    assert "via 10.7.0.5 dev v0 proto bird" in ip("route")
    assert ip("route", "show", "default").count("proto 78") == 1


def test_a_second_route_of_ours_that_nobody_declared_is_drift(node: Node) -> None:
    node.apply(spec("8"))
    for words in (
        ("route", "append", "default", "via", "10.7.0.4", "dev", "v0", "proto", "78"),
        ("route", "prepend", "default", "via", "10.7.0.8", "dev", "v0", "proto", "78", "mtu", "1300"),
        ("route", "prepend", "default", "via", "10.7.0.8", "dev", "v0", "proto", "78", "src", "10.7.0.1"),
        ("route", "prepend", "default", "via", "10.7.0.8", "dev", "v0", "proto", "78", "advmss", "1200"),
        ("route", "add", "default", "via", "10.7.0.8", "dev", "v0", "proto", "78", "tos", "0x10"),
    ):
        ip(*words)
    ip("-6", "route", "append", "default", "dev", "v0", "proto", "78", "metric", "1024")
    (change,) = node.changes()
    assert len(change["fields"]) == 6
    node.apply()
    assert hops() == [("10.7.0.8", "v0", "78")]
    assert len(ip("-6", "route", "show", "default").splitlines()) == 1


def test_routes_through_other_links_of_a_workload_are_not_even_read(node: Node) -> None:
    """They are not ours for their number alone."""
    node.apply(spec("8"))
    ip("link", "add", "own0", "type", "veth", "peer", "name", "own1", namespace="web")
    ip("link", "set", "own0", "up", namespace="web")
    batch([f"route add 20.0.{n >> 8}.{n & 255}/32 dev own0 proto 78" for n in range(1000)], "web")
    batch([f"-6 route add 2001:db8:{n:x}::/48 dev own0 proto 78" for n in range(1000)], "web")
    assert ip("route", namespace="web").count("proto 78") == 1001
    before = inet.decode_routes.cache_info().misses
    assert node.changes() == []
    assert inet.decode_routes.cache_info().misses - before < 100
    node.destroy()


def test_what_a_workload_adds_to_its_own_end_goes_with_the_next_apply(node: Node) -> None:
    node.apply(spec("8"))
    batch([f"route add 20.0.{n >> 8}.{n & 255}/32 dev eth0 proto 78" for n in range(3000)], "web")
    batch([f"route append default via 10.7.{n >> 8}.{n & 255} onlink dev eth0 proto 78" for n in range(3000)], "web")
    batch([f"-6 route append default via fd07::{n + 16:x} dev eth0 proto 78 metric 1024" for n in range(300)], "web")
    node.apply()
    assert hops("web") == [("10.7.0.8", "eth0", "78")]


@pytest.mark.parametrize("gateway", ["8", "9"])
@pytest.mark.parametrize("first", ["5", "8"])
def test_a_workload_with_several_next_hops_of_our_number_is_in_nobodys_way(
    node: Node, first: str, gateway: str
) -> None:
    """The second one becomes the first, and thereby known as ours, once the first one goes."""
    node.apply(spec("8"))
    ip("-6", "route", "del", "default", namespace="web")
    for to in "default", "fd16::/64":
        hop = [word for number in (first, "6", "7") for word in ("nexthop", "via", f"fd07::{number}", "dev", "eth0")]
        ip("-6", "route", "add", to, "proto", "78", *hop, namespace="web")
    ip("-6", "route", "append", "fd16::/64", "via", "fd07::4", "dev", "eth0", "proto", "bird", namespace="web")
    node.apply(spec(gateway))
    shown = ip("-6", "route", "show", "fd16::/64", namespace="web")
    assert "fd07::4" in shown
    assert "fd07::6" not in shown
    assert f"fd07::{gateway}" in hops6("web")
    node.destroy()


@pytest.mark.parametrize("gateway", ["8", "9"])
def test_a_failure_gives_all_next_hops_again(node: Node, gateway: str) -> None:
    node.apply(spec("8"))
    hop = [word for number in "567" for word in ("nexthop", "via", f"fd07::{number}", "dev", "eth0")]
    ip("-6", "route", "add", "fd16::/64", "proto", "78", *hop, namespace="web")
    before = ip("-6", "route", namespace="web")
    made = spec(gateway)
    made["devices"]["v0"]["peer"]["routes"].append({"to": "10.99.0.0/16", "via": "10.7.0.9"})
    with injected("add route 10.99.0.0/16 to eth0"):
        error = node.refused(made, command="apply")
    assert "NK0501" in error
    assert "NK0504" not in error
    assert ip("-6", "route", namespace="web") == before


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("declared", [False, True])
def test_a_route_of_ours_through_a_nexthop_object_is_removed_and_given_again(
    node: Node, declared: bool, group: bool
) -> None:
    """The kernel takes its number or what it leads through, and reports both (net/ipv4/fib_frontend.c)."""
    made = spec("8")
    node.apply(made)
    nexthops(group)
    for to, number in ("10.9.0.0/24", "4"), ("fd09::/64", "6"):
        ip("route", "add", to, "nhid", number, "proto", "78", namespace="web")
    before = ip("route", namespace="web"), ip("-6", "route", namespace="web")
    if declared:
        routes = [{"to": "10.9.0.0/24", "via": "10.7.0.5"}, {"to": "fd09::/64", "via": "fd07::5"}]
        made["devices"]["v0"]["peer"]["routes"] += routes
    node.apply(made)
    assert "nhid" not in ip("route", namespace="web") + ip("-6", "route", namespace="web")
    assert node.run("rollback", "-y").code == 0
    assert (ip("route", namespace="web"), ip("-6", "route", namespace="web")) == before
    node.destroy()


@pytest.mark.parametrize("group", [False, True])
def test_a_route_of_others_through_a_nexthop_object_is_not_taken_over(node: Node, group: bool) -> None:
    """Nothing gives it back: its nexthop object goes when others say so."""
    made = spec("8")
    node.apply(made)
    nexthops(group)
    for to, number, gateway in ("10.9.0.0/24", "4", "10.7.0.5"), ("fd09::/64", "6", "fd07::5"):
        ip("route", "add", to, "nhid", number, "proto", "static", namespace="web")
        made["devices"]["v0"]["peer"]["routes"].append({"to": to, "via": gateway})
    error = node.refused(made, "--adopt")
    assert error.count("NK0451") == 2
    assert "with `nkform apply --adopt`" not in error


def nexthops(group: bool) -> None:
    """Two nexthop objects of a workload, 4 and 6 by their IP versions."""
    for number, gateway in ("4", "10.7.0.5"), ("6", "fd07::5"):
        alone = number + "0" if group else number
        ip("nexthop", "add", "id", alone, "via", gateway, "dev", "eth0", namespace="web")
        if group:
            ip("nexthop", "add", "id", number, "group", alone, namespace="web")


def test_what_a_workload_had_twice_comes_back_twice(node: Node) -> None:
    """Else the node would never be as it was, and going back would never end."""
    node.apply(spec("8"))
    for number in "567":
        ip("route", "append", "10.9.0.0/16", "via", f"10.7.0.{number}", "dev", "eth0", "proto", "78", namespace="web")
        ip(
            "-6",
            "route",
            "append",
            "fd09::/64",
            "via",
            f"fd07::{number}",
            "dev",
            "eth0",
            "proto",
            "78",
            namespace="web",
        )
    before = ip("route", namespace="web"), ip("-6", "route", namespace="web")
    node.apply(spec("9"))
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert (ip("route", namespace="web"), ip("-6", "route", namespace="web")) == before


@pytest.mark.parametrize("way", ["changed", "deleted"])
def test_next_hops_through_two_ends_of_a_workload_are_in_nobodys_way(node: Node, way: str) -> None:
    """The one through the second end becomes the first once that through the first end goes."""
    made = spec("8")
    peer = {"name": "eth1", "namespace": "web", "addresses": ["10.9.0.2/24", "fd09::2/64"]}
    made["devices"]["v1"] = {"kind": "veth", "addresses": ["10.9.0.1/24", "fd09::1/64"], "peer": peer}
    node.apply(made)
    hop = "nexthop via fd07::5 dev eth0 nexthop via fd09::5 dev eth1 nexthop via fd09::6 dev eth1"
    ip("-6", "route", "add", "fd16::/64", "proto", "78", *hop.split(), namespace="web")
    before = ip("-6", "route", namespace="web")
    if way == "deleted":
        del made["devices"]["v0"]
    made["devices"]["v1"]["peer"]["routes"] = [{"to": "10.99.0.0/16", "via": "10.9.0.9"}]
    if way == "changed":
        with injected("add route 10.99.0.0/16 to eth1"):
            assert "NK0504" not in node.refused(made, command="apply")
        assert ip("-6", "route", namespace="web") == before
    node.apply(made)
    assert "fd16::" not in ip("-6", "route", namespace="web")


def test_a_pair_that_comes_back_has_what_it_had_twice(node: Node) -> None:
    node.apply(spec("8"))
    for number in "567":
        ip("route", "append", "10.9.0.0/16", "via", f"10.7.0.{number}", "dev", "eth0", "proto", "78", namespace="web")
    before = ip("route", namespace="web")
    nothing: Spec = {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}}
    node.apply(nothing)
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert ip("route", namespace="web") == before


@pytest.mark.parametrize("way", ["in place", "deleted", "exchanged"])
@pytest.mark.parametrize(
    "lines",
    [
        ["nexthop add id 5 via 10.7.0.5 dev eth0", "route add 10.9.0.0/24 nhid 5 proto 78"],
        ["route add 10.9.0.0/24 proto 78 nexthop via 10.7.0.5 dev eth0 nexthop via 10.8.0.5 dev eth1"],
        ["-6 route add fd16::/64 proto 78 nexthop via fd07::5 dev eth0 nexthop via fd08::5 dev eth1"],
        ["-6 route add fd16::/64 via fd07::5 dev eth0 proto 78 expires 500"],
        ["route add 10.9.0.0/24 via 10.7.0.5 proto 78 tos 8", "route add 10.10.0.0/16 dev eth0 proto 78 advmss 1000"],
    ],
    ids=["object", "two ends", "two ends 6", "passing", "strange"],
)
def test_nothing_that_a_workload_adds_keeps_a_device_from_going_back(node: Node, way: str, lines: list[str]) -> None:
    """With our number; what cannot be had again is not looked for."""
    made = spec("8")
    peer = {"name": "eth1", "namespace": "web", "addresses": ["10.8.0.2/24", "fd08::2/64"]}
    made["devices"]["v1"] = {"kind": "veth", "addresses": ["10.8.0.1/24", "fd08::1/64"], "peer": peer}
    node.apply(made)
    for line in lines:
        ip(*line.split(), namespace="web")
    changed = spec("9" if way == "in place" else "8")
    changed["devices"]["v1"] = copy.deepcopy(made["devices"]["v1"])
    if way == "deleted":
        del changed["devices"]["v0"]
    if way == "exchanged":
        changed["devices"]["v1"]["peer"]["name"], changed["devices"]["v0"]["peer"]["name"] = "eth0", "eth1"
    node.apply(changed)
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert node.run("apply", "-y", str(node.write(made))).code == 0
    assert node.changes() == []
