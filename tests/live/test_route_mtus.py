"""A route keeps the MTU that it is declared with, whatever becomes of its device's."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from tests.live.helpers.fault_injection import injected
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, kinds

MTUS = (1400, 1500, 9000)


def spec(kind: str, mtu: int, mtus: tuple[int, ...], *, peer: bool) -> dict[str, Any]:
    routes = [{"to": f"fd09:{mtu:x}::/64", "via": "fd00::9", "mtu": mtu} for mtu in mtus]
    routes += [{"to": f"10.9.{mtu // 100}.0/24", "via": "10.0.0.9", "mtu": mtu} for mtu in mtus]
    end = {"addresses": ["fd00::1/64", "10.0.0.1/24"], "routes": [*routes, {"to": "fd09::/64", "via": "fd00::9"}]}
    other = {"name": "eth0", "namespace": "web", **(end if peer else {})}
    device = {"kind": kind, "mtu": mtu, "peer": other, **({} if peer else end)}
    return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": {"v0": device}}


@pytest.mark.parametrize("peer", [False, True], ids=["primary", "peer"])
@pytest.mark.parametrize("kind", kinds())
def test_a_route_keeps_its_mtu_when_that_of_its_device_changes(node: Node, kind: str, peer: bool) -> None:
    """The kernel gives IPv6 routes the new one that had the old one, or more than the new one."""
    for before, after in permutations(MTUS, 2):
        node.apply(spec(kind, before, MTUS, peer=peer))
        node.apply(spec(kind, after, MTUS, peer=peer))
        node.apply(spec(kind, before, tuple(reversed(MTUS)), peer=peer))
        node.destroy()


def test_a_change_of_an_mtu_that_is_undone_leaves_the_routes_as_they_were(node: Node) -> None:
    for before, after in permutations(MTUS, 2):
        node.apply(spec("veth", before, MTUS, peer=False))
        there = netstate_snapshot()
        node.write(spec("veth", after, MTUS, peer=False))
        with injected("rename journal") as injection:
            outcome = node.run("apply", "-y", str(node.path))
        assert injection.hit
        assert "NK0504" not in outcome.err
        assert differences(there, netstate_snapshot()) == []
        node.destroy()
