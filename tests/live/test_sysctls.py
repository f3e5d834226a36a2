"""Sysctls and routes whose values the kernel changes by itself, or that contradict what else a spec says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.fault_injection import injected
from tests.live.helpers.support import Node, ip, kinds, link, links, pings, sh
from tests.live.helpers.witness import IP
from tests.live.test_shared_routes import spec

Spec = dict[str, Any]


def value(key: str, name: str, namespace: str = "") -> str:
    """A sysctl as a file."""
    path = f"/proc/sys/net/{key.replace('.', '/conf/' + name + '/')}"
    words = [IP, "netns", "exec", namespace] if namespace else []
    return sh(*words, "cat", path).strip()


@pytest.mark.parametrize("kind", kinds())
def test_the_mtu_of_ipv6_holds(node: Node, kind: str) -> None:
    made = spec("8", kind)
    device = made["devices"]["v0"]
    device["sysctl"] = device["peer"]["sysctl"] = {"ipv6": {"mtu": 1400}}

    def holds() -> None:
        sh("sleep", "0.2")
        assert value("ipv6.mtu", "v0") == "1400"
        assert value("ipv6.mtu", "eth0", "web") == "1400"
        assert node.changes() == []

    node.apply(made)
    holds()
    device["mtu"] = 1450
    node.apply(made)
    holds()
    ip("link", "set", "eth0", "down", namespace="web")
    node.apply(made)
    holds()
    ip("link", "set", "v0", "down")
    node.apply(made)
    holds()
    device["mtu"] = 1399
    assert "NK0455" in node.refused(made)


def test_a_sysctl_that_cannot_be_set_is_named(node: Node) -> None:
    made = spec("8")
    made["devices"]["v0"]["sysctl"] = {"ipv4": {"mc_forwarding": 1}}
    assert "NK0406" in node.refused(made)


@pytest.mark.parametrize("kind", kinds())
def test_the_smallest_size_of_segments_is_taken(node: Node, kind: str) -> None:
    made = spec("8", kind)
    made["devices"]["v0"] |= {"gso_max_size": 512, "gso_ipv4_max_size": 512}
    assert node.refused(made).count("NK0204") == 2
    made["devices"]["v0"] |= {"gso_max_size": 513, "gso_ipv4_max_size": 513}
    node.apply(made)


def test_a_secret_that_was_never_set_is_set(node: Node) -> None:
    made = spec("8")
    node.apply(made)
    made["devices"]["v0"]["sysctl"] = {"ipv6": {"stable_secret": "fd00::1"}}
    node.apply(made)
    assert value("ipv6.stable_secret", "v0") == "fd00:0000:0000:0000:0000:0000:0000:0001"
    assert value("ipv6.addr_gen_mode", "v0") == "2"  # the kernel does so, and the plan says so
    assert node.run("rollback", "-y").code == 0
    assert value("ipv6.addr_gen_mode", "v0") == "0"


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_a_secret_and_a_way_to_make_addresses(node: Node, mode: int) -> None:
    """For a new pair and for one that is there, and with another secret; the kernel changes the one with the other."""
    made = spec("8")
    six = {"addr_gen_mode": mode, "stable_secret": "fd00::1"}
    made["devices"]["v0"]["sysctl"] = {"ipv6": six}
    node.apply(made)
    six["stable_secret"] = "fd00::2"
    assert "addr_gen_mode" not in node.plan(made).out
    node.apply(made)
    node.destroy()
    del made["devices"]["v0"]["sysctl"]
    node.apply(made)
    made["devices"]["v0"]["sysctl"] = {"ipv6": six}
    node.apply(made)
    assert value("ipv6.addr_gen_mode", "v0") == str(mode)


def test_a_run_that_set_a_secret_is_undone(node: Node) -> None:
    """A secret cannot be unset; what the kernel did by it can be undone."""
    made = spec("8")
    node.apply(made)
    made["devices"]["v0"]["sysctl"] = {"ipv6": {"stable_secret": "fd00::1"}}
    made["devices"]["v0"]["addresses"].append("fd77::1/64")
    node.write(made)
    with injected("add address fd77::1/64 to v0"):
        outcome = node.run("apply", "-y", str(node.path))
    assert "NK0505" in outcome.err
    assert value("ipv6.addr_gen_mode", "v0") == "0"


def test_addresses_of_a_secret_need_one(node: Node) -> None:
    made = spec("8")
    made["devices"]["v0"]["sysctl"] = {"ipv6": {"addr_gen_mode": 2}}
    assert "NK0461" in node.refused(made)


@pytest.mark.parametrize(
    ("family", "name", "value"), [("ipv6", "hop_limit", 0), ("ipv6", "mldv1_unsolicited_report_interval", 1001)]
)
def test_a_value_that_a_sysctl_cannot_have_is_named(node: Node, family: str, name: str, value: int) -> None:
    """The kernel refuses the one, and rounds the other."""
    made = spec("8")
    made["devices"]["v0"]["sysctl"] = {family: {name: value}}
    assert "NK0408" in node.refused(made)


@pytest.mark.parametrize("what", ["addresses", "routes"])
def test_ipv6_that_is_switched_off_has_no_addresses_and_no_routes(node: Node, what: str) -> None:
    made = spec("8")
    made["devices"]["v0"]["sysctl"] = {"ipv6": {"disable_ipv6": 1}}
    other = "routes" if what == "addresses" else "addresses"
    made["devices"]["v0"][other] = [made["devices"]["v0"][other][0]]
    assert "NK0454" in node.refused(made)
    made["devices"]["v0"][what] = [made["devices"]["v0"][what][0]]
    node.apply(made)


@pytest.mark.parametrize("what", ["addresses", "routes"])
@pytest.mark.parametrize("where", ["", "web"])
@pytest.mark.parametrize("switch", ["default", "all", "link"])
def test_ipv6_that_somebody_switched_off_is_named(node: Node, switch: str, where: str, what: str) -> None:
    """A device that is to come gets what `default` says. Another device's part of the plan is carried out."""
    made = spec("8")
    made["namespaces"]["web"] = {}
    made["devices"]["v1"] = {"kind": "veth", "peer": {"name": "x"}}
    ip("netns", "add", "web")
    device = made["devices"]["v0"]["peer" if where else "kind"]
    end = device if where else made["devices"]["v0"]
    end[what] = [end[what][0]]  # of IPv4
    if what == "addresses":
        del end["routes"][1]["via"]
    if switch == "link":
        node.apply(made)
    name = end.get("name", "v0") if switch == "link" else switch
    ip_netns = ["ip", "netns", "exec", where] if where else []
    sh(*ip_netns, "sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1")
    error = node.refused(made)
    assert error.count("NK0454") == 1
    assert f"{end.get('name', 'v0')}" in error
    assert node.run("apply", "-y", "--keep-going", str(node.path)).code == 1
    assert "x" in links()
    end["sysctl"] = {"ipv6": {"disable_ipv6": 0}}
    node.apply(made)


