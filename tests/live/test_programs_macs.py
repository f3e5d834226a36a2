"""A program that answers with its device's MAC address knows the one that the device has, whoever chose it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.live.helpers.support import Node, ip, link, needs

NODE = "w"
ARP = {"template": "arp_responder", "params": {"addresses": ["169.254.1.1"]}}
CHANGED = "02:00:00:00:00:99"


def pair(kind: str = "veth", **more: Any) -> dict[str, Any]:
    """A pair in the host's namespace that answers for a gateway, without a word of its MAC address."""
    own = {"kind": kind, **({"mode": "l2"} if kind == "netkit" else {})}
    device = {**own, "peer": {"name": "p0"}, "programs": {"peer": ["arp"]}, **more}
    return {"version": 1, "node": NODE, "programs": {"arp": ARP}, "devices": {"x": device}}


def outside() -> dict[str, Any]:
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    device = {"kind": "external", "programs": {"ingress": ["arp"]}}
    return {"version": 1, "node": NODE, "programs": {"arp": ARP}, "devices": {"v9": device}}


KINDS = ["veth", pytest.param("netkit", marks=needs("netkit", "netkit_mac"))]


@pytest.mark.parametrize("kind", KINDS)
def test_what_show_prints_plans_no_change(node: Node, kind: str) -> None:
    node.apply(pair(kind))
    shown = node.run("show", "--node", NODE)
    assert link("x")["address"] in shown.out
    assert node.changes(shown.out) == []


@pytest.mark.parametrize("kind", KINDS)
def test_another_mac_address_is_drift_of_the_program(node: Node, kind: str) -> None:
    node.apply(pair(kind))
    ip("link", "set", "x", "address", CHANGED)
    (change,) = node.changes()
    assert [field["path"] for field in change["fields"]] == [["programs", "peer", "arp"]]
    node.apply()
    assert link("x")["address"] == CHANGED
    assert explained() == {"mac": CHANGED}


def test_so_it_is_on_a_device_of_others(node: Node) -> None:
    node.apply(outside())
    assert node.changes(node.run("show", "--node", NODE).out) == []
    ip("link", "set", "v9", "address", CHANGED)
    (change,) = node.changes()
    assert [field["path"] for field in change["fields"]] == [["programs", "ingress", "arp"]]
    node.apply()
    assert explained() == {"mac": CHANGED}


def test_a_pair_that_is_made_anew_keeps_its_mac_address_and_its_program(node: Node) -> None:
    node.apply(pair())
    before, digest = link("x")["address"], programs()[0]["digest"]
    node.apply(pair(numtxqueues=2))
    assert link("x")["address"] == before
    assert programs()[0]["digest"] == digest


def programs() -> list[dict[str, Any]]:
    """What is on record of the programs that are attached."""
    found: list[dict[str, Any]] = json.loads(Path(f"/run/nkform/{NODE}/programs.json").read_text())
    return found


def explained() -> dict[str, Any]:
    (one,) = programs()
    facts: dict[str, Any] = one["facts"]
    return facts
