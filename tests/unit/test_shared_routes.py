"""Routes of one destination, table and metric: which one the kernel takes, and IPv6 routes that several ends share."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from nkform.dataclass import replace
from nkform.model import Device, Endpoint, Node, Route
from nkform.plan.actions import AddRoute, DeleteRoute, end_of
from nkform.plan.routes import additions, hops_behind, kernel_takes, removals, route_changes

FOUR = Route("10.0.0.0/8", "10.9.9.1")
SIX = Route("fd00::/64", "fe80::1", metric=1024)
HOP = Route("fd00::/64", "fe80::2", metric=1024, ours=False)
"""A next hop of a route that others share: the kernel does not tell whose it is."""


@pytest.mark.parametrize(
    ("asked", "other", "taken"),
    [
        (FOUR, FOUR, True),
        (FOUR, replace(FOUR, via="10.9.9.2"), False),
        (FOUR, replace(FOUR, mtu=1400), False),
        (FOUR, replace(FOUR, src="10.0.0.1"), True),
        (replace(FOUR, src="10.0.0.1"), FOUR, False),
        (replace(FOUR, src="10.0.0.1"), replace(FOUR, src="10.0.0.1"), True),
        (SIX, replace(SIX, mtu=1400), True),
        (SIX, replace(SIX, via="fe80::2"), False),
        (replace(SIX, via=None), SIX, True),
        (replace(SIX, message="00"), SIX, False),
        (SIX, replace(SIX, message="00"), False),
        (replace(SIX, via=None), replace(SIX, message="00"), True),
        (FOUR, replace(FOUR, message="00"), False),
    ],
)
def test_which_route_the_kernel_takes_for_another(asked: Route, other: Route, taken: bool) -> None:
    assert kernel_takes(asked, other) is taken


def device(name: str, *routes: Route) -> Device:
    return Device(name, "veth", {}, Endpoint(name, routes=routes), Endpoint(f"{name}p"))


def deleted(desired: Mapping[str, Device], *devices: Device) -> list[tuple[str, Route]]:
    live = Node("w", {}, {each.name: each for each in devices})
    actions = list(hops_behind(desired, live))
    assert all(isinstance(action, DeleteRoute) for action in actions)
    return [(action.end.device, action.route) for action in actions if isinstance(action, DeleteRoute)]


def test_a_next_hop_behind_one_of_ours_goes_unless_its_end_declares_it() -> None:
    first, second = device("v0", SIX), device("v1", HOP)
    assert deleted({}, first, second) == [("v1", HOP)]
    assert deleted({"v1": device("v1")}, first, second) == [("v1", HOP)]
    assert deleted({"v1": device("v1", replace(HOP, ours=True))}, first, second) == []
    assert deleted({"v1": device("v1", replace(HOP, via="fe80::3"))}, first, second) == [("v1", HOP)]
    assert deleted({"v1": Device("v1", "external", {}, Endpoint("v1"))}, first, second) == [("v1", HOP)]


def test_a_next_hop_of_others_alone_stays() -> None:
    assert deleted({}, device("v0"), device("v1", HOP)) == []
    assert deleted({}, device("v0", FOUR), device("v1")) == []


def test_the_last_next_hop_goes_first() -> None:
    """So that the first one is again the first if all is undone."""
    others = [replace(HOP, via=f"fe80::{n}") for n in (2, 3, 4)]
    assert deleted({}, device("v0", SIX), device("v1", *others)) == [("v1", each) for each in reversed(others)]


def test_a_declared_next_hop_counts_as_there_unless_it_is_behind_one_of_ours() -> None:
    """Behind one of ours, whose it is cannot be known."""
    wanted = replace(HOP, ours=True)
    assert route_changes(Endpoint("v0", routes=(wanted,)), Endpoint("v0", routes=(HOP,))) == []
    assert route_changes(Endpoint("v0", routes=(SIX, wanted)), Endpoint("v0", routes=(SIX, HOP))) == [(None, wanted)]


def test_a_new_gateway_of_a_shared_route_replaces_the_hop_that_is_not_declared() -> None:
    live = Endpoint("v0", routes=(SIX, HOP))
    wanted = replace(SIX, via="fe80::9")
    changes = list(route_changes(Endpoint("v0", routes=(wanted,)), live))
    end = end_of("v0", live)
    actions = [*removals(end, changes, live), *additions(end, changes, live)]
    added = [action.route for action in actions if isinstance(action, AddRoute)]
    assert added[-1] == wanted
    assert [action.route for action in actions if isinstance(action, DeleteRoute)] == [HOP, SIX]
    assert actions.index(next(a for a in actions if isinstance(a, AddRoute))) == 0, (
        "the new one comes before old ones go"
    )
