"""Given what maps of attached programs hold and what a spec says, the plan changes them in place, or the chain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from nkform import serial
from nkform.model import Attached, Chain, Device, Endpoint, First, Hook, MapContents, MapsByParam, Node, Program
from nkform.plan import chains
from nkform.plan.actions import Action, Attach, Detach, SetChain, SetMap, Update
from nkform.plan.chain_steps import steps
from nkform.plan.changes import Plan
from nkform.plan.plan import build
from nkform.report.colour import Paint
from nkform.report.plan_json import render as as_json
from nkform.report.plan_text import render as as_text


def holding(*ports: int, more: Sequence[int] | None = None) -> MapsByParam:
    found = {"ports": (MapContents("ports", "u16", ports),)}
    if more is not None:
        found["more"] = (MapContents("more_ports", "u16", tuple(more)),)
    return found


def attached(name: str, place: int, contents: MapsByParam | None = None, digest: str = "d") -> Attached:
    return Attached(100 + place, place, name, digest, ours=True, contents=contents or {})


def program(name: str, contents: MapsByParam | None = None, digest: str = "d") -> Program:
    return Program(name, "template", {}, digest, contents=contents or {})


def plan(hook: Hook, chain: Chain) -> Plan:
    live = Device("out0", "external", {}, Endpoint("out0"), index=7, hooks={"ingress": hook})
    wanted = Device("out0", "external", {}, Endpoint("out0"), chains={"ingress": chain})
    return build(Node("n", devices={"out0": wanted}), Node("n", devices={"out0": live}), features={"tcx"})


HOOK = Hook((attached("count", 1), attached("set", 2, holding(53, 80))), revision=3)


def test_what_is_as_it_shall_be_needs_no_plan() -> None:
    assert plan(HOOK, Chain((program("count"), program("set", holding(53, 80))))).empty


def test_entries_that_come_and_go_are_told_one_by_one_and_set_in_place() -> None:
    made = plan(HOOK, Chain((program("count"), program("set", holding(80, 443)))))
    (action,) = made.actions
    assert isinstance(action, SetMap)
    assert (action.hook, action.program) == ("ingress", "set")
    assert (action.before, action.after) == (
        MapContents("ports", "u16", (53, 80)),
        MapContents("ports", "u16", (80, 443)),
    )
    said = [line.strip() for line in as_text(made, Paint(False)).splitlines() if "ports" in line]
    assert said == ["- programs.ingress.set.ports = 53", "+ programs.ingress.set.ports = 443"]
    document = json.loads(as_json(made))
    assert document["actions"][0]["type"] == "SetMap"
    assert document["actions"][0]["after"]["entries"] == [80, 443]
    assert serial.read_any(tuple[Action, ...], json.loads(serial.dumps(made.actions))) == made.actions


def test_each_family_of_a_list_has_a_map_of_its_own() -> None:
    def both(*prefixes: str) -> MapsByParam:
        ipv4 = tuple(prefix for prefix in prefixes if ":" not in prefix)
        ipv6 = tuple(prefix for prefix in prefixes if ":" in prefix)
        return {"p": (MapContents("l_ipv4", "ipv4-prefix", ipv4), MapContents("l_ipv6", "ipv6-prefix", ipv6))}

    hook = Hook((attached("block", 1, both("10.0.0.0/8", "fd00::/8")),), revision=1)
    one = plan(hook, Chain((program("block", both("10.0.0.0/8", "fc00::/8")),)))
    two = plan(hook, Chain((program("block", both("11.0.0.0/8", "fc00::/8")),)))
    assert [action.after.map for action in one.actions if isinstance(action, SetMap)] == ["l_ipv6"]
    assert [action.after.map for action in two.actions if isinstance(action, SetMap)] == ["l_ipv4", "l_ipv6"]


@pytest.mark.parametrize(
    ("hook", "chain"),
    [
        pytest.param(
            Hook((attached("a", 1, holding(1)), attached("b", 2, holding(2))), revision=1),
            Chain((program("a", holding(2)), program("b", holding(1)))),
            id="of two programs",
        ),
        pytest.param(
            Hook((attached("a", 1, holding(1, more=[2])),), revision=1),
            Chain((program("a", holding(2, more=[1])),)),
            id="of two parameters",
        ),
        pytest.param(HOOK, Chain((program("set", holding(1)), program("count"))), id="and the order"),
        pytest.param(HOOK, Chain((program("count"), program("set", holding(1), "e"))), id="and the program"),
        pytest.param(HOOK, Chain((program("set", holding(1)),)), id="and the length"),
        pytest.param(
            replace(HOOK, linked=(Attached(9, 9, "theirs"), *HOOK.linked)),
            Chain((program("count"), program("set", holding(1))), position=First()),
            id="and the place",
        ),
        pytest.param(
            Hook((attached("count", 1), attached("set", 2)), revision=1),
            Chain((program("count"), program("set", holding(1)))),
            id="of a map that is not there",
        ),
    ],
)
def test_where_more_than_one_list_differs_the_chain_is_set(hook: Hook, chain: Chain) -> None:
    made = plan(hook, chain)
    assert [type(action) for action in made.actions] == [SetChain]


def test_a_program_whose_entries_change_with_others_does_not_stay() -> None:
    """One of them in one step, two beside the old ones."""
    present = (attached("a", 1, holding(1)), attached("count", 2), attached("b", 3, holding(2)))
    one = Chain((program("a", holding(9)), program("count"), program("b", holding(2))))
    two = Chain((program("a", holding(2)), program("count"), program("b", holding(1))))
    assert chains.kept(present, one) == {1: 1, 2: 2}
    assert steps(Hook(present), one, backend="link") == [Update("link", "a", 0, present[0])]
    assert chains.kept(present, two) == {1: 1}
    assert [type(step) for step in steps(Hook(present), two, backend="link")] == [Attach, Attach, Detach, Detach]
