"""Given any plan of tests/plan that fails in the middle, undoing what was done gives the node as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nkform.bpf.programs import Programs, Source
from nkform.plan.actions import Action, device_of, namespace_of, undo
from nkform.problem import NkformError
from tests.unit.plan_cases import line
from tests.unit.test_plan_cases import Case, cases
from tests.unit.world import World


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(Source(engine="clang")) as programs:
        yield programs


BY_COMPARISON = {
    "addresses-in-another-order-with-a-source": "the route goes with its source, and comparing brings it back",
    "sysctl-secret-set": "a secret cannot be taken away from a link again, only changed",
}
"""Cases whose undoing leaves something, and what: the run says so, or mends it, when it compares."""


def undone(done: tuple[Action, ...]) -> list[Action]:
    return [step for action in reversed(done) for step in undo(action)]


@cases
def test_undoing_any_first_part_of_a_plan_gives_the_node_as_it_was(name: str, programs: Programs) -> None:
    case = Case(name, programs)
    try:
        actions = case.plan(case.live).actions
    except NkformError:
        return
    before = World(case.live).state()
    left = []
    for count in range(len(actions) + 1):
        world = World(case.live)
        world.run(actions[:count])
        world.run(undone(actions[:count]))
        if world.state() != before:
            left = [line(action) for action in actions[:count]]
            assert name in BY_COMPARISON, left
    assert bool(left) == (name in BY_COMPARISON)


@cases
def test_what_undoes_an_action_is_about_the_same_object(name: str, programs: Programs) -> None:
    case = Case(name, programs)
    try:
        actions = case.plan(case.live).actions
    except NkformError:
        return
    for action in actions:
        for step in undo(action):
            assert device_of(step) == device_of(action), line(action)
    assert {namespace_of(action) for action in actions} <= {*case.live.namespaces, *case.desired.namespaces, ""}
