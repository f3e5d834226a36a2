"""Whole or not at all, under attack: a failure or a SIGKILL at each action of a change, for examples and random specs.

All the while a workload whose packets nothing may let through floods the node.
"""

from __future__ import annotations

import random
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, assume, given, seed, settings
from hypothesis import strategies as st

from nkform.kernel import bpffs, links, rundir
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.model import owner_of
from tests.live.helpers.attack import HOST, PRISON, EgressProbe, cell, in_child
from tests.live.helpers.fault_injection import NOWHERE, Injection, injected
from tests.live.helpers.isolation import fresh_network
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, batch, features, kinds, needs
from tests.sizes import LAB, SEED, SIZES
from tests.specs import NAMES, ends, specs

pytestmark = pytest.mark.usefixtures("made_once")

EXAMPLES = Path(__file__).parents[2] / "examples"
KINDS = ["netkit"] if LAB and "netkit" in features() else kinds()
"""In the lab the pairs that the machine's own kernel may lack."""

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
    actions: int = 0
    failures: int = 0
    kills: int = 0
    packets: int = field(default=0)

    def __str__(self) -> str:
        return (
            f"{self.changes} changes of {self.actions} actions, {self.failures} failures injected,"
            f" {self.kills} runs killed, {self.packets} forbidden packets sent, none through"
        )


@contextmanager
def prisoner(score: Score) -> Iterator[EgressProbe]:
    fresh_network()
    inmate = EgressProbe()
    try:
        with inmate:
            yield inmate
        assert inmate.through == 0
        score.packets += inmate.sent
    finally:
        inmate.close()


def attacked(
    node: Node,
    first: dict[str, Any],
    second: dict[str, Any],
    score: Score,
    chance: random.Random,
) -> None:
    """From the first spec to the second: a call of each action fails, and there and back by turns it is not come to for
    a SIGKILL; and so with one of what comes after them. The campaign does it with each call that changes something.
    """
    node.apply(first)
    actions = node.plan(second, "--json").json()["actions"]
    if not actions:
        return
    score.changes += 1
    score.actions += len(actions)
    calls = counted(node, second)
    parts = [*calls.by_action(), range(calls.ends[-1], len(calls.made))]
    places = [chance.choice(part) for part in parts[:: SIZES.stride] if part]
    if SIZES.every_call:
        places = list(range(len(calls.made)))
    node.apply(first)
    for place in places:
        failed(node, first, second, place)
        score.failures += 1
    there = first, second
    for place in places:
        killed(node, *there, place)
        score.kills += 1
        there = there[1], there[0]


def counted(node: Node, spec: dict[str, Any]) -> Injection:
    """The calls of a change that nothing happens to."""
    node.write(spec)
    with injected(NOWHERE) as injection:
        outcome = node.run("apply", "-y", str(node.path))
    assert outcome.code == 0, outcome.err
    return injection


def others_move_in() -> None:
    """Others have addresses on our devices, and routes through them, as routing daemons do; what cannot be is not."""
    with Socket() as socket:
        ours = [link.name for link in consistent_dump(links.dump, socket) if owner_of(link.alias)]
    root = [f"route replace 198.51.100.0/24 dev lo src {HOST} proto 99"]
    for number, name in enumerate(sorted(ours), 1):
        root += [
            f"addr add 192.0.2.{number}/32 dev {name}",
            f"addr add 2001:db8::{number}/128 dev {name} nodad",
            f"route replace 198.51.100.{number}/32 dev {name} proto 99",
            f"route replace 198.51.101.{number}/32 dev {name} proto 99 src 192.0.2.{number} table 99",
            f"route replace 2001:db8:1::{number}/128 dev {name} proto 99",
        ]
    batch(root)
    batch(["route replace 198.51.102.0/24 dev eth0 proto 99", "addr add 192.0.2.99/32 dev eth0"], PRISON)


def failed(node: Node, first: dict[str, Any], second: dict[str, Any], place: int) -> None:
    """A call of the change fails: all is as before, or as it shall be."""
    others_move_in()
    before = netstate_snapshot()
    node.write(second)
    with injected(place) as injection:
        outcome = node.run("apply", "-y", str(node.path))
    where = f"call {place}, {injection.hit}, failed: {outcome.err}"
    if outcome.code:
        assert injection.hit, outcome.err
        assert not {"error[NK0503]:", "error[NK0504]:", "error[NK0900]:"} & set(outcome.err.split()), where
        assert differences(before, netstate_snapshot()) == [], where
    else:  # tried again in another way, or no more than clearing up
        assert node.changes(second) == [], where
        node.apply(first)


def killed(node: Node, first: dict[str, Any], second: dict[str, Any], place: int) -> None:
    """A run is killed before a call: the next apply gets to where it was going. Each third is taken back first."""
    others_move_in()
    before = netstate_snapshot()
    node.write(second)

    def work() -> None:
        with injected(place, kill=True):
            node.run("apply", "-y", str(node.path))

    was_killed = in_child(work) == -signal.SIGKILL
    if was_killed and place % 3 == 2:
        outcome = node.run("recover", "-y")
        assert outcome.code == 0, f"killed before call {place}: {outcome.err}"
        if "Nothing to recover" in outcome.out:  # it had not begun, or was over
            is_same = not differences(before, netstate_snapshot())
            assert is_same or node.changes(second) == [], f"killed before call {place}"
        else:
            assert differences(before, netstate_snapshot()) == [], f"killed before call {place}, and taken back"
    outcome = node.run("apply", "-y", str(node.path))  # which holds by itself that it converged
    assert outcome.code == 0, f"killed before call {place}: {outcome.err}"


