"""What is written as JSON comes back the same, and nothing else comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings

from nkform import serial
from nkform.features import FEATURES
from nkform.model import (
    After,
    Attached,
    Before,
    Chain,
    ComputedFor,
    Device,
    Endpoint,
    First,
    Hook,
    Last,
    Namespace,
    Node,
    Program,
)
from nkform.plan.actions import Action, SetPolicy, end_of
from nkform.plan.chain_steps import change
from nkform.plan.plan import build
from nkform.spec import loads
from tests.specs import specs

EMPTY = Node("random", {"": Namespace("")})


@given(specs("netkit", frozenset(FEATURES)))
@settings(max_examples=100)
def test_nodes_and_actions_come_back(spec: dict[str, Any]) -> None:
    node = loads(yaml.safe_dump(spec)).node
    assert serial.read(Node, json.loads(serial.dumps(node))) == node
    sysctls = {f"sysctl:{key}" for device in node.devices.values() for end in device.ends for key in end.sysctl}
    actions = build(node, EMPTY, features={*FEATURES, *sysctls}).actions
    assert serial.read_any(tuple[Action, ...], json.loads(serial.dumps(actions))) == actions


@pytest.mark.parametrize("position", [First(), Last(), Before(7), After("theirs"), None])
def test_chains_come_back(position: Any) -> None:
    device = Device("x", "netkit", {"headroom": ComputedFor(("wg0",))}, Endpoint("x"), Endpoint("p", "a", {"up": True}))
    program = Program(
        "guard", "source_guard", {"prefixes": ["10.0.0.0/8"], "type": "Device"}, "abc", {"": ("devices", 1)}
    )
    hook = Hook((Attached(1, 2, "guard", "abc", True),), (), 5)
    actions: tuple[Action, ...] = (
        change(device, "peer", hook, Chain((program,), "drop", position), revision=5),
        SetPolicy(end_of("x", device.primary), {"policy": (None, "blackhole")}, {}),
    )
    assert serial.read_any(tuple[Action, ...], json.loads(serial.dumps(actions))) == actions


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"type": "Device"},
        {"type": "Endpoint", "name": 1},
        {"type": "Endpoint", "name": "a", "addresses": "fe80::1/64"},
        {"type": "Endpoint", "name": "a", "addresses": [{"type": "Route", "to": "::/0"}]},
        {"type": "Endpoint", "name": "a", "attrs": {"mtu": [1]}},
        {"type": "Endpoint", "name": "a", "sysctl": ["x"]},
        {"type": "Endpoint", "name": True},
    ],
)
def test_what_is_no_such_object_is_refused(data: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|without"):
        serial.read(Endpoint, data)


def test_keys_of_later_versions_are_ignored() -> None:
    assert serial.read(Endpoint, {"type": "Endpoint", "name": "a", "colour": "red"}) == Endpoint("a")


def test_names_that_are_no_text_survive() -> None:
    assert serial.read(Endpoint, json.loads(serial.dumps(Endpoint("\udcff")))) == Endpoint("\udcff")