def test_going_back_switches_ipv6_on_again(node: Node) -> None:
    node.apply(spec("8"))
    off = spec("8")
    for end in off["devices"]["v0"], off["devices"]["v0"]["peer"]:
        end["sysctl"] = {"ipv6": {"disable_ipv6": 1}}
        end["addresses"], end["routes"] = [end["addresses"][0]], [end["routes"][0]]
    node.apply(off)
    assert node.run("rollback", "-y").code == 0
    assert node.changes(spec("8")) == []


def test_the_largest_mtu_of_a_route_is_the_kernels(node: Node) -> None:
    made = spec("8")
    made["devices"]["v0"]["routes"][0]["mtu"] = 65535
    assert "65520" in node.refused(made)
    made["devices"]["v0"]["routes"][0]["mtu"] = 65520
    node.apply(made)


def forwarding() -> Spec:
    """Two workloads that reach each other through the node over IPv6."""
    devices = {
        f"to-{name}": {
            "kind": "veth",
            "addresses": ["fe80::1/64"],
            "routes": [{"to": f"fd00::{number}/128"}],
            "sysctl": {"ipv6": {"forwarding": 1}},
            "peer": {
                "name": "eth0",
                "namespace": name,
                "addresses": [f"fd00::{number}/128"],
                "routes": [{"to": "::/0", "via": "fe80::1"}],
            },
        }
        for number, name in enumerate("ab", 2)
    }
    return {
        "version": 1, "node": "w", "namespaces": {"a": {"create": True}, "b": {"create": True}}, "devices": devices,
    }  # fmt: skip


