"""Whole or not at all, under attack: a failure or a SIGKILL at each action of a change, for examples and random specs.

All the while a workload whose packets nothing may let through floods the node.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from nkform.kernel import bpffs, rundir
from tests.live.attack import PRISON, Prisoner, cell, fail, killed_after, stopped_after
from tests.live.chain_sites import EVERYWHERE
from tests.live.isolation import fresh_network
from tests.live.support import Node, features, kinds, needs
from tests.live.whole import differences, whole
from tests.specs import specs

IN_LAB = "NKFORM_LAB" in os.environ
EXAMPLES = Path(__file__).parents[2] / "examples"
NEWEST = "netkit_room" in features()
CHANGES = 100 if not IN_LAB else 10 if EVERYWHERE else 1
"""Random changes of each kind; emulated kernels are ten times slower."""

STRIDE = 1 if NEWEST or not IN_LAB else 6
"""In the lab every action is attacked on the newest kernel; on the others every sixth."""

DROPS = {"default": "drop", "chain": []}
SHUT_IN: list[Any] = [
    {"peer": DROPS},
    {"peer": {"default": "drop", "chain": ["count"]}},
    {"peer": {"default": "drop", "chain": ["guard", "count"]}},
    {"peer": {"default": "drop", "chain": ["count", "guard"]}, "primary": ["count"]},
    {"peer": ["shut"]},
    {"peer": ["shut", "guard2"], "primary": ["count", {"use": "count", "as": "again"}]},
]
"""Chains of the cell; `{}` is the blackhole alone."""

PROGRAMS = {
    "count": {"template": "counters"},
    "guard": {"template": "source_guard", "params": {"prefixes": ["10.99.0.2/32"]}},
    "guard2": {"template": "source_guard", "params": {"prefixes": ["10.99.0.0/24"]}},
    "shut": {"template": "verdict", "params": {"verdict": "drop"}},
}


@dataclass
class Score:
    """What was tried."""

    changes: int = 0
    failures: int = 0
    kills: int = 0
    packets: int = field(default=0)

    def __str__(self) -> str:
        return (
            f"{self.changes} changes, {self.failures} failures injected, {self.kills} runs killed,"
            f" {self.packets} forbidden packets sent, none through"
        )


@contextmanager
def prisoner(score: Score) -> Iterator[Prisoner]:
    fresh_network()
    inmate = Prisoner()
    try:
        with inmate:
            yield inmate
        assert inmate.through == 0
        score.packets += inmate.sent
    finally:
        inmate.close()


def attacked(node: Node, first: dict[str, Any], second: dict[str, Any], score: Score, stride: int = STRIDE) -> None:
    """From the first spec to the second: fails after every action, and is killed after every action."""
    node.apply(first)
    before = whole()
    total = len(node.plan(second, "--json").json()["actions"])
    score.changes += bool(total)
    for place in range(0, total + 1, stride) if total else ():
        with stopped_after(place, total, fail):
            error = node.refused(second, command="apply")
        assert "NK0501" in error
        assert not {"NK0503", "NK0504"} & set(error.split()), error
        assert differences(before, whole()) == [], f"a failure after action {place} of {total}"
        score.failures += 1
    for place in range(0, total + 1, stride) if total else ():
        node.write(second)
        killed_after(node, place)
        outcome = node.run("apply", "-y", str(node.path))  # which holds by itself that it converged
        assert outcome.code == 0, f"killed after action {place} of {total}: {outcome.err}"
        assert "NK0511" in outcome.err
        score.kills += 1
        node.write(first)
        assert node.run("apply", "-y", str(node.path)).code == 0
    assert node.changes(first) == []
    before = whole()
    node.write(second)
    if total:
        killed_after(node, total // 2)
        outcome = node.run("recover", "-y")
        assert outcome.code == 0, outcome.err
        assert differences(before, whole()) == [], "recovered"


def nothing_is_left(node: Node, name: str) -> None:
    node.destroy()
    assert [list(bpffs.pins(name, top=top)) for top in (bpffs.FOLDER, bpffs.HELD)] == [[], []]
    assert not (rundir.RUN / name).exists()
    there = whole()
    assert there["namespaces"] == [PRISON]
    assert {line.split()[0] for line in there["root: links"]} == {"lo"}


def test_the_attack_has_teeth(node: Node) -> None:
    """A workload that is not shut in does get through to the node: else the attacks below could not fail."""
    fresh_network()
    inmate = Prisoner()
    with inmate:
        open_cell = cell("veth", peer={"policy": "forward"})
        node.apply({"version": 1, "node": "w", "namespaces": {PRISON: {}}, "devices": {"cell": open_cell}})
        while not inmate.through:
            assert inmate.sent < 1_000_000
    inmate.close()


def with_cell(spec: dict[str, Any], kind: str, name: str = "cell", **changes: Any) -> dict[str, Any]:
    return {
        **spec,
        "namespaces": {**spec.get("namespaces", {}), PRISON: {}},
        "programs": {**spec.get("programs", {}), **PROGRAMS},
        "devices": {**spec.get("devices", {}), name: cell(kind, **changes)},
    }


def examples() -> list[Any]:
    """Each example, skipped where the kernel lacks what it needs."""
    wanted = {"two-workloads.yaml": ("netkit",), "big-tcp.yaml": ("netkit", "netkit_room", "gso_ipv4")}
    return [
        pytest.param(path, id=path.stem, marks=[needs(*wanted[path.name])] if path.name in wanted else [])
        for path in sorted(EXAMPLES.glob("*.yaml"))
    ]


@pytest.mark.parametrize("path", examples())
def test_an_example_comes_and_goes_whole(path: Path, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    spec = yaml.safe_load(path.read_text())
    kind = "netkit" if "netkit" in features() else "veth"
    nothing = with_cell({"version": 1, "node": spec["node"]}, kind)
    whole_spec = with_cell(spec, kind, programs=SHUT_IN[3])
    del whole_spec["devices"]["cell"]["peer"]["policy"]
    score = Score()
    with prisoner(score):
        attacked(node, nothing, whole_spec, score)
        attacked(node, whole_spec, nothing, score, 3 if IN_LAB else 1)
        nothing_is_left(node, spec["node"])
    with capsys.disabled():
        print(f"\n  {path.stem}: {score}")


BLOCK = {"template": "prefix_filter", "params": {"match": "source", "prefixes": ["10.99.0.0/31", "10.99.0.2/31"]}}
ALLOW = {"template": "prefix_filter", "params": {"match": "source", "listed": "next", "others": "drop"}}


def lists(name: str, *prefixes: str) -> dict[str, Any]:
    return {"use": name, "params": {"prefixes": list(prefixes)}}


LISTS: list[list[Any]] = [
    ["block", "count"],
    [lists("block", "10.99.0.2/32", "192.0.2.0/24"), "count"],
    [lists("block", "10.0.0.0/8", "fd00::/8"), "count"],
    [lists("allow", "192.0.2.0/24"), lists("block")],
    [lists("allow", "10.99.0.2/32"), lists("block", "10.99.0.2/32")],
    [lists("block", "10.99.0.0/24"), lists("allow", "10.99.0.2/32")],
]
"""Chains that shut a workload in by lists; from one to the next one list changes, or two, or the order too."""


@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_lists_change_whole(attach: str, node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    kind = "netkit" if "netkit" in features() and attach == "auto" else "veth"
    specs = []
    for chain in LISTS:
        changes = {"attach": attach} if kind == "veth" else {}
        spec = with_cell({"version": 1, "node": "w"}, kind, programs={"peer": chain}, **changes)
        specs.append({**spec, "programs": {**PROGRAMS, "block": BLOCK, "allow": ALLOW}})
    score = Score()
    with prisoner(score):
        for first, second in pairwise([*specs, specs[0]]):
            attacked(node, first, second, score)
        nothing_is_left(node, "w")
    with capsys.disabled():
        print(f"\n  {kind}: {score}")


@st.composite
def states(draw: st.DrawFn, kind: str) -> dict[str, Any]:
    """A random spec of at most one device, and the cell in some form."""
    spec = draw(specs(kind, features()))
    spec["devices"] = dict(list(spec["devices"].items())[:1])
    changes: dict[str, Any] = {}
    chains = draw(st.sampled_from([None, *SHUT_IN]))
    if chains is not None:
        changes["programs"] = chains
        if draw(st.booleans()):
            changes["peer"] = {"policy": "forward"}
    if draw(st.booleans()):
        changes["mtu"] = draw(st.sampled_from((1400, 9000)))
    if kind == "netkit" and draw(st.booleans()):
        changes["mode"] = draw(st.sampled_from(("l2", "l3")))
    if kind == "veth" and draw(st.booleans()):
        changes["attach"] = "tc"
    return with_cell(spec, kind, **changes)


@pytest.mark.parametrize("kind", ["netkit"] if IN_LAB and NEWEST else kinds())
def test_a_random_change_is_whole_or_not_at_all(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    score = Score()

    @settings(
        max_examples=CHANGES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(states(kind), states(kind))
    def attack(first: dict[str, Any], second: dict[str, Any]) -> None:
        assume(first != second)
        with tempfile.TemporaryDirectory() as folder, prisoner(score):
            node = Node(Path(folder))
            attacked(node, first, second, score)
            nothing_is_left(node, "random")

    attack()
    with capsys.disabled():
        print(f"\n  {kind}: {score}")
