"""Values that follow from other devices: `{for: [tunnel0]}`."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.live.helpers.support import Node, ip, link, needs, reaches, sh

TUNNEL = ("type", "vxlan", "id", "7", "dstport", "4789")


def spec(*devices: str) -> dict[str, Any]:
    """A workload whose packets go on through the last of some devices."""
    return {
        "version": 1,
        "node": "w",
        "namespaces": {"a": {"create": True}},
        "devices": {
            "to-a": {
                "kind": "veth",
                "mtu": {"for": list(devices)},
                "addresses": ["169.254.1.1/32"],
                "routes": [{"to": "10.1.0.2/32"}],
                "sysctl": {"ipv4": {"forwarding": 1, "rp_filter": 0}},
                "peer": {
                    "name": "eth0",
                    "namespace": "a",
                    "addresses": ["10.1.0.2/32"],
                    "routes": [{"to": "default", "via": "169.254.1.1", "onlink": True}],
                },
            }
        },
    }


@pytest.fixture
def far(node: Node) -> str:
    """A namespace at the other end of `uplink0`, and of a tunnel through that, `tunnel0`, which has 10.9.0.2."""
    ip("netns", "add", "far")
    ip("link", "add", "uplink0", "type", "veth", "peer", "name", "uplink1", "netns", "far")
    for number, name, namespace in ((1, "uplink0", ""), (2, "uplink1", "far")):
        other = 3 - number
        ip("addr", "add", f"192.0.2.{number}/24", "dev", name, namespace=namespace)
        ip("link", "set", name, "up", namespace=namespace)
        ip("link", "add", "tunnel0", *TUNNEL, "remote", f"192.0.2.{other}", "dev", name, namespace=namespace)
        ip("addr", "add", f"10.9.0.{number}/24", "dev", "tunnel0", namespace=namespace)
        ip("link", "set", "tunnel0", "up", namespace=namespace)
    ip("route", "add", "10.1.0.2/32", "via", "10.9.0.1", namespace="far")
    sh("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.tunnel0.rp_filter=0")
    sh("sysctl", "-qw", "net.ipv4.conf.tunnel0.forwarding=1", "net.ipv4.conf.uplink0.forwarding=1")
    return "far"


def fragments() -> int:
    """How many fragments the node has made of packets that were too large."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    return int(values[names.index("FragCreates")])


def arrives(size: int, address: str = "10.9.0.2") -> bool:
    """Whether a packet of so many bytes, which nobody may cut, gets from the workload to the other end and back."""
    words = ["ip", "netns", "exec", "a", "ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(size - 28), address]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


@pytest.mark.smoke
@needs("room_report")
@pytest.mark.parametrize(
    ("uplink", "own", "expected"),
    [
        pytest.param("1500", None, 1450, id="as the kernel made it"),
        pytest.param("1400", None, 1350, id="a carrier that got a smaller one"),
        pytest.param("1500", "1300", 1300, id="a smaller one of its own"),
    ],
)
def test_a_packet_of_the_mtu_is_the_largest_that_passes_a_tunnel_whole(
    node: Node, far: str, uplink: str, own: str | None, expected: int
) -> None:
    ip("link", "set", "uplink0", "mtu", uplink)
    if own:
        ip("link", "set", "tunnel0", "mtu", own)
    node.apply(spec("tunnel0"))
    assert [link(*end)["mtu"] for end in (("to-a",), ("eth0", "a"))] == [expected] * 2
    assert reaches("a", "10.9.0.2")
    before = fragments()
    assert arrives(expected)
    assert fragments() == before
    for end in (("to-a", ""), ("eth0", "a")):
        ip("link", "set", end[0], "mtu", str(expected + 1), namespace=end[1])
    assert not arrives(expected + 1) or fragments() > before


def test_the_smallest_counts_and_follows_the_devices(node: Node, far: str) -> None:
    node.apply(spec("uplink0", "tunnel0"))
    assert link("to-a")["mtu"] == 1450
    shown = node.run("show").out
    assert yaml.safe_load(shown)["devices"]["to-a"]["mtu"] == 1450
    assert node.changes(shown) == []
    ip("link", "set", "tunnel0", "mtu", "1300")
    (change,) = node.changes(spec("uplink0", "tunnel0"))
    assert [(field["before"], field["after"]) for field in change["fields"]] == [(1450, 1300)] * 2
    index = link("to-a")["ifindex"]
    node.apply()
    assert (link("to-a")["mtu"], link("eth0", "a")["mtu"], link("to-a")["ifindex"]) == (1300, 1300, index)
    assert node.run("rollback", "-y").code == 0
    assert link("to-a")["mtu"] == 1450


@pytest.mark.parametrize(("devices", "code"), [(["absent0"], "NK0404"), (["to-a"], "NK0315"), (["eth0"], "NK0404")])
def test_what_no_mtu_comes_of_is_refused(node: Node, devices: list[str], code: str) -> None:
    assert code in node.refused(spec(*devices))


LA: dict[str, Any] = {"kind": "veth", "peer": {"name": "pa"}}
"""The pair that others are computed from."""


def pairs(**devices: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "node": "w", "devices": devices}


def computed(*names: str) -> dict[str, Any]:
    return {"kind": "veth", "mtu": {"for": list(names)}, "peer": {"name": "pb"}}


@pytest.mark.parametrize(
    ("after", "mtu"),
    [
        pytest.param({"la": LA, "lb": computed("la")}, 1400, id="it stays as it is"),
        pytest.param({"la": {**LA, "numtxqueues": 2}, "lb": computed("la")}, 1500, id="it is made anew"),
        pytest.param({"la": {**LA, "numtxqueues": 2}, "lb": computed("pa")}, 1500, id="its peer, which is made anew"),
        pytest.param({"lc": LA, "lb": computed("pa")}, 1500, id="another pair gets its peer's name"),
        pytest.param({"la": {**LA, "peer": {"name": "pc"}}, "lb": computed("pc")}, 1400, id="its peer is renamed"),
        pytest.param(
            {"la": {**LA, "peer": {"name": "pc"}}, "lc": LA, "lb": computed("pa")}, 1500, id="another one has that name"
        ),
        pytest.param({"la": {**LA, "mtu": 1300}, "lb": computed("pa")}, 1300, id="it gets another MTU"),
    ],
)
def test_a_device_counts_as_the_plan_leaves_it(node: Node, after: dict[str, Any], mtu: int) -> None:
    node.apply(pairs(la={**LA, "mtu": 1400}))
    node.apply(pairs(**after))  # holds that the next plan is empty
    assert link("lb")["mtu"] == mtu


def test_a_device_that_goes_is_not_counted(node: Node) -> None:
    node.apply(pairs(la=LA, lb=computed("la")))
    assert "NK0404" in node.refused(pairs(lb=computed("la")))


def test_devices_that_are_new_count_at_once(node: Node) -> None:
    node.apply(pairs(la=LA, lb=computed("la", "pa")))
    assert link("lb")["mtu"] == 1500


@needs("netkit_room")
def test_a_new_netkit_needs_no_more_than_it_is_given(node: Node) -> None:
    """One that is made anew does not ask for what the old one asked for."""
    inner = {"kind": "netkit", "headroom": {"for": ["la"]}, "peer": {"name": "pb"}}
    outer = {"kind": "netkit", "peer": {"name": "pa"}}
    node.apply(pairs(la={**outer, "headroom": 40}, lb=inner))
    node.apply(pairs(la={**outer, "mode": "l2"}, lb=inner))
