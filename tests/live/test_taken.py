"""What exists where a spec wants an address or a route: named by `plan`, and taken over with --adopt."""

from __future__ import annotations

import errno
import json
import re
from typing import Any

import pytest

from nkform.kernel.error import KernelError
from tests.live.helpers.attack import stopped_after
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds, sh
from tests.live.test_shared_routes import spec

Spec = dict[str, Any]


def shown(name: str, address: str, namespace: str = "") -> dict[str, Any]:
    """An address as `ip` tells of it."""
    for found in json.loads(ip("-j", "-d", "addr", "show", "dev", name, namespace=namespace))[0]["addr_info"]:
        if found["local"] == address:
            return dict(found)
    raise AssertionError(f"{name} has no {address}")


HELD = (
    ("addr add 10.7.0.2/24 dev eth0", "address 10.7.0.2/24"),
    ("addr add 10.7.0.2/24 dev eth0 valid_lft 3600 preferred_lft 1800 proto 16", "address 10.7.0.2/24"),
    ("addr add fd07::2/64 dev eth0 nodad", "address fd07::2/64"),
    ("addr add fd07::2/64 dev eth0 nodad valid_lft 3600 preferred_lft 1800", "address fd07::2/64"),
    ("addr add fd07::2/128 dev eth0 nodad", "address fd07::2/64"),
    ("route add default via 10.7.0.8 dev eth0 proto dhcp onlink", "route 0.0.0.0/0"),
    ("route add default via 10.7.0.77 dev eth0 proto dhcp onlink", "route 0.0.0.0/0"),
    ("-6 route add default via fd07::8 dev eth0 proto bird metric 1024 onlink", "route ::/0"),
    ("-6 route add default dev eth0 proto static metric 1024", "route ::/0"),
)


@pytest.mark.parametrize(("line", "named"), HELD, ids=[line for line, _ in HELD])
@pytest.mark.parametrize("kind", kinds())
def test_what_others_have_on_our_device_is_named_and_can_be_taken_over(
    node: Node, kind: str, line: str, named: str
) -> None:
    bare = spec("8", kind)
    peer = bare["devices"]["v0"]["peer"]
    addresses, routes = peer.pop("addresses"), peer.pop("routes")
    node.apply(bare)
    ip(*line.split(), namespace="web")
    until(lambda: "tentative" not in ip("addr", namespace="web") and "fe80::" in ip("addr", namespace="web"))
    before = ip("addr", namespace="web"), ip("route", namespace="web"), ip("-6", "route", namespace="web")
    peer.update(addresses=addresses, routes=routes)
    for command in "plan", "apply":
        error = node.refused(bare, command=command)
        assert named in error
        assert "--adopt" in error
        assert "spec.yaml:" in error
    node.apply(bare, "--adopt")
    assert node.changes() == []
    for text in addresses:
        found = shown("eth0", text.partition("/")[0], "web")
        assert found["prefixlen"] == int(text.partition("/")[2])
        assert found["valid_life_time"] == 0xFFFFFFFF
    four, six = ip("route", namespace="web"), ip("-6", "route", namespace="web")
    assert [each for each in four.splitlines() if "default" in each] == ["default via 10.7.0.8 dev eth0 proto 78 "]
    assert six.count("default") == 1
    assert "default via fd07::8 dev eth0 proto 78" in six
    assert "10.7.0.2/24" in node.run("show").out
    assert node.run("rollback", "-y").code == 0
    after = ip("addr", namespace="web"), ip("route", namespace="web"), ip("-6", "route", namespace="web")
    assert [_timeless(each) for each in after] == [_timeless(each) for each in before]
    node.apply(bare, "--adopt")
    peer.update(addresses=[], routes=[])
    node.apply(bare)
    assert "10.7.0.2" not in ip("addr", namespace="web")
    assert "fd07::2" not in ip("addr", namespace="web")
    assert "default" not in ip("route", namespace="web") + ip("-6", "route", namespace="web")


def _timeless(text: str) -> list[str]:
    """Lines of `ip` in an order of their own, without lifetimes, which go on."""
    lines = (re.sub(r"expires \d+sec", "expires", line) for line in text.splitlines())
    return sorted(line for line in lines if "valid_lft" not in line or "forever" in line)


