"""Routes of others that stand beside one another, with the same prefix and metric, keep their places."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, ip
from tests.live.test_foreign_state import Spec, deleted, down, outside, spec
from tests.live.test_undo import struck

__all__ = ["outside"]

THROUGH_OURS = "198.51.100.0/24 via 10.7.0.9 dev to-a proto bird"
THROUGH_ANOTHER = "198.51.100.0/24 dev uplink proto bird"
OTHERS = {
    "ours first": [f"route add {THROUGH_OURS}", f"route append {THROUGH_ANOTHER}"],
    "ours last": [f"route add {THROUGH_ANOTHER}", f"route append {THROUGH_OURS}"],
    "ipv6": [
        "-6 route add 2001:db8:1::/48 dev uplink metric 9 proto bird",
        "-6 route append 2001:db8:1::/48 dev to-a metric 9 proto bird",
    ],
    "ipv6 by source": [
        "-6 route add 2001:db8:1::/48 from 2001:db8:2::/48 dev uplink metric 9 proto bird",
        "-6 route add 2001:db8:1::/48 from 2001:db8:3::/48 dev to-a metric 9 proto bird",
    ],
}


@pytest.fixture
def run(node: Node, outside: None) -> Node:
    node.apply(spec())
    return node


def order() -> list[str]:
    """The routes that share a prefix, as the kernel would take them."""
    return [" ".join(line.split()) for line in ip("route", "show", "198.51.100.0/24").splitlines()]


@pytest.mark.parametrize("way", [down, deleted])
@pytest.mark.parametrize("name", OTHERS)
def test_a_route_comes_back_to_its_place_beside_another(run: Node, name: str, way: Callable[[Spec], None]) -> None:
    for line in OTHERS[name]:
        ip(*line.split())
    before, places = netstate_snapshot(), order()
    changed = spec()
    way(changed)
    struck(run, changed, "rename journal")
    assert order() == places
    run.apply(changed)
    outcome = run.run("rollback", "-y")
    assert (outcome.code, outcome.err) == (0, "")
    assert differences(before, netstate_snapshot()) == []
    assert order() == places


def test_a_route_beside_another_is_there_again_with_its_address(run: Node) -> None:
    """An address of ours that goes and comes takes those that name it as their source."""
    ip("route", "add", "198.51.100.0/24", "dev", "to-a", "src", "10.7.0.2")
    ip("route", "append", "198.51.100.0/24", "dev", "uplink")
    places = order()
    changed = spec()
    changed["devices"]["to-a"]["addresses"] = ["10.7.0.2/24", "10.7.0.1/24", "fd00:7::1/64"]
    run.apply(changed)
    assert order() == places
