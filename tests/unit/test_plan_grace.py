"""How many grace periods actions will take: one for each link that comes or goes."""

from __future__ import annotations

import pytest

from nkform.model import Attached, Chain, Device, Endpoint, Hook, Program
from nkform.plan.actions import Action, DeletePair, SetUp, end_of
from nkform.plan.chain_steps import change
from nkform.plan.grace import are_worth_it, grace_periods

PEER = Endpoint("eth0", "web")
PAIR = Device("v0", "veth", {}, Endpoint("v0"), PEER)


def hook(*names: str, ours: bool = True) -> Hook:
    return Hook(tuple(Attached(number, number, name, "old", ours) for number, name in enumerate(names, 1)))


def with_hooks(**hooks: Hook) -> Device:
    return Device("v0", "veth", {}, Endpoint("v0"), PEER, hooks=hooks)


def chain(*names: str, digest: str = "old") -> Chain:
    return Chain(tuple(Program(name, digest=digest) for name in names))


@pytest.mark.parametrize(
    ("action", "waits"),
    [
        (change(PAIR, "peer", Hook(), chain("a", "b")), 2),
        (change(PAIR, "peer", hook("a", "b"), Chain()), 2),
        (change(PAIR, "peer", hook("a"), chain("a", digest="new")), 0),  # one update of a link
        (change(PAIR, "peer", hook("a", "b"), chain("b", "a")), 2),  # one attached anew, one detached
        (change(PAIR, "peer", hook("a"), chain("a", "b")), 1),
        (change(PAIR, "peer", hook("x", ours=False), chain("a")), 1),  # others' programs stay
        (change(PAIR, "peer", Hook(), chain("a", "b"), backend="tc"), 0),  # filters
        (change(PAIR, "peer", hook("a", "b"), chain("a", "b"), backend="tc"), 2),  # links that filters replace
        (DeletePair(PAIR), 0),
        (DeletePair(with_hooks(peer=hook("a", "b"), primary=Hook())), 1),
        (DeletePair(with_hooks(peer=hook("x", ours=False))), 1),
        (SetUp(end_of("v0", PEER), True), 0),
    ],
)  # fmt: skip
def test_grace_periods_of_an_action(action: Action, waits: int) -> None:
    assert grace_periods(action) == waits
    assert are_worth_it([action]) is (waits >= 2)
    assert are_worth_it([action] * 2) is (waits >= 1)