def test_what_leads_through_another_device_cannot_be_taken_over(node: Node) -> None:
    ip("link", "add", "uplink", "type", "veth", "peer", "name", "far")
    ip("link", "set", "far", "up")
    ip("link", "set", "uplink", "up")
    ip("addr", "add", "192.168.15.1/24", "dev", "uplink")
    ip("route", "add", "default", "via", "192.168.15.2", "proto", "static")
    for _ in "before the device is there", "and after":
        error = node.refused(spec("8"), "--adopt")
        assert "0.0.0.0/0 via 192.168.15.2 dev uplink (proto static)" in error
        assert "metric" in error
        moved = spec("8")
        moved["devices"]["v0"]["routes"][0]["metric"] = 7
        node.apply(moved)
    assert "default via 192.168.15.2 dev uplink proto static" in ip("route")


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit", "throw"])
def test_what_drops_packets_has_the_place_of_a_route(node: Node, kind: str) -> None:
    """The kernel has one place for both (EEXIST). A workload can put such a one where it likes."""
    node.apply(spec("8"))
    ip("route", "del", "default", namespace="web")
    ip("route", "add", kind, "default", namespace="web")
    for words in (), ("--adopt",):
        error = node.refused(spec("8"), *words)
        assert "NK0451]: route 0.0.0.0/0 via 10.7.0.8 of eth0 in web cannot be added: " in error
        assert f"{kind} 0.0.0.0/0 dev no device" in error
    ip("route", "del", kind, "default", namespace="web")
    ip("route", "append", kind, "default", namespace="web")
    ip("route", "prepend", "default", "via", "10.7.0.8", "dev", "eth0", "proto", "78", namespace="web")
    node.apply(spec("9"))
    assert f"{kind} default" in ip("route", namespace="web")


def test_a_link_local_address_of_the_kernel_is_named(node: Node) -> None:
    made = spec("8")
    node.apply(made)
    sh("sleep", "0.1")
    own = next(
        each["local"]
        for each in json.loads(ip("-j", "-6", "addr", "show", "dev", "v0"))[0]["addr_info"]
        if each["local"].startswith("fe80")
    )
    made["devices"]["v0"]["addresses"].append(f"{own}/64")
    assert "the kernel's own" in node.refused(made)
    node.apply(made, "--adopt")
    assert f"{own}/64" in node.run("show").out


@pytest.mark.parametrize("family", ["10.7.0.0/24", "fd07::/64"])
def test_the_kernels_own_route_to_a_subnet_is_known(node: Node, family: str) -> None:
    made = spec("8")
    route: dict[str, Any] = {"to": family} if ":" not in family else {"to": family, "metric": 256}
    made["devices"]["v0"]["routes"].append(route)
    assert "NK0452" in node.apply(made).err
    route["mtu"] = 1400
    assert "NK0453" in node.refused(made)
    route["metric"] = 7
    node.apply(made)


@pytest.mark.parametrize(
    ("address", "route"),
    [("10.0.0.1/24", {"to": "10.0.0.0/24"}), ("fd00::1/64", {"to": "fd00::/64", "metric": 256})],
    ids=["IPv4", "IPv6"],
)
@pytest.mark.parametrize("far", [False, True], ids=["primary", "peer"])
def test_the_kernels_own_route_to_a_subnet_of_another_end_is_known(
    node: Node, address: str, route: dict[str, Any], far: bool
) -> None:
    ends: list[Spec] = [{"addresses": [address]}, {"routes": [route]}]
    devices = {
        f"v{place}": {"kind": "veth", **({} if far else end), "peer": {"name": f"eth{place}", **(end if far else {})}}
        for place, end in enumerate(ends)
    }
    made: Spec = {"version": 1, "node": "w", "devices": devices}
    error = node.refused(made)
    assert "NK0453" in error
    assert f"{address} of {'eth0' if far else 'v0'}" in error
    ends[1]["routes"] = [{**route, "metric": 7}]
    (devices["v1"]["peer"] if far else devices["v1"]).update(ends[1])
    node.apply(made)
    node.destroy()
    ends[1]["routes"] = [route]
    (devices["v1"]["peer"] if far else devices["v1"]).update(ends[1])
    devices["v0"]["up"] = False  # then the kernel makes none
    node.apply(made)


@pytest.mark.parametrize("place", ["v0", "v1"])
@pytest.mark.parametrize("to", ["10.0.0.1/32", "10.0.0.255/32"])
def test_the_kernels_own_routes_in_the_local_table_are_known(node: Node, to: str, place: str) -> None:
    devices: dict[str, Spec] = {name: {"kind": "veth", "peer": {"name": f"{name}p"}} for name in ("v0", "v1")}
    devices["v0"]["addresses"] = ["10.0.0.1/24"]
    devices[place]["routes"] = [{"to": to, "table": 255}]
    made: Spec = {"version": 1, "node": "w", "devices": devices}
    assert "NK0453" in node.refused(made)
    for other in ({"to": "10.0.0.0/32", "table": 255}, {"to": to, "table": 255, "metric": 7}, {"to": to}):
        devices[place]["routes"] = [other]
        node.apply(made)


