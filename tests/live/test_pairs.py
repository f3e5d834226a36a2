"""Pairs from a spec to the kernel, with `ip` and sysfs as witnesses."""

from __future__ import annotations

import copy
import socket
import struct
from typing import Any

import pytest
import yaml

from nkform.attributes import ATTRIBUTES, Attribute, Flag
from tests.live.helpers.support import Node, ip, kinds, link, needs, pings, reaches, sh, sysfs
from tests.live.helpers.witness import needs_ip

SOL_PACKET, PACKET_ADD_MEMBERSHIP = 263, 1
PACKET_MR_PROMISC, PACKET_MR_ALLMULTI = 1, 2
"""include/linux/socket.h, include/uapi/linux/if_packet.h."""

FULL = """
version: 1
node: worker-1
namespaces:
  low: {create: true}
  high: {create: true}
defaults:
  kind: netkit
  mtu: 1450
  headroom: 64
  tailroom: 32
  gso_max_size: 196608
  gro_max_size: 196608
  gso_ipv4_max_size: 196608
  gro_ipv4_max_size: 196608
  scrub: none
devices:
  nk-low:
    mode: l2
    mac: 02:00:00:00:00:01
    addresses: [10.0.0.1/24]
    peer:
      name: eth0
      namespace: low
      policy: blackhole
      scrub: none
      mac: 02:00:00:00:00:02
      addresses: [10.0.0.2/24]
  nk-high:
    mode: l3
    addresses: [10.1.0.1/32]
    routes: [{to: 10.1.0.2/32}]
    peer:
      name: eth0
      namespace: high
      policy: blackhole
      scrub: none
      addresses: [10.1.0.2/32]
      routes: [{to: default, via: 10.1.0.1, onlink: true}]
"""


def veth(kind: str = "veth") -> dict[str, Any]:
    """Two workloads that reach each other through the node."""
    pair = {"kind": kind, "mtu": 1500, "sysctl": {"ipv4": {"forwarding": 1, "rp_filter": 0}}}
    return {
        "version": 1,
        "node": "w",
        "namespaces": {"a": {"create": True}, "b": {"create": True}},
        "devices": {
            f"to-{name}": {
                **pair,
                "addresses": ["169.254.1.1/32"],
                "routes": [{"to": f"10.0.0.{number}/32"}],
                "peer": {
                    "name": "eth0",
                    "namespace": name,
                    "addresses": [f"10.0.0.{number}/32"],
                    "routes": [{"to": "default", "via": "169.254.1.1", "onlink": True}],
                },
            }
            for number, name in enumerate("ab", 1)
        },
    }


@pytest.mark.smoke
@needs("netkit", "netkit_room", "netkit_scrub")
def test_every_attribute_arrives_at_both_ends(node: Node) -> None:
    node.apply(FULL)
    for name, namespace, mode in (("nk-low", "low", "l2"), ("nk-high", "high", "l3")):
        for end, where, policy, kind in ((name, "", "forward", "primary"), ("eth0", namespace, "blackhole", "peer")):
            found = link(end, where)
            assert found["linkinfo"]["info_kind"] == "netkit"
            assert (found["mode"], found["type"], found["policy"]) == (mode, kind, policy)
            assert (found["scrub"], found["peer_scrub"]) == ("none", "none")
            assert found["mtu"] == 1450
            assert found["gso_max_size"] == found["gro_max_size"] == 196608
            assert found["gso_ipv4_max_size"] == found["gro_ipv4_max_size"] == 196608
            assert {"UP", "LOWER_UP"} <= set(found["flags"])
            assert sysfs(end, "mtu", where) == "1450"
            assert sysfs(end, "operstate", where) == "up"
        assert link(name)["ifalias"] == "nkform:worker-1"
    assert link("nk-low")["address"] == "02:00:00:00:00:01"
    assert link("eth0", "low")["address"] == "02:00:00:00:00:02"


