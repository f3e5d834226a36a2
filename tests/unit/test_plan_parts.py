"""What of a plan can be carried out while something stands in the way of the rest."""

from __future__ import annotations

import pytest

from nkform.dataclass import replace
from nkform.model import Device, Endpoint, Namespace, Node
from nkform.plan.changes import Plan
from nkform.plan.parts import NOTHING, Without, parts, possible
from nkform.plan.plan import build
from nkform.problem import NkformError, fail


def pair(name: str, namespace: str, mtu: int = 1500) -> Device:
    attrs = {"mtu": mtu, "up": False}
    return Device(name, "veth", {}, Endpoint(name, attrs=attrs), Endpoint("eth0", namespace, attrs=attrs), owner="w")


def node(*devices: Device, spaces: dict[str, str | None] | None = None, create: bool = False) -> Node:
    names = {device.peer.namespace for device in devices if device.peer} | set(spaces or {})
    owners = {name: (spaces or {}).get(name, "w") for name in names}
    return Node(
        "w",
        {name: Namespace(name, create=create, owner=None if create else owner) for name, owner in owners.items()},
        {device.name: device for device in devices},
    )


def planned(desired: Node, live: Node) -> tuple[Plan, Without, tuple[object, ...]]:
    def without(left: Without) -> Plan:
        shall, there = left.trim(desired, live)
        return build(shall, there, resolved=shall.devices)

    return possible(without, (desired, live))


def test_a_namespace_of_others_keeps_its_devices_from_being_planned_and_nothing_else() -> None:
    live = node(pair("v0", "a"), pair("v1", "b"), spaces={"a": None})
    desired = node(pair("v0", "a", 1400), pair("v1", "b", 1400), create=True)
    plan, without, problems = planned(desired, live)
    assert {change.name for change in plan.changes} == {"v1"}
    assert without.names == {("namespace", "a"), ("device", "v0")}
    assert len(problems) == 1


def test_a_namespace_stays_while_a_device_in_it_is_left_alone() -> None:
    live = node(pair("v0", "a"))
    shall, there = Without(frozenset({("device", "v0")})).trim(Node("w"), live)
    assert build(shall, there).empty
    assert [change.name for change in build(*NOTHING.trim(Node("w"), live)).changes] == ["v0", "a"]


def test_other_devices_of_the_namespace_are_planned() -> None:
    live = node(pair("v0", "a"))
    left = Without(frozenset({("device", "v0")}))
    desired = node(pair("v0", "a", 1400), pair("v2", "a"), create=True)
    shall, there = left.trim(desired, live)
    assert [change.name for change in build(shall, there, resolved=shall.devices).changes] == ["v2"]


def test_a_part_is_a_device_with_its_namespaces() -> None:
    desired = node(pair("v0", "a"), pair("v1", "b"), pair("v2", "a"), spaces={"c": None}, create=True)
    plan = build(desired, Node("w"), resolved=desired.devices)
    assert {frozenset(name for _, name in part) for part in parts(plan, (desired, Node("w")))} == {
        frozenset({"v0", "a"}),
        frozenset({"v2", "a"}),
        frozenset({"v1", "b"}),
        frozenset({"c"}),
    }


def test_what_is_wrong_with_no_object_in_particular_is_wrong_with_all() -> None:
    def never(_: Without) -> Plan:
        raise fail("NK0400", "no object is named")

    with pytest.raises(NkformError, match="no object"):
        possible(never, ())


def test_devices_that_exchange_a_name_are_one_part() -> None:
    """Neither can be had without the other: the kernel gives a name once."""

    def named(name: str, peer: str) -> Device:
        return replace(pair(name, "a"), peer=Endpoint(peer, "a", attrs={"mtu": 1500, "up": False}))

    live = node(named("v0", "eth0"), named("v1", "eth1"), named("v2", "eth2"))
    desired = node(named("v0", "eth1"), named("v1", "eth0"), named("v2", "eth3"))
    plan = build(desired, live, resolved=desired.devices)
    assert {frozenset(name for _, name in part) for part in parts(plan, (desired, live))} == {
        frozenset({"a", "v0", "v1"}),
        frozenset({"a", "v2"}),
    }