def test_a_network_without_a_broadcast_address_has_no_route_to_it(node: Node) -> None:
    device = {"addresses": ["10.0.0.0/31"], "routes": [{"to": "10.0.0.1/32", "table": 255}]}
    node.apply({"version": 1, "node": "w", "devices": {"v0": {"kind": "veth", **device, "peer": {"name": "v0p"}}}})


def test_the_kernels_own_route_of_an_address_of_others_is_known(node: Node) -> None:
    made = spec("8")
    node.apply(made)
    ip("addr", "add", "10.9.0.1/24", "dev", "v0")
    made["devices"]["v0"]["routes"].append({"to": "10.9.0.0/24"})
    assert "the kernel's own, which comes with an address" in node.refused(made, "--adopt")


@pytest.mark.parametrize("place", ["p0", "p1"])
@pytest.mark.parametrize("network", ["10.0.0", "fd00::"])
def test_a_route_may_take_the_place_of_the_kernels_own_that_goes(node: Node, network: str, place: str) -> None:
    """With the last address of a network, the kernel's route there goes; an address of others keeps it."""
    ipv6 = ":" in network
    one, two, to = ("fd00::1/64", "fd00::2/64", "fd00::/64") if ipv6 else ("10.0.0.1/24", "10.0.0.2/24", "10.0.0.0/24")
    devices: dict[str, Spec] = {name: {"kind": "veth", "peer": {"name": f"{name}p"}} for name in ("p0", "p1")}
    made: Spec = {"version": 1, "node": "w", "devices": devices}
    devices["p0"]["addresses"] = [one]
    node.apply(made)
    ip("addr", "add", two, "dev", "p0")
    devices["p0"]["addresses"] = []
    devices[place]["routes"] = [{"to": to, "metric": 256} if ipv6 else {"to": to}]
    if ipv6:
        assert "NK0451" in node.refused(made)
    ip("addr", "del", two, "dev", "p0")
    node.apply(made)
    assert f"dev {place} proto 78" in ip("-6" if ipv6 else "-4", "route", "show", to)


def test_going_back_does_not_need_to_adopt(node: Node) -> None:
    """What a workload does to its own addresses and routes keeps nobody from going back."""
    made = spec("8")
    node.apply(made)
    made["devices"]["v0"]["mtu"] = 1400
    node.apply(made)
    for line in (
        "addr del 10.7.0.2/24 dev eth0",
        "addr add 10.7.0.2/24 dev eth0",
        "route add default via 10.7.0.9 dev eth0",
        "-6 route del default dev eth0",
        "-6 route add default dev eth0 metric 1024",
    ):
        ip(*line.split(), namespace="web")
    error = node.refused(made)
    assert "NK0450" in error
    assert "NK0451" in error
    assert node.run("rollback", "-y").code == 0
    assert "mtu 1500" in ip("link", "show", "v0")
    assert "proto 78" in ip("route", "show", "default", namespace="web")


@pytest.mark.parametrize("way", ["rollback", "confirm"])
@pytest.mark.parametrize("kind", kinds())
def test_an_adoption_can_be_regretted(node: Node, kind: str, way: str) -> None:
    """The device is others' again, with all that they had on it."""
    ip("netns", "add", "web")
    words = ["mode", "l2"] if kind == "netkit" else []
    ip("link", "add", "v0", "type", kind, *words, "peer", "name", "eth0", "netns", "web")
    ip("link", "set", "v0", "up")
    ip("link", "set", "eth0", "up", namespace="web")
    ip("addr", "add", "10.7.0.9/24", "dev", "v0")
    ip("addr", "add", "10.7.0.1/24", "dev", "v0")
    ip("addr", "add", "fd07::1/64", "dev", "v0", "nodad")
    ip("route", "add", "default", "via", "10.7.0.8", "dev", "v0", "proto", "dhcp")
    ip("-6", "route", "add", "default", "via", "fd07::8", "dev", "v0", "proto", "bird", "metric", "1024")
    before = netstate_snapshot()
    made = spec("8", kind)
    made["namespaces"]["web"] = {}
    made["devices"]["v0"] |= {"mode": "l2"} if kind == "netkit" else {}
    node.write(made)
    if way == "rollback":
        node.apply(made, "--adopt")
        outcome = node.run("rollback", "-y")
    else:
        assert node.run("apply", "-y", "--adopt", str(node.path), "--confirm", "600s", "--detach").code == 0
        outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert differences(before, netstate_snapshot()) == []
    if way == "rollback":  # the second one goes forward again
        outcome = node.run("rollback", "-y")
        assert outcome.code == 0, outcome.err
        assert node.changes(made) == []
        assert node.run("rollback", "-y").code == 0
    node.apply(made, "--adopt")