@needs("netkit", "netkit_room", "netkit_scrub", "room_report")
def test_room_is_the_sum_of_what_other_devices_need(node: Node) -> None:
    ip("link", "add", "tunnel0", "type", "vxlan", "id", "7", "dstport", "4789", "local", "127.0.0.1")
    ip("link", "add", "tunnel1", "type", "vxlan", "id", "8", "dstport", "4789", "local", "127.0.0.1")

    def headroom(devices: str) -> int:
        node.apply(FULL.replace("headroom: 64", f"headroom: {{for: [{devices}]}}"))
        shown = yaml.safe_load(node.run("show").out)
        return int(shown["devices"]["nk-low"]["headroom"])

    assert 0 < headroom("tunnel0") == headroom("tunnel1")
    assert headroom("tunnel0, tunnel1") == 2 * headroom("tunnel0")


@needs("netkit", "netkit_room")
def test_headroom_that_a_bridge_raised_is_no_drift(node: Node) -> None:
    spec = veth("netkit")
    for device in spec["devices"].values():
        device.update(mode="l2", headroom=16)
    node.apply(spec)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "add", "tunnel0", "type", "vxlan", "id", "7", "dstport", "4789", "local", "127.0.0.1")
    ip("link", "set", "tunnel0", "master", "br0")
    ip("link", "set", "to-a", "master", "br0")
    assert node.changes() == []
    node.apply(spec["devices"]["to-a"].update(mtu=1400) or spec)
    ip("link", "set", "to-a", "nomaster")
    index = link("to-a")["ifindex"]
    assert node.changes() == []
    assert node.run("rollback", "-y").code == 0
    assert link("to-a")["ifindex"] == index


@needs("netkit", "netkit_room", "netkit_scrub")
def test_show_is_a_spec_that_plans_empty(node: Node) -> None:
    node.apply(FULL)
    shown = node.run("show")
    assert shown.code == 0
    assert node.changes(shown.out) == []


@pytest.mark.smoke
@pytest.mark.parametrize("kind", kinds())
def test_workloads_reach_each_other(node: Node, kind: str) -> None:
    node.apply(veth(kind))
    assert reaches("a", "10.0.0.2")
    assert reaches("b", "10.0.0.1")
    shown = node.run("show")
    assert node.changes(shown.out) == []


@pytest.mark.smoke
@needs("netkit")
def test_a_blackholed_workload_sends_nothing(node: Node) -> None:
    spec = veth("netkit")
    spec["devices"]["to-a"]["peer"]["policy"] = "blackhole"
    node.apply(spec)
    assert not pings("a", "10.0.0.2")
    spec["devices"]["to-a"]["peer"]["policy"] = "forward"
    assert [c["operation"] for c in node.changes(spec)] == ["update"]
    node.apply()
    assert reaches("a", "10.0.0.2")


LIVE = [
    ("mtu", 1400, "mtu", 1400),
    ("txqlen", 500, "txqlen", 500),
    ("gso_max_size", 100_000, "gso_max_size", 100_000),
    ("gso_max_segs", 100, "gso_max_segs", 100),
    ("gro_max_size", 100_000, "gro_max_size", 100_000),
]
TWINS = [
    ("gso_ipv4_max_size", 100_000, "gso_ipv4_max_size", 100_000),
    ("gro_ipv4_max_size", 100_000, "gro_ipv4_max_size", 100_000),
]


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize(
    ("attribute", "value", "reported", "expected"),
    [*LIVE, *(pytest.param(*row, marks=[needs("gso_ipv4"), needs_ip("6.3")]) for row in TWINS)],
    ids=str,
)
def test_sizes_change_in_place_at_both_ends(
    node: Node, kind: str, attribute: str, value: int, reported: str, expected: int
) -> None:
    """The link stays: same ifindex, carrier never lost."""
    spec = veth(kind)
    node.apply(spec)
    places = (("to-a", ""), ("eth0", "a"))
    before = [(link(*place)["ifindex"], sysfs(place[0], "carrier_changes", place[1])) for place in places]
    spec["devices"]["to-a"][attribute] = value
    (change,) = node.changes(spec)
    assert change["operation"] == "update"
    assert [action["type"] for action in node.plan(spec, "--json").json()["actions"]] == ["SetLink", "SetLink"]
    node.apply()
    assert [link(*place)[reported] for place in places] == [expected, expected]
    assert [(link(*place)["ifindex"], sysfs(place[0], "carrier_changes", place[1])) for place in places] == before


