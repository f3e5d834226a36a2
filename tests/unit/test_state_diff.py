"""What counts as a difference between a node before a run and after it was taken back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nkform.model import Address, Attached, Device, Endpoint, Hook, Namespace, Node
from nkform.plan.state_diff import state_diff

OURS = Attached(7, 70, "count", "d1", True)
THEIRS = Attached(9, 90, "tracer")


def device(*addresses: Address, hook: tuple[Attached, ...] = (OURS,), **values: object) -> Device:
    ends = Endpoint("x", attrs={"headroom": 64}, addresses=addresses), Endpoint("y")
    return replace(Device("x", "veth", {}, *ends, owner="n", hooks={"peer": Hook(hook)}), **values)  # type: ignore[arg-type]


def node(*devices: Device, links: dict[str, bool] | None = None) -> Node:
    return Node("n", {"": Namespace("", links=links or {})}, {each.name: each for each in devices})


ROOM = {size: {"headroom": size} for size in (0, 64, 80)}
A1, A2, FOREIGN = Address("10.0.0.1/24", True), Address("10.0.0.2/24", True), Address("192.0.2.1/32", False)


@pytest.mark.parametrize(
    ("before", "after", "always", "later"),
    [
        pytest.param(node(device()), node(device(index=5)), 0, 0, id="another ifindex"),
        pytest.param(node(device()), node(device(hook=(replace(OURS, place=5),))), 0, 0, id="another link"),
        pytest.param(node(device(A1)), node(device()), 1, 1, id="an address of ours is gone"),
        pytest.param(node(device(A1, A2)), node(device(A2, A1)), 1, 1, id="another address is the first"),
        pytest.param(node(device()), node(device(hook=())), 1, 1, id="a program of ours is gone"),
        pytest.param(node(device()), node(), 1, 1, id="a device of ours is gone"),
        pytest.param(node(), node(device()), 1, 1, id="a device of ours is left"),
        pytest.param(node(), node(links={"x": True}), 1, 1, id="a link of ours is left"),
        pytest.param(node(device(FOREIGN)), node(device()), 1, 0, id="an address of others is gone"),
        pytest.param(node(device()), node(device(FOREIGN)), 0, 0, id="an address of others has come"),
        pytest.param(node(device(hook=(OURS, THEIRS))), node(device()), 1, 0, id="a program of others is gone"),
        pytest.param(node(device()), node(device(hook=(THEIRS, OURS))), 0, 0, id="a program of others has come"),
        pytest.param(
            node(device(hook=(OURS, THEIRS))), node(device(hook=(THEIRS, OURS))), 1, 1, id="ours ran before theirs"
        ),
        pytest.param(node(device(owner=None)), node(), 1, 0, id="a device of others is gone"),
        pytest.param(node(), node(device(owner=None)), 0, 0, id="a device of others has taken a name of ours"),
        pytest.param(node(links={"pod": False}), node(), 0, 0, id="a link of others is gone"),
        pytest.param(node(device()), node(device(enslaved=True)), 0, 0, id="somebody has put it into a bridge"),
        pytest.param(node(device(enslaved=True)), node(device()), 1, 0, id="it is in no bridge any more"),
        pytest.param(node(device(attrs=ROOM[0])), node(device(attrs=ROOM[64])), 0, 0, id="a bridge left it headroom"),
        pytest.param(node(device(attrs=ROOM[0])), node(device(attrs=ROOM[80])), 1, 1, id="it has another headroom"),
        pytest.param(node(device(attrs=ROOM[64])), node(device(attrs=ROOM[0])), 1, 1, id="it lost its headroom"),
        pytest.param(
            node(device(attrs=ROOM[0])), node(device(attrs=ROOM[80], enslaved=True)), 0, 0, id="a bridge raised it"
        ),
        pytest.param(
            node(device(attrs=ROOM[80], enslaved=True)), node(device(attrs=ROOM[0])), 1, 0, id="a bridge let it go"
        ),
    ],
)
def test_what_counts_right_after_a_run_and_later(before: Node, after: Node, always: int, later: int) -> None:
    assert (len(state_diff(before, after)), len(state_diff(before, after, losses=False))) == (always, later)


def test_a_device_without_a_mark_counts_where_undoing_failed() -> None:
    assert state_diff(node(), node(device(owner=None)), newcomers=True) == ["device x"]
