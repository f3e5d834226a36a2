"""VLANs that others have upon our devices go down with these, and have all again when that is taken back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.helpers.attack import killed_after
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.netstate import Netstate, differences, netstate_snapshot
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, batch, ip, kinds, link
from tests.live.test_carried import made, neighbours
from tests.live.test_confirm import guardians as alive
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")

Spec = dict[str, Any]


def unconfirmed(node: Node) -> None:
    assert node.run("apply", "-y", "--confirm", "2s", "--detach", str(node.path)).code == 0
    until(lambda: not alive())


def regretted(node: Node) -> None:
    assert node.run("apply", "-y", str(node.path)).code == 0
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err


def killed(node: Node) -> None:
    killed_after(node, 1)
    outcome = node.run("recover", "-y")
    assert outcome.code == 0, outcome.err


def failing(node: Node) -> None:
    with injected("rename journal") as injection:
        outcome = node.run("apply", "-y", str(node.path))
    assert injection.hit
    assert "NK0505" in outcome.err, outcome.err


BACK = pytest.mark.parametrize("back", [unconfirmed, regretted, killed, failing])


def vlan(name: str, number: int, lower: str, namespace: str = "") -> None:
    """One that is up, with addresses, routes and a neighbour."""
    made(name, "type", "vlan", "id", str(number), lower=lower, namespace=namespace)
    ip("link", "set", name, "addrgenmode", "none", namespace=namespace)
    fill(name, number, namespace)


def fill(name: str, number: int, namespace: str = "") -> None:
    lines = (
        f"link set {name} up",
        f"addr add 10.8.{number}.1/24 dev {name}",
        f"addr add fd08:{number}::1/64 dev {name} nodad",
        f"route add 10.9.{number}.0/24 via 10.8.{number}.2 dev {name}",
        f"-6 route add fd09:{number}::/64 via fd08:{number}::2 dev {name}",
        f"neigh add 10.8.{number}.2 lladdr 02:00:00:00:00:09 dev {name} nud permanent",
        f"neigh add fd08:{number}::2 lladdr 02:00:00:00:00:09 dev {name} nud permanent",
    )
    batch(lines, namespace)
    assert len(neighbours(name, namespace)) == 2


def here() -> list[tuple[str, str]]:
    vlan("vlan5", 5, "to-a")
    return [("vlan5", "")]


def upon_another() -> list[tuple[str, str]]:
    vlan("vlan5", 5, "to-a")
    vlan("vlan6", 6, "vlan5")
    return [("vlan5", ""), ("vlan6", "")]


def elsewhere() -> list[tuple[str, str]]:
    """In another namespace than what it stands upon."""
    made("vlan5", "type", "vlan", "id", "5", lower="to-a")
    ip("link", "set", "vlan5", "netns", "b")
    ip("link", "set", "vlan5", "addrgenmode", "none", namespace="b")
    fill("vlan5", 5, "b")
    return [("vlan5", "b")]


def one_is_down() -> list[tuple[str, str]]:
    """The kernel raises that too, when it raises the device."""
    vlan("vlan5", 5, "to-a")
    made("vlan7", "type", "vlan", "id", "7", lower="to-a")
    return [("vlan5", ""), ("vlan7", "")]


def state(some: list[tuple[str, str]]) -> tuple[Netstate, list[list[str]]]:
    return netstate_snapshot(), [neighbours(*each) for each in some]


def same(before: tuple[Netstate, list[list[str]]], some: list[tuple[str, str]]) -> None:
    now = state(some)
    assert differences(before[0], now[0]) == []
    assert before[1] == now[1]


@BACK
@pytest.mark.parametrize("make", [here, upon_another, elsewhere, one_is_down])
@pytest.mark.parametrize("kind", kinds())
def test_what_stands_upon_a_device_has_all_again_when_that_is_up_again(
    node: Node, kind: str, make: Callable[[], list[tuple[str, str]]], back: Callable[[Node], None]
) -> None:
    changed = veth(kind)
    changed["devices"]["to-a"] |= {"mode": "l2"} if kind == "netkit" else {}
    node.apply(changed)
    some = make()
    before = state(some)
    changed = copy.deepcopy(changed)
    changed["devices"]["to-a"]["up"] = False
    node.write(changed)
    back(node)
    same(before, some)


@pytest.mark.parametrize("back", [killed, failing])
@pytest.mark.parametrize("kind", kinds())
def test_what_stands_upon_a_peer_has_all_again_when_that_is_back(
    node: Node, kind: str, back: Callable[[Node], None]
) -> None:
    """Once it has moved for good, nobody knows from there what stands upon it in the namespace that it left."""
    changed = veth(kind)
    changed["devices"]["to-a"] |= {"mode": "l2"} if kind == "netkit" else {}
    node.apply(changed)
    vlan("vlan5", 5, "eth0", "a")
    some = [("vlan5", "a")]
    before = state(some)
    changed = copy.deepcopy(changed)
    changed["devices"]["to-a"]["peer"] |= {"name": "net0", "namespace": "b", "routes": []}
    node.write(changed)
    back(node)
    same(before, some)


def test_what_is_lost_for_now_is_named(node: Node) -> None:
    changed = veth()
    node.apply(changed)
    vlan("vlan5", 5, "to-a")
    made("vlan7", "type", "vlan", "id", "7", lower="to-a")
    changed["devices"]["to-a"]["up"] = False
    said = node.apply(changed).err
    assert "warning[NK0521]" in said
    assert "route 10.9.5.0/24 via 10.8.5.2 through vlan5" in said
    assert "vlan7" not in said
    assert not link("vlan5")["flags"].count("UP")