FLAGS = [row for row in ATTRIBUTES if isinstance(row.kept, Flag) and row.name != "up"]


def has(row: Attribute, end: str, namespace: str = "") -> bool:
    """Whether a flag is set, as the kernel tells whoever asks."""
    assert isinstance(row.kept, Flag)
    return bool(int(sysfs(end, "flags", namespace), 16) & row.kept.bit)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("row", FLAGS, ids=[row.name for row in FLAGS])
def test_a_flag_is_of_one_end_and_changes_in_place(node: Node, kind: str, row: Attribute) -> None:
    spec = veth(kind)
    device = spec["devices"]["to-a"]
    node.apply(spec)
    index = link("to-a")["ifindex"]
    assert node.plan(spec).out.count(row.name) == 0
    device["peer"][row.name] = True
    assert [action["type"] for action in node.plan(spec, "--json").json()["actions"]] == ["SetLink"]
    node.apply(spec)
    assert (has(row, "to-a"), has(row, "eth0", "a"), link("to-a")["ifindex"]) == (False, True, index)
    shown = node.run("show").out
    assert yaml.safe_load(shown)["devices"]["to-a"]["peer"][row.name] is True
    assert row.name not in yaml.safe_load(shown)["devices"]["to-a"]
    assert node.changes(shown) == []
    assert reaches("a", "10.0.0.2")
    assert node.run("rollback", "-y").code == 0
    assert not has(row, "eth0", "a")


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("row", FLAGS, ids=[row.name for row in FLAGS])
def test_a_new_pair_has_its_flags_and_drift_from_them_is_seen(node: Node, kind: str, row: Attribute) -> None:
    spec = veth(kind)
    device = spec["devices"]["to-a"]
    device[row.name] = device["peer"][row.name] = True
    node.apply(spec)
    assert (has(row, "to-a"), has(row, "eth0", "a")) == (True, True)
    assert (link("to-a")["operstate"], node.changes()) == ("UP", [])
    ip("link", "set", "to-a", row.name, "off")
    assert [field["path"] for change in node.changes() for field in change["fields"]] == [[row.name]]
    node.apply()
    assert has(row, "to-a")


def test_a_flag_that_others_hold_is_not_the_devices_own(node: Node) -> None:
    """A bridge has its ports take all packets, and so does whoever listens to a device."""
    spec = veth()
    spec["devices"]["to-a"].update(promisc=False, allmulticast=False)
    node.apply(spec)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "to-a", "master", "br0")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as listening:
        for what in (PACKET_MR_PROMISC, PACKET_MR_ALLMULTI):
            wish = struct.pack("iHH8s", link("to-a")["ifindex"], what, 0, b"")
            listening.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, wish)
        assert link("to-a")["promiscuity"] == 2
        assert node.changes() == []
        spec["devices"]["to-a"]["promisc"] = True
        node.apply(spec)
        assert link("to-a")["promiscuity"] == 3
    assert node.run("rollback", "-y").code == 0
    assert link("to-a")["promiscuity"] == 1


def netkit_spec(mode: str) -> dict[str, Any]:
    spec = veth("netkit")
    for device in spec["devices"].values():
        device["mode"] = mode
    return spec


@pytest.mark.parametrize("queues", ["numtxqueues", pytest.param("numrxqueues", marks=needs("numrxqueues"))])
def test_a_veth_pair_has_the_queues_that_it_is_given_or_one(node: Node, queues: str) -> None:
    def reported() -> list[int]:
        key = {"numtxqueues": "num_tx_queues", "numrxqueues": "num_rx_queues"}[queues]
        return [link("to-a")[key], link("eth0", "a")[key]]

    spec = veth()
    device = spec["devices"]["to-a"]
    node.apply(spec)
    assert reported() == [1, 1]
    device[queues] = 4
    device["peer"][queues] = 2
    (change,) = node.changes(spec)
    assert change["operation"] == "replace"
    node.apply()
    assert reported() == [4, 2]
    shown = node.run("show")
    assert node.changes(shown.out) == []
    del device[queues], device["peer"][queues]
    assert node.changes(spec) == []  # what the spec does not say stays as it is


