"""Drift: what the node lost of what was applied is told from what the spec has changed since."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from nkform.features import FEATURES
from nkform.model import Address, Attached, Chain, Device, Endpoint, First, Hook, Last, Namespace, Node, Program
from nkform.plan.changes import Plan
from nkform.plan.drift import WHOLE, Difference, against, brought_forward, differences, notes
from nkform.plan.plan import build, meaning
from nkform.report.colour import Paint
from nkform.report.drift_text import said
from nkform.report.plan_text import render
from nkform.spec import loads
from tests.specs import specs

FEATURE_NAMES = frozenset({*FEATURES, "sysctl:ipv4.rp_filter"})
FIRST, SECOND = 1000.0, 2000.0

PAIR: dict[str, Any] = {
    "kind": "veth",
    "mtu": 1500,
    "addresses": ["10.0.0.1/32"],
    "routes": [{"to": "10.0.0.2/32"}],
    "sysctl": {"ipv4": {"rp_filter": 0}},
    "peer": {"name": "eth0", "namespace": "a"},
}


def spec(**pair: Any) -> Node:
    text = {
        "version": 1,
        "node": "w",
        "namespaces": {"a": {"create": True}},
        "devices": {"x": {**PAIR, **pair}},
    }
    return loads(yaml.safe_dump(text)).node


def resolved(node: Node) -> Node:
    """A node as it goes on record."""
    devices, problems = meaning(node, Node("w"), features=FEATURE_NAMES)
    assert not problems
    return node.with_devices(devices)


def live(node: Node, change: Callable[[Device], Device] = lambda device: device) -> Node:
    """The kernel right after an apply, or as somebody changed one device since."""
    devices = {name: change(replace(device, owner=node.name)) for name, device in resolved(node).devices.items()}
    return Node(node.name, {"": Namespace(""), "a": Namespace("a", owner=node.name)}, devices)


def drift(node: Node, applied: Node, now: Node) -> tuple[Plan, Mapping[Difference, float | None]]:
    plan = build(node, now, features=FEATURE_NAMES)
    known = resolved(applied)
    back, problems = against(known, known.devices, now, FEATURE_NAMES)
    assert not problems
    return plan, notes(plan, back, brought_forward(Node("w"), {}, known, FIRST))


def primary(**changed: Any) -> Callable[[Device], Device]:
    return lambda device: replace(device, primary=replace(device.primary, **changed))


def with_mtu(mtu: int) -> Callable[[Device], Device]:
    return lambda device: replace(
        device,
        primary=replace(device.primary, attrs={**device.primary.attrs, "mtu": mtu}),
        peer=device.peer and replace(device.peer, attrs={**device.peer.attrs, "mtu": mtu}),
    )


CHANGED_BY_HAND = {
    "mtu": (with_mtu(1400), "mtu 1400 on the node, 1500 in the spec"),
    "address lost": (primary(addresses=()), "addresses 10.0.0.1/32 not on the node, in the spec"),
    "address added": (
        primary(addresses=(Address("10.0.0.1/32"), Address("10.9.9.9/32"))),
        "addresses 10.9.9.9/32 on the node, not in the spec",
    ),
    "route lost": (primary(routes=()), "routes 10.0.0.2/32 not on the node, in the spec"),
    "sysctl": (primary(sysctl={"ipv4.rp_filter": "2"}), "sysctl.ipv4.rp_filter 2 on the node, 0 in the spec"),
    "mark": (lambda device: replace(device, owner=None), "owner not on the node, in the spec"),
}


@pytest.mark.parametrize("name", CHANGED_BY_HAND)
def test_a_changed_node_is_drift(name: str) -> None:
    change, told = CHANGED_BY_HAND[name]
    known = resolved(spec())
    back, problems = against(known, known.devices, live(spec(), change), FEATURE_NAMES)
    assert not problems
    (found,) = differences(back)
    assert said(found).replace("owner w", "owner") == told


def test_a_changed_spec_is_no_drift() -> None:
    plan, found = drift(spec(mtu=1400), spec(), live(spec()))
    assert not plan.empty
    assert found == {}


def test_each_field_is_judged_by_itself() -> None:
    plan, found = drift(spec(addresses=["10.0.0.7/32"]), spec(), live(spec(), with_mtu(1400)))
    assert {difference.field.path for difference in found if difference.field} == {("mtu",), ("peer", "mtu")}
    text = render(plan, Paint(False), drift=found)
    assert "~ mtu = 1400 -> 1500  # drift: 1400 on the node, 1500 in the spec since 1970-01-01" in text
    assert "+ addresses = 10.0.0.7/32\n" in text
    assert text.endswith("1 of these differences is drift: the node was changed, not the spec.\n")


def test_what_both_changed_is_the_specs() -> None:
    """1500 was applied, the node has 1400, the spec now wants 1600: this is no way back."""
    _, found = drift(spec(mtu=1600), spec(), live(spec(), with_mtu(1400)))
    assert found == {}


def test_devices_that_went_and_came() -> None:
    gone = replace(live(spec()), devices={})
    _, found = drift(spec(), spec(), gone)
    assert found == {Difference("device", "x", "create"): FIRST}
    stray = replace(resolved(spec()).devices["x"], name="y", owner="w", primary=Endpoint("y"), peer=Endpoint("z"))
    known = live(spec())
    _, found = drift(spec(), spec(), known.with_devices({**known.devices, "y": stray}))
    assert found == {Difference("device", "y", "destroy"): None}


def test_a_device_that_the_spec_drops_is_no_drift() -> None:
    plan, found = drift(replace(spec(), devices={}), spec(), live(spec()))
    assert [change.operation for change in plan.changes] == ["destroy"]
    assert found == {}


def test_a_namespace_that_went_takes_nothing_else_from_sight() -> None:
    """A plan would end there; drift is told of the rest too."""
    foreign = replace(spec(), namespaces={"a": Namespace("a", create=False)})
    known = resolved(foreign)
    other = replace(known.devices["x"], name="y", primary=Endpoint("y", attrs={"mtu": 9}), peer=Endpoint("z"))
    known = known.with_devices({**known.devices, "y": replace(other, chains={})})
    now = Node("w", {"": Namespace("")}, {})
    back, problems = against(known, known.devices, now, FEATURE_NAMES)
    found = differences(back, problems)
    assert Difference("device", "y", "create") in found
    assert {(d.kind, d.name) for d in found if d.problem} == {("namespace", "a"), ("device", "x")}
    assert all(d.problem == "there is no namespace a" for d in found if d.problem)


def chained(*programs: str, position: First | Last | None = None) -> Node:
    chain = Chain(tuple(Program(name, "t", {}, f"d-{name}") for name in programs), position=position)
    return Node("w", {}, {"e": Device("e", "external", {}, Endpoint("e"), chains={"ingress": chain})})


def running(*programs: str) -> Node:
    """What runs at the hook; the program of somebody else is called `other`."""
    linked = tuple(
        Attached(place, place, name, f"d-{name}" if name != "other" else "", name != "other")
        for place, name in enumerate(programs)
    )
    device = Device("e", "external", {}, Endpoint("e"), hooks={"ingress": Hook(linked, (), 1)})
    return Node("w", {"": Namespace("")}, {"e": device})


@pytest.mark.parametrize(
    ("programs", "path"),
    [
        (("b",), ("programs", "ingress", "a")),
        (("b", "a"), ("programs", "ingress", "order")),
        (("a", "b", "c"), ("programs", "ingress", "c")),
        (("other", "a", "b"), ("programs", "ingress", "position")),
    ],
)
def test_chains_drift(programs: tuple[str, ...], path: tuple[str, ...]) -> None:
    known = chained("a", "b", position=First())
    back, _ = against(known, known.devices, running(*programs), {"tcx"})
    assert [d.field.path for d in differences(back) if d.field] == [path]


def test_an_external_device_that_went_is_said() -> None:
    known = chained("a")
    back, problems = against(known, known.devices, Node("w", {"": Namespace("")}), {"tcx"})
    assert [said(d) for d in differences(back, problems)] == ["there is no device e"]


def test_since_is_the_first_apply_that_had_the_value() -> None:
    before, after = resolved(spec()), resolved(spec(mtu=1400, addresses=["10.0.0.1/32", "10.0.0.9/32"]))
    known = brought_forward(Node("w"), {}, before, FIRST)
    assert known == {"namespace.a": {WHOLE: FIRST}, "device.x": {WHOLE: FIRST}}
    later = brought_forward(before, known, after, SECOND)["device.x"]
    assert {key: when for key, when in later.items() if when == SECOND} == {
        "mtu": SECOND,
        "peer.mtu": SECOND,
        "addresses 10.0.0.9/32": SECOND,
    }
    assert later[WHOLE] == FIRST
    assert brought_forward(after, {"device.x": later}, after, 3000.0)["device.x"] == later


def test_since_of_chains() -> None:
    known = {"device.e": {WHOLE: FIRST}}
    found = brought_forward(chained("a", "b"), known, chained("b", "a", position=First()), SECOND)["device.e"]
    assert found == {WHOLE: FIRST, "programs.ingress.order": SECOND, "programs.ingress.position": SECOND}


@given(specs("netkit", frozenset(FEATURES)))
@settings(max_examples=60)
def test_an_untouched_node_never_drifts(given_spec: dict[str, Any]) -> None:
    applied = loads(yaml.safe_dump(given_spec)).node
    features = {*FEATURES, *(f"sysctl:{k}" for d in applied.devices.values() for end in d.ends for k in end.sysctl)}
    devices, _ = meaning(applied, Node("random"), features=features)
    owned = {name: replace(device, owner="random") for name, device in devices.items()}
    spaces = {name: Namespace(name, owner="random") for name in applied.namespaces}
    back, problems = against(applied, devices, Node("random", {"": Namespace(""), **spaces}, owned), features)
    assert differences(back, problems) == []
