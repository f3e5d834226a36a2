"""Somebody changes the node by hand: `plan` and `status` tell that from a spec that was changed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from nkform.kernel import bpffs
from nkform.observe import record
from tests.live.helpers.chain_sites import CLSACT_INGRESS, NETKIT_PEER, TCX_INGRESS, Others, Site, lab_sites, sites
from tests.live.helpers.support import Node, ip, kinds, link, links, needs, sh
from tests.sizes import LAB

pytestmark = pytest.mark.usefixtures("made_once")

SITES = lab_sites() if LAB else (NETKIT_PEER, TCX_INGRESS, CLSACT_INGRESS)


def spec(kind: str = "veth", **device: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "node": "w",
        "namespaces": {"a": {"create": True}},
        "devices": {
            "to-a": {
                "kind": kind,
                "mtu": 1500,
                "addresses": ["10.1.0.1/32"],
                "routes": [{"to": "10.1.0.2/32"}],
                "sysctl": {"ipv4": {"arp_notify": 0}},
                "peer": {"name": "eth0", "namespace": "a", "addresses": ["10.1.0.2/32"]},
                **device,
            }
        },
    }


def drift(node: Node) -> list[str]:
    """What `status` says has drifted."""
    return [
        line.partition("drift: ")[2].partition(" since ")[0]
        for line in node.run("status", "--node", "w").out.splitlines()
        if "drift: " in line
    ]


def gone(name: str) -> None:
    """Waits for a device to go: the kernel takes a namespace down in its own time."""
    deadline = time.monotonic() + 60
    while name in links():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def noted(node: Node) -> dict[str, bool]:
    """The fields that a plan changes, and whether each is drift."""
    return {".".join(f["path"]): f["drift"] for change in node.changes() for f in change["fields"]}


BY_HAND = {
    "mtu": (("link", "set", "to-a", "mtu", "1400"), "mtu 1400 on the node, 1500 in the spec"),
    "address": (("addr", "del", "10.1.0.1/32", "dev", "to-a"), "addresses 10.1.0.1/32 not on the node, in the spec"),
    "route": (("route", "del", "10.1.0.2/32"), "routes 10.1.0.2/32 not on the node, in the spec"),
    "gone": (("link", "del", "to-a"), "not on the node, in the spec"),
    "mark": (("link", "set", "to-a", "alias", ""), "owner w not on the node, in the spec"),
}


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("name", BY_HAND)
def test_what_was_changed_by_hand_is_said(node: Node, kind: str, name: str) -> None:
    node.apply(spec(kind))
    assert drift(node) == []
    words, told = BY_HAND[name]
    ip(*words)
    assert told in drift(node)
    if name == "mark":
        assert node.plan().code == 1  # it is somebody else's device now
        return
    out = node.plan().out
    assert "# drift: " in out
    assert "drift: the node was changed, not the spec." in out
    assert all(f["drift"] for change in node.changes() for f in change["fields"])
    node.apply()
    assert drift(node) == []


def test_a_changed_spec_is_not_called_drift(node: Node) -> None:
    node.apply(spec())
    ip("link", "set", "to-a", "mtu", "1400")
    sh("sysctl", "-qw", "net.ipv4.conf.to-a.arp_notify=1")
    node.write(spec(mtu=1400, txqlen=7))
    assert noted(node) == {"txqlen": False, "peer.txqlen": False, "peer.mtu": False, "sysctl.ipv4.arp_notify": True}
    out = node.plan().out
    assert "~ sysctl.ipv4.arp_notify = 1 -> 0  # drift: 1 on the node, 0 in the spec since " in out
    assert out.endswith("1 of these differences is drift: the node was changed, not the spec.\n")


@pytest.mark.parametrize("kind", [pytest.param("netkit", marks=needs("netkit"))])
def test_a_policy_drifts(node: Node, kind: str) -> None:
    node.apply(spec(kind))
    ip("link", "set", "to-a", "type", "netkit", "blackhole")
    assert drift(node) == ["policy blackhole on the node, forward in the spec"]


def test_devices_and_namespaces_of_no_spec(node: Node) -> None:
    node.apply(spec())
    ip("link", "add", "hand", "type", "veth", "peer", "name", "made")
    ip("link", "set", "hand", "alias", "nkform:w")
    assert drift(node) == ["on the node, not in the spec"]
    assert [(c["name"], c["operation"], c["drift"]) for c in node.changes()] == [("hand", "destroy", True)]
    node.apply()
    ip("netns", "del", "a")
    gone("to-a")
    status = json.loads(node.run("status", "--node", "w", "--json").out)
    assert {(d["kind"], d["name"]) for d in status["drift"]} == {("namespace", "a"), ("device", "to-a")}


@pytest.mark.parametrize("site", sites(*SITES))
def test_chains_drift(node: Node, site: Site, others: Others) -> None:
    node.apply(site.spec({"position": "first", "chain": ["guard", "count"]}))
    if site.direction is None:
        bpffs.remove(next(pin for pin in bpffs.pins("w") if pin.entry.startswith("count")))
    else:
        sh("tc", *f"filter del dev x {site.direction.name.lower()} prio {site.one('count').place}".split())
    gone = f"programs.{site.hook}.count"
    assert any(line.startswith(gone) and line.endswith("not on the node, in the spec") for line in drift(node))
    assert noted(node) == {gone: True}
    node.apply()
    others.attach(site, "theirs", 0)
    assert drift(node) == [f"programs.{site.hook}.position elsewhere on the node, first in the spec"]


def test_the_record_follows_what_is_applied(node: Node) -> None:
    assert record.read("w") is None
    node.write(spec())
    assert node.run("apply", "-y", str(node.path)).code == 0
    first = record.read("w")
    assert first is not None
    node.apply()
    assert record.read("w") == first, "nothing was written anew"
    two = spec()
    two["devices"]["bee"] = {"kind": "veth", "peer": {"name": "b1"}}
    two["devices"]["to-a"]["mtu"] = 1400
    node.apply(two, "--target", "bee")
    after = record.read("w")
    assert after is not None
    assert after.node.devices["to-a"] == first.node.devices["to-a"]
    assert after.node.devices["bee"].kind == "veth"
    node.apply(two)
    last = record.read("w")
    assert last is not None
    assert last.since["device.to-a"]["mtu"] > last.since["device.to-a"][""] == first.when
    node.destroy()
    assert record.read("w") is None


def test_a_spec_that_only_forgets_goes_on_record_too(node: Node) -> None:
    """Nothing is to be done then; but the MTU is not the spec's any more, and no drift if somebody changes it."""
    node.apply(spec())
    less = spec()
    del less["devices"]["to-a"]["mtu"]
    assert node.apply(less).out.startswith("No changes.")
    ip("link", "set", "to-a", "mtu", "1400")
    assert drift(node) == []


