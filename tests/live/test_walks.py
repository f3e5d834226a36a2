"""From random spec to random spec: the kernel ends where the last one says, and destroying leaves nothing.

Two specs at a time, and long walks on which runs fail and are killed, others change the node, and the way goes back.
"""

from __future__ import annotations

import random
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.live.helpers.isolation import fresh_network
from tests.live.helpers.support import Node, batch, features, kinds, links
from tests.live.test_attacks import KINDS, Score, failed, killed, nothing_is_left, prisoner, states
from tests.sizes import SEED, SIZES
from tests.specs import Spec, specs

pytestmark = pytest.mark.usefixtures("made_once")

QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def drawn(strategy: st.SearchStrategy[Spec], many: int) -> list[Spec]:
    """So many random specs, always the same ones for a seed."""
    specs: list[Spec] = []

    @seed(SEED)
    @settings(max_examples=many, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=QUIET)
    @given(strategy)
    def keep(spec: Spec) -> None:
        specs.append(spec)

    keep()
    return specs


@pytest.mark.long
@pytest.mark.parametrize("kind", kinds())
def test_any_change_converges(kind: str, tell: Callable[[str], None]) -> None:
    every = drawn(specs(kind, features()), 2 * SIZES.converging_specs)
    pairs = list(zip(every[::2], every[1::2], strict=False))
    for first, second in pairs:
        fresh_network()
        with tempfile.TemporaryDirectory() as folder:
            node = Node(Path(folder))
            node.apply(first)
            node.apply(second)
            shown = node.run("show")
            if shown.code == 0:
                assert node.changes(shown.out) == []
            node.apply(second)
            node.destroy()
            assert links() == set()
    assert len(pairs) >= SIZES.converging_specs * 0.9
    tell(f"{len(pairs)} random changes of {kind} specs converged")


WAYS = ("apply", "apply", "fail", "kill", "roll back", "drift", "destroy")
"""What a step of a walk can be. A failure and a kill are at a random one of the calls that change something."""


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_walk(kind: str, node: Node, tell: Callable[[str], None]) -> None:
    """All the while a workload that is shut in tries to get out."""
    chance, score, steps = random.Random(SEED), Score(), Counter[str]()
    current: dict[str, Any] = {"version": 1, "node": "random"}
    with prisoner(score):
        node.apply(current)
        for spec in drawn(states(kind), SIZES.walk_steps):
            way = chance.choice(WAYS)
            steps[way] += 1
            current = step(node, way, current, spec, chance)
        nothing_is_left(node, "random")
    told = ", ".join(f"{many} × {way}" for way, many in sorted(steps.items()))
    tell(f"a walk of {steps.total()} steps ({told}), {score.packets} forbidden packets sent, none through")


def step(node: Node, way: str, current: dict[str, Any], spec: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Takes a step, and returns the spec that the node is at then."""
    match way:
        case "fail":
            failed(node, current, spec, chance.randrange(80))
            return current
        case "kill":
            killed(node, current, spec, chance.randrange(80))
        case "roll back":
            if not node.changes(spec):  # an apply that changes nothing is none to go back from
                return spec
            node.apply(spec)
            outcome = node.run("rollback", "-y")
            assert outcome.code == 0, outcome.err
            assert node.changes(current) == []
            return current
        case "drift":
            batch([f"link set {name} mtu 1333" for name in sorted(links())][: chance.randint(1, 3)])
            batch([f"link delete {name}" for name in sorted(links()) if chance.random() < 0.2])
            node.apply(current)
            return current
        case "destroy":
            node.destroy()
            node.apply(spec)
        case _:
            node.apply(spec)
    return spec
