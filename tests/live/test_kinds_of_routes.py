"""Routes of others that are no usual ones: local, broadcast, anycast, multicast."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip
from tests.live.test_foreign_state import Spec, deleted, down, readdressed, spec
from tests.live.test_undo import struck

OTHERS = {
    "local": "route add local 198.51.100.0/24 dev to-a",
    "broadcast": "route add broadcast 198.51.100.255 dev to-a",
    "multicast": "route add multicast 239.0.0.0/8 dev to-a",
    "source": "route add local 198.51.100.0/24 dev to-a src 10.7.0.1",
    "local ipv6": "-6 route add local 2001:db8:1::/48 dev to-a",
    "anycast ipv6": "-6 route add anycast 2001:db8:1::1 dev to-a",
    "multicast ipv6": "-6 route add multicast ff05::/16 dev to-a",
}


def made_anew(made: Spec) -> None:
    made["devices"]["to-a"]["numtxqueues"] = 2


@pytest.mark.parametrize("way", [down, deleted, readdressed, made_anew])
@pytest.mark.parametrize("name", OTHERS)
def test_going_back_gives_others_routes_of_any_kind(node: Node, name: str, way: Callable[[Spec], None]) -> None:
    changed = spec()
    node.apply(changed)
    ip(*OTHERS[name].split())
    before = netstate_snapshot()
    way(changed)
    struck(node, changed, "rename journal")
    outcome = node.run("apply", "-y", str(node.path))
    assert outcome.code == 0, outcome.err
    assert "NK0426" not in outcome.err
    outcome = node.run("rollback", "-y")
    assert (outcome.code, outcome.err) == (0, "")
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize("name", OTHERS)
def test_a_pair_that_is_made_anew_keeps_routes_of_any_kind(node: Node, name: str) -> None:
    changed = spec()
    node.apply(changed)
    ip(*OTHERS[name].split())
    before = netstate_snapshot()["root: routes"]
    made_anew(changed)
    node.apply(changed)
    assert netstate_snapshot()["root: routes"] == before


FAR_ENDS = {
    "2001:db8::1 peer 2001:db8::2": "2001:db8::2",
    "2001:db8::1 peer 2001:db8:3::2/64": "2001:db8:3::2",
}


def far_end(address: str) -> str:
    return ip("-6", "route", "show", FAR_ENDS[address], "dev", "to-a", "proto", "kernel")


@pytest.mark.parametrize("way", [down, deleted, made_anew])
@pytest.mark.parametrize("address", FAR_ENDS)
def test_the_far_end_of_an_address_of_others_is_reached_again(
    node: Node, address: str, way: Callable[[Spec], None]
) -> None:
    """The kernel makes no route there for an address that its link gets while it is down."""
    changed = spec()
    node.apply(changed)
    ip("-6", "addr", "add", *address.split(), "dev", "to-a", "nodad")
    until(lambda: far_end(address))  # the kernel makes it with the address, but a moment later
    ip("-6", "route", "add", "2001:db8:9::/48", "via", FAR_ENDS[address], "dev", "to-a")
    before, reached = netstate_snapshot(), far_end(address)
    assert reached
    way(changed)
    struck(node, changed, "rename journal")
    assert far_end(address) == reached
    node.apply(changed)
    outcome = node.run("rollback", "-y")
    assert (outcome.code, outcome.err) == (0, "")
    assert differences(before, netstate_snapshot()) == []
    assert far_end(address) == reached