@needs("netkit")
@pytest.mark.parametrize("end", ["primary", "peer"])
def test_a_policy_changes_in_place(node: Node, end: str) -> None:
    spec = netkit_spec("l3")
    node.apply(spec)
    index = link("to-a")["ifindex"]
    device = spec["devices"]["to-a"]
    (device if end == "primary" else device["peer"])["policy"] = "blackhole"
    (change,) = node.changes(spec)
    assert change["operation"] == "update"
    node.apply()
    assert link("to-a")["policy" if end == "primary" else "peer_policy"] == "blackhole"
    assert link("to-a")["ifindex"] == index


REPLACED = [
    pytest.param({"mode": "l2"}, "mode", "l2"),
    pytest.param({"scrub": "none"}, "scrub", "none", marks=needs("netkit_scrub")),
    pytest.param({"peer": {"scrub": "none"}}, "peer_scrub", "none", marks=needs("netkit_scrub")),
    pytest.param({"headroom": 64}, None, None, marks=needs("netkit_room")),
    pytest.param({"tailroom": 32}, None, None, marks=needs("netkit_room")),
]


@needs("netkit")
@pytest.mark.parametrize(("changed", "reported", "expected"), REPLACED)
def test_what_a_live_netkit_cannot_change_replaces_it(
    node: Node, changed: dict[str, Any], reported: str | None, expected: str | None
) -> None:
    spec = netkit_spec("l3")
    node.apply(spec)
    spec = copy.deepcopy(spec)
    device = spec["devices"]["to-a"]
    device.update({key: value for key, value in changed.items() if key != "peer"})
    device["peer"].update(changed.get("peer", {}))
    (change,) = node.changes(spec)
    assert change["operation"] == "replace"
    assert [field["forces_replacement"] for field in change["fields"]] == [True]
    text = node.plan(spec).out
    assert "-/+ device to-a" in text
    assert "# forces replacement" in text
    node.apply()
    if reported:
        assert link("to-a")[reported] == expected
    assert reaches("a", "10.0.0.2")


@pytest.mark.parametrize("kind", kinds())
def test_macs_change_in_place(node: Node, kind: str) -> None:
    if kind == "netkit" and "netkit_mac" not in _features():
        pytest.skip("this kernel has no MAC addresses on netkit (Linux 6.10)")
    spec = veth(kind)
    device = spec["devices"]["to-a"]
    if kind == "netkit":
        device["mode"] = "l2"
    node.apply(spec)
    device["mac"], device["peer"]["mac"] = "02:00:00:00:0a:01", "02:00:00:00:0a:02"
    assert [c["operation"] for c in node.changes(spec)] == ["update"]
    node.apply()
    assert (link("to-a")["address"], link("eth0", "a")["address"]) == ("02:00:00:00:0a:01", "02:00:00:00:0a:02")
    assert reaches("a", "10.0.0.2")


def _features() -> frozenset[str]:
    from tests.live.helpers.support import features

    return features()


@pytest.mark.parametrize("kind", kinds())
def test_an_end_goes_down_and_up_with_its_addresses_and_routes(node: Node, kind: str) -> None:
    spec = veth(kind)
    device = spec["devices"]["to-a"]
    device["addresses"].append("fd00::1/64")
    device["peer"]["addresses"].append("fd00::2/64")
    node.apply(spec)
    device["peer"]["up"] = False
    node.apply(spec)
    assert "UP" not in link("eth0", "a")["flags"]
    device["peer"]["up"] = True
    node.apply(spec)
    assert reaches("a", "10.0.0.2")
    assert reaches("a", "fd00::1")


