"""Neighbours that others made outlive a link's new hardware address: at the link, and at what stands upon it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.helpers.fault_injection import injected
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds
from tests.live.test_confirm import Apply
from tests.live.test_confirm import guardians as alive
from tests.live.test_foreign_state import virtual
from tests.live.test_pairs import veth

Spec = dict[str, Any]
MAC = "02:00:00:00:aa:01"


def neighbours(device: str, namespace: str = "") -> list[tuple[str, str, str]]:
    found = json.loads(ip("-j", "neigh", "show", "nud", "permanent", "dev", device, namespace=namespace))
    return sorted((device, each["dst"], each["lladdr"]) for each in found)


def neighbour(device: str, namespace: str = "") -> None:
    """Two that somebody made."""
    for address in ("192.0.2.9", "2001:db8::9"):
        ip("neigh", "add", address, "lladdr", "02:00:00:00:00:09", "dev", device, namespace=namespace)


def bridge(port: str, namespace: str = "") -> None:
    """With the hardware address of its only port."""
    ip("link", "add", "br0", "type", "bridge", namespace=namespace)
    ip("link", "set", port, "master", "br0", namespace=namespace)
    ip("link", "set", "br0", "addrgenmode", "none", "up", namespace=namespace)


def mac(made: Spec) -> None:
    made["devices"]["to-a"]["mac"] = MAC


def mac_of_peer(made: Spec) -> None:
    made["devices"]["to-a"]["peer"]["mac"] = MAC


def anew(made: Spec) -> None:
    device = made["devices"]["to-a"]
    device |= {"scrub": "none"} if device["kind"] == "netkit" else {"numtxqueues": 2}


def without(made: Spec) -> None:
    del made["devices"]["to-a"]


def moved(made: Spec) -> None:
    made["devices"]["to-a"]["peer"] |= {"namespace": "b", "name": "net0", "routes": []}


def at_the_end() -> tuple[str, str]:
    return "to-a", ""


def at_the_peer() -> tuple[str, str]:
    return "eth0", "a"


def upon_the_end() -> tuple[str, str]:
    virtual("to-a", "above", 7)
    ip("link", "set", "above", "addrgenmode", "none", "up")
    return "above", ""


def at_a_bridge() -> tuple[str, str]:
    bridge("to-a")
    return "br0", ""


def upon_a_bridge() -> tuple[str, str]:
    bridge("to-a")
    virtual("br0", "above", 7)
    ip("link", "set", "above", "addrgenmode", "none", "up")
    return "above", ""


def at_a_bridge_of_the_peer() -> tuple[str, str]:
    bridge("eth0", "a")
    return "br0", "a"


CASES = [
    (mac, at_the_end),
    (mac_of_peer, at_the_peer),
    (mac, upon_the_end),
    *((way, place) for way in (mac, anew, without) for place in (at_a_bridge, upon_a_bridge)),
    *((way, at_a_bridge_of_the_peer) for way in (mac_of_peer, anew, without, moved)),
]


@pytest.mark.parametrize(("way", "place"), CASES)
@pytest.mark.parametrize("kind", kinds())
def test_neighbours_of_others_stay(
    node: Node, kind: str, way: Callable[[Spec], None], place: Callable[[], tuple[str, str]]
) -> None:
    """With a run, after one that fails, and on the way back."""
    made = veth(kind)
    made["namespaces"]["a"] = {}
    if kind == "netkit":
        made["devices"]["to-a"]["mode"] = "l2"
    ip("netns", "add", "a")
    node.apply(made)
    device, namespace = place()
    neighbour(device, namespace)
    before = neighbours(device, namespace)
    assert len(before) == 2
    way(made)
    node.write(made)
    with injected("rename journal") as injection:
        assert node.run("apply", "-y", str(node.path)).code == 1
    assert injection.hit
    assert neighbours(device, namespace) == before
    assert "NK0521" not in node.apply().err
    assert neighbours(device, namespace) == before
    for _ in range(2):
        assert node.run("rollback", "-y").code == 0
        assert neighbours(device, namespace) == before


def test_neighbours_of_others_stay_with_a_trial_that_nobody_confirms(node: Node) -> None:
    made = veth()
    node.apply(made)
    neighbour("to-a")
    before = neighbours("to-a")
    mac(made)
    run = Apply(node, made, 2)
    run.hears("confirm")
    assert neighbours("to-a") == before
    run.ended()
    until(lambda: not alive())
    assert neighbours("to-a") == before


def test_a_neighbour_that_its_owner_removed_stays_away(node: Node) -> None:
    made = veth()
    node.apply(made)
    neighbour("to-a")
    mac(made)
    node.apply(made)
    ip("neigh", "del", "192.0.2.9", "dev", "to-a")
    left = neighbours("to-a")
    assert node.run("rollback", "-y").code == 0
    assert neighbours("to-a") == left