def test_forwarding_of_one_device_forwards(node: Node) -> None:
    outcome = node.apply(forwarding())
    if "NK0456" in outcome.err:
        pytest.skip("this kernel has no force_forwarding")
    assert value("ipv6.force_forwarding", "to-a") == "1"
    assert any(pings("a", "fd00::3") for _ in range(10))
    node.destroy()


@pytest.mark.parametrize("kind", kinds())
def test_going_back_to_what_forwards_is_whole(node: Node, kind: str) -> None:
    """Whether packets are forwarded anyway is known there, and was not asked where a spec forwards nothing."""
    made = spec("8", kind)
    device = made["devices"]["v0"]
    for forwarding in (1, 0):
        device["sysctl"] = device["peer"]["sysctl"] = {"ipv6": {"forwarding": forwarding}}
        node.apply(made)
    for forwarding in (1, 0, 1):
        outcome = node.run("rollback", "-y")
        assert outcome.code == 0, outcome.err
        assert value("ipv6.forwarding", "v0") == value("ipv6.forwarding", "eth0", "web") == str(forwarding)


@pytest.mark.parametrize("own", [None, 1400, 1500])
@pytest.mark.parametrize("kind", kinds())
def test_the_mtu_of_a_route_beside_one_of_ipv6(node: Node, kind: str, own: int | None) -> None:
    """The kernel keeps it up to the MTU of the link, wherever that comes from, whether the pair is new or not."""
    made = spec("8", kind)
    device = made["devices"]["v0"]
    device |= {"addresses": ["fd00::1/64"], **({"mtu": own} if own else {})}
    device["sysctl"] = {"ipv6": {"mtu": 1300}}
    largest = own or 1500
    device["routes"] = [{"to": "fd01::/64", "mtu": largest + 1}]
    assert "NK0455" in node.refused(made)
    device["routes"][0]["mtu"] = largest
    node.apply(made)
    device["routes"][0]["mtu"] = largest + 1
    assert "NK0455" in node.refused(made)
    device["sysctl"] = {"ipv6": {"hop_limit": 64}}
    node.apply(made)


@pytest.mark.parametrize("forced", [0, 1])
@pytest.mark.parametrize("kind", kinds())
def test_what_is_shown_of_forwarding_plans_empty(node: Node, kind: str, forced: int) -> None:
    """At both ends: forwarding that is not forced must not become so when what is shown is applied."""
    made = spec("8", kind)
    device = made["devices"]["v0"]
    device["sysctl"] = device["peer"]["sysctl"] = {"ipv6": {"forwarding": 1, "force_forwarding": forced}}
    node.write(made)
    outcome = node.run("apply", "-y", str(node.path))
    if "NK0406" in outcome.err:
        pytest.skip("this kernel has no force_forwarding")
    assert outcome.code == 0, outcome.err
    assert value("ipv6.force_forwarding", "v0") == value("ipv6.force_forwarding", "eth0", "web") == str(forced)
    assert node.changes(node.run("show").out) == []


@pytest.mark.parametrize("what", ["addresses", "routes"])
@pytest.mark.parametrize("where", ["", "web"])
def test_what_is_made_anew_gets_ipv6_as_new_links_do(node: Node, where: str, what: str) -> None:
    """And not as the old one has it, which somebody has set by hand."""
    made = spec("8")
    made["namespaces"]["web"] = {}
    made["devices"]["v1"] = {"kind": "veth", "peer": {"name": "x"}}
    ip("netns", "add", "web")
    end = made["devices"]["v0"]["peer"] if where else made["devices"]["v0"]
    end[what] = [end[what][0]]  # of IPv4
    if what == "addresses":
        del end["routes"][1]["via"]
    node.apply(made)
    ip_netns = ["ip", "netns", "exec", where] if where else []
    sh(*ip_netns, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    made["devices"]["v0"]["numtxqueues"] = 2
    made["devices"]["v1"]["mtu"] = 1400
    error = node.refused(made)
    assert error.count("NK0454") == 1
    assert f"{end.get('name', 'v0')}" in error
    assert node.run("apply", "-y", "--keep-going", str(node.path)).code == 1
    assert link("v1")["mtu"] == 1400
    sh(*ip_netns, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=0")
    sh(*ip_netns, "sysctl", "-qw", f"net.ipv6.conf.{end.get('name', 'v0')}.disable_ipv6=1")
    node.apply(made)