def test_going_back_leaves_no_wrong_record(node: Node) -> None:
    node.apply(spec())
    node.apply(spec(mtu=1400))
    assert node.run("rollback", "-y").code == 0
    assert record.read("w") is None
    assert drift(node) == ["unknown, there is no record of the last apply here; `nkform apply` makes one"]


def test_a_key_that_the_spec_has_no_more_is_told_once(node: Node) -> None:
    more = spec()
    more["devices"]["to-a"] |= {"mtu": 1400, "txqlen": 1000, "sysctl": {"ipv4": {"rp_filter": 2}}}
    more["devices"]["to-a"]["peer"] |= {"txqlen": 7, "sysctl": {"ipv6": {"accept_ra": 0}}}
    node.apply(more)
    less = spec()
    less["devices"]["to-a"] = {key: value for key, value in more["devices"]["to-a"].items() if key != "mtu"}
    for key in ("txqlen", "sysctl"):
        del less["devices"]["to-a"][key]
        less["devices"]["to-a"]["peer"] = {k: v for k, v in less["devices"]["to-a"]["peer"].items() if k != key}
    planned = node.plan(less)
    assert "No changes" in planned.out
    assert planned.err.count("NK0431") == 4
    for key, value in (
        ("mtu", 1400),
        ("sysctl.ipv4.rp_filter", 2),
        ("peer.txqlen", 7),
        ("peer.sysctl.ipv6.accept_ra", 0),
    ):
        assert f"{key} is no longer in the spec: it stays as nkform set it ({value}) on to-a" in planned.err
    codes = [warning["code"] for warning in node.plan(None, "--json").json()["warnings"]]
    assert codes == ["NK0431"] * 4
    assert "NK0431" in node.apply(less).err
    assert link("to-a")["mtu"] == 1400
    assert "NK0431" not in node.plan().err
    assert "NK0431" not in node.plan(more).err


def test_without_a_record_nothing_is_called_drift(node: Node) -> None:
    node.apply(spec())
    record.forget("w")
    ip("link", "set", "to-a", "mtu", "1400")
    assert "no record of the last apply here" in node.run("status").out
    assert json.loads(node.run("status", "--json").out)["applied"] is None
    assert not any(noted(node).values())
