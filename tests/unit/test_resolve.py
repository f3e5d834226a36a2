"""What a spec means on a node, and the limits that it has there."""

from __future__ import annotations

import pytest

from nkform.model import ComputedFor, Device, Endpoint, Node, RootDevice
from nkform.plan.resolve import resolve
from nkform.problem import NkformError
from nkform.spec import loads

KERNEL = frozenset({"netkit", "netkit_room", "netkit_scrub", "room_report"})
PAIR = "version: 1\nnode: w\ndevices: {a: {kind: netkit, KEY: VALUE, peer: {name: b}}}\n"


@pytest.mark.parametrize(("key", "most"), [("headroom", 65000), ("tailroom", 65535), ("txqlen", 32767)])
def test_a_number_that_some_kernel_does_not_survive_or_takes_is_too_large(key: str, most: int) -> None:
    loads(PAIR.replace("KEY", key).replace("VALUE", str(most)))
    with pytest.raises(NkformError) as caught:
        loads(PAIR.replace("KEY", key).replace("VALUE", str(most + 1)))
    (problem,) = caught.value.problems
    assert problem.code == "NK0204"
    assert f"between 0 and {most}" in problem.message


@pytest.mark.parametrize(("key", "most"), [("headroom", 65000), ("tailroom", 65535)])
@pytest.mark.parametrize("beyond", [0, 1])
def test_computed_for_devices_has_the_limit_of_a_number(key: str, most: int, beyond: int) -> None:
    pair = Device("a", "netkit", {key: ComputedFor(("low", "high"))}, Endpoint("a"), Endpoint("b"))
    root_devices = {"low": RootDevice(500 + beyond, 500 + beyond), "high": RootDevice(most - 500, most - 500)}
    resolved = resolve(Node("w", devices={"a": pair}), KERNEL, root_devices)
    assert [problem.code for problem in resolved.problems] == ["NK0405"] * beyond
    assert resolved.devices["a"].attrs[key] == most
    assert all(str(most + 1) in problem.message and str(most) in problem.message for problem in resolved.problems)