@pytest.mark.parametrize("kind", kinds())
def test_a_peer_is_renamed_and_moved(node: Node, kind: str) -> None:
    spec = veth(kind)
    node.apply(spec)
    peer = spec["devices"]["to-a"]["peer"]
    peer["name"] = "net0"
    assert [c["operation"] for c in node.changes(spec)] == ["update"]
    node.apply(spec)
    assert reaches("a", "10.0.0.2")
    peer.update(namespace="b", routes=[])
    assert [c["operation"] for c in node.changes(spec)] == ["update"]
    node.apply(spec)
    assert link("net0", "b")["mtu"] == 1500


@pytest.mark.parametrize("kind", kinds())
def test_two_peers_swap_their_names(node: Node, kind: str) -> None:
    spec = veth(kind)
    for number, device in enumerate(spec["devices"].values()):
        device["peer"].update(namespace="a", name=f"net{number}", routes=[])
    node.apply(spec)
    first, second = spec["devices"].values()
    first["peer"]["name"], second["peer"]["name"] = "net1", "net0"
    node.apply(spec)
    assert link("net0", "a")["mtu"] == 1500


def test_namespaces_by_pid_and_by_path(node: Node) -> None:
    ip("netns", "add", "elsewhere")
    spec = veth()
    spec["devices"]["to-a"]["peer"]["namespace"] = {"path": "/run/netns/elsewhere"}
    node.apply(spec)
    assert link("eth0", "elsewhere")["mtu"] == 1500


def test_an_address_of_a_subnet_goes_and_the_others_stay(node: Node) -> None:
    spec = veth()
    device = spec["devices"]["to-a"]
    device["addresses"] = ["10.9.0.1/24", "10.9.0.2/24", "10.9.0.3/24"]
    node.apply(spec)
    ip("addr", "add", "10.9.0.77/24", "dev", "to-a")
    device["addresses"] = ["10.9.0.2/24", "10.9.0.3/24"]
    node.apply(spec)
    shown = ip("-o", "addr", "show", "dev", "to-a")
    assert "10.9.0.1/24" not in shown
    assert all(f"10.9.0.{number}/24" in shown for number in (2, 3, 77))


def test_routes_change_in_place(node: Node) -> None:
    spec = veth()
    device = spec["devices"]["to-a"]
    device["routes"] = [
        {"to": "192.0.2.0/24"},
        {"to": "198.51.100.0/24", "metric": 7, "table": 100},
        {"to": "fd00::/64"},
    ]
    node.apply(spec)
    device["routes"] = [{"to": "192.0.2.0/24", "mtu": 1400}, {"to": "fd00::/64", "mtu": 1400}]
    node.apply(spec)
    assert "mtu 1400" in ip("route", "show", "192.0.2.0/24")
    assert "mtu 1400" in ip("-6", "route", "show", "fd00::/64")
    assert "198.51.100" not in ip("route", "show", "table", "all")


def test_a_device_name_may_hold_dots(node: Node) -> None:
    spec = veth()
    spec["devices"]["to.a"] = spec["devices"].pop("to-a")
    node.apply(spec)
    assert link("to.a")["mtu"] == 1500
    assert reaches("a", "10.0.0.2")


@pytest.mark.smoke
def test_destroy_removes_what_is_ours(node: Node) -> None:
    node.apply(veth())
    out = node.destroy().out
    assert "4 destroyed" in out
    assert sh("ip", "-br", "link").split()[0] == "lo"
    assert ip("netns").strip() == ""


def test_a_peer_takes_elsewhere_the_name_that_another_one_has_here(node: Node) -> None:
    def pair(name: str, **peer: str) -> dict[str, Any]:
        return {"kind": "veth", "peer": {"name": name, **peer}}

    spec = {"version": 1, "node": "w", "namespaces": {"a": {"create": True}}}
    node.apply({**spec, "devices": {"p0": pair("eth0"), "p1": pair("net0")}})
    node.apply({**spec, "devices": {"p0": pair("net0", namespace="a"), "p1": pair("eth0", namespace="a")}})
    assert link("net0", "a")["link_index"] == link("p0")["ifindex"]