def nothing_is_left(node: Node, name: str) -> None:
    node.destroy()
    assert [bpffs.has_node(name, top=top) for top in (bpffs.FOLDER, bpffs.HELD)] == [False, False]
    assert not (rundir.RUN / name).exists()
    there = netstate_snapshot()
    assert there["namespaces"] == [PRISON]
    assert {line.split()[0] for line in there["root: links"]} == {"lo"}


def test_the_attack_has_teeth(node: Node) -> None:
    """A workload that is not shut in does get through to the node: else the attacks below could not fail."""
    fresh_network()
    inmate = EgressProbe()
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


@pytest.mark.long
@pytest.mark.parametrize("path", examples())
def test_an_example_comes_and_goes_whole(path: Path, node: Node, tell: Callable[[str], None]) -> None:
    spec = yaml.safe_load(path.read_text())
    kind = "netkit" if "netkit" in features() else "veth"
    nothing = with_cell({"version": 1, "node": spec["node"]}, kind)
    whole_spec = with_cell(spec, kind, programs=SHUT_IN[3])
    del whole_spec["devices"]["cell"]["peer"]["policy"]
    score, chance = Score(), random.Random(SEED)
    with prisoner(score):
        attacked(node, nothing, whole_spec, score, chance)
        attacked(node, whole_spec, nothing, score, chance)
        nothing_is_left(node, spec["node"])
    tell(str(score))


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


@pytest.mark.long
@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_lists_change_whole(attach: str, node: Node, tell: Callable[[str], None]) -> None:
    kind = "netkit" if "netkit" in features() and attach == "auto" else "veth"
    specs = []
    for chain in LISTS:
        changes = {"attach": attach} if kind == "veth" else {}
        spec = with_cell({"version": 1, "node": "w"}, kind, programs={"peer": chain}, **changes)
        specs.append({**spec, "programs": {**PROGRAMS, "block": BLOCK, "allow": ALLOW}})
    score, chance = Score(), random.Random(SEED)
    with prisoner(score):
        for first, second in pairwise([*specs, specs[0]]):
            attacked(node, first, second, score, chance)
        nothing_is_left(node, "w")
    tell(str(score))


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


@st.composite
def changes(draw: st.DrawFn, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two random specs; where a change is to be partial, the second mostly has all but a part of the first."""
    first, second = draw(states(kind)), draw(states(kind))
    what = "all" if SIZES.every_call else draw(st.sampled_from(SHARES))
    cell, other = first["devices"]["cell"], second["devices"]["cell"]
    device = next((name for name in first["devices"] if name != "cell"), None)
    if what == "all":
        return first, second
    if what == "rest":
        return first, {**second, "devices": {**second["devices"], "cell": cell}}
    changed = {"cell": other}
    if what == "end" and device:
        changed = {device: draw(with_another_end(device, first["devices"][device]))}
    elif what != "cell":
        kept = {key: value for key, value in cell.items() if key not in OWN}
        changed = {"cell": {**kept, **{key: other[key] for key in OWN if key in other}}}
    return first, {**first, "devices": {**first["devices"], **changed}}


SHARES = ("end",) * 5 + ("chains",) * 5 + ("cell", "rest", "all")
"""How often which part of a spec changes."""
OWN = ("programs", "peer", "mtu")
"""What of a cell can change without making it anew: chains, the policy, and a size."""


@st.composite
def with_another_end(draw: st.DrawFn, name: str, device: dict[str, Any]) -> dict[str, Any]:
    """The device with other addresses, routes and perhaps sysctls, here or at its peer."""
    if "peer" not in device or draw(st.booleans()):
        return {**device, **draw(ends(NAMES.index(name), outside=True))}
    return {**device, "peer": {**device["peer"], **draw(ends(NAMES.index(name), outside=False))}}


@pytest.mark.long
@pytest.mark.parametrize("part", range(SIZES.attacked_parts))
@pytest.mark.parametrize("kind", KINDS)
def test_a_random_change_is_whole_or_not_at_all(kind: str, part: int, tell: Callable[[str], None]) -> None:
    score, chance = Score(), random.Random(SEED + part)
    wanted = SIZES.attacked_changes // SIZES.attacked_parts

    @seed(SEED + part)
    @settings(
        max_examples=wanted,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )
    @given(changes(kind))
    def attack(change: tuple[dict[str, Any], dict[str, Any]]) -> None:
        before = score.changes
        with tempfile.TemporaryDirectory() as folder, prisoner(score):
            node = Node(Path(folder))
            attacked(node, *change, score, chance)
            nothing_is_left(node, "random")
        assume(score.changes > before)  # there was something to change

    attack()
    assert score.changes == wanted
    tell(str(score))