def in_order(name: str) -> list[str]:
    """The addresses of a link as `ip` lists them, without those that the kernel made."""
    return [
        line for line in ip("-o", "addr", "show", name).splitlines() if "fe80::" not in line and "10.7.0.5" not in line
    ]


def refused() -> None:
    raise KernelError(errno.EPERM, "go on")


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("way", ["rollback", "failure"])
def test_addresses_that_an_adoption_puts_in_another_order_come_back_as_they_were(
    node: Node, monkeypatch: pytest.MonkeyPatch, kind: str, way: str
) -> None:
    """In their order, each with its label, its broadcast address and its lifetime, whoever had to go for a moment."""
    ip("netns", "add", "web")
    words = ["mode", "l2"] if kind == "netkit" else []
    ip("link", "add", "v0", "type", kind, *words, "peer", "name", "eth0", "netns", "web")
    ip("link", "set", "v0", "up")
    ip("link", "set", "eth0", "up", namespace="web")
    for text, more in (
        ("10.7.0.9/24", "brd 10.7.0.200 label v0:nine"),
        ("10.7.0.1/24", "brd 10.7.0.201 label v0:one proto 99"),
        ("10.7.0.5/24", "brd 10.7.0.202 valid_lft 3600 preferred_lft 1800"),
        ("10.8.0.1/24", "scope link label v0:8"),
        ("fd07::9/64", "nodad proto 99"),
        ("fd07::1/64", "nodad noprefixroute"),
    ):
        ip("addr", "add", text, "dev", "v0", *more.split())
    ip("route", "add", "10.9.0.0/24", "via", "10.7.0.8", "dev", "v0", "src", "10.7.0.5")
    before, listed = netstate_snapshot(), in_order("v0")
    made = spec("8", kind)
    made["namespaces"]["web"] = {}
    made["devices"]["v0"] |= {"mode": "l2"} if kind == "netkit" else {}
    made["devices"]["v0"]["addresses"] = [
        *("10.8.0.1/24", "10.7.0.5/24", "10.7.0.1/24", "10.7.0.9/24", "fd07::1/64", "fd07::9/64"),
    ]
    made["devices"]["v0"]["routes"] = []
    node.write(made)
    if way == "rollback":
        node.apply(made, "--adopt")
        assert shown("v0", "10.7.0.9")["broadcast"] == "10.7.0.200"
        assert shown("v0", "10.7.0.5")["valid_life_time"] == 0xFFFFFFFF
        outcome = node.run("rollback", "-y")
        assert outcome.code == 0, outcome.err
    else:
        actions = len(node.plan(made, "--json", "--adopt").json()["actions"])
        with stopped_after(actions, actions, refused):
            assert node.run("apply", "-y", "--adopt", str(node.path)).code == 1
    assert differences(before, netstate_snapshot()) == []
    assert in_order("v0") == listed


@pytest.mark.parametrize("more", [False, True], ids=["alone", "with a pair"])
def test_a_rollback_goes_forward_again_to_an_adopted_namespace(node: Node, more: bool) -> None:
    ip("netns", "add", "web")
    made: Spec = {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}}
    if more:
        made["devices"] = {"v0": {"kind": "veth", "peer": {"name": "eth0", "namespace": "web"}}}
    before = netstate_snapshot()
    node.apply(made, "--adopt")
    after = netstate_snapshot()
    for state in (before, after, before, after):
        outcome = node.run("rollback", "-y")
        assert outcome.code == 0, outcome.err
        assert differences(state, netstate_snapshot()) == []
        assert "web" in ip("netns")
    assert node.changes(made) == []


def test_another_namespace_of_that_name_is_not_taken_over_by_a_rollback(node: Node) -> None:
    ip("netns", "add", "web")
    made: Spec = {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}}
    node.apply(made, "--adopt")
    assert node.run("rollback", "-y").code == 0
    ip("netns", "del", "web")
    ip("netns", "add", "web")
    error = node.run("rollback", "-y").err
    assert "NK0412" in error
    assert "--adopt" not in error
    assert "delete it, or give it another name" in error
    assert "NK0412" in node.refused(made)


def test_going_back_marks_what_has_lost_its_mark(node: Node) -> None:
    node.apply(spec("8"))
    changed = spec("8")
    changed["devices"]["v0"]["mtu"] = 1400
    node.apply(changed)
    ip("link", "set", "v0", "alias", "")
    assert node.run("rollback", "-y").code == 0
    assert node.changes(spec("8")) == []
    ip("link", "del", "v0")
    ip("link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", "web")
    assert node.run("rollback", "-y").code == 1  # another one of its name is others'
    assert "nkform:" not in ip("link", "show", "v0")
