"""`--target`: what devices keep that are no targets."""

from __future__ import annotations

import pytest

from tests.live.helpers.support import Node
from tests.live.test_collisions import Spec, device, two


@pytest.mark.parametrize(
    ("after", "target", "other"),
    [
        ({"v0": device("e1"), "v1": device("e0")}, "v0", "v1"),
        ({"v1": device("e2"), "v2": device("e1")}, "v2", "v1"),
    ],
    ids=["exchanged names", "a new pair"],
)
def test_the_name_of_a_device_that_is_no_target_is_taken(node: Node, after: Spec, target: str, other: str) -> None:
    node.apply(two())
    said = node.refused(two(**after), "--target", target)
    assert "error[NK0415]" in said
    assert f"add `--target {other}`" in said
    node.apply(two(**after), "--target", target, "--target", other)


def with_state(v0: Spec, v1: Spec) -> Spec:
    return two(v0={**device("e0"), **v0}, v1={**device("e1"), **v1})


BESIDE: dict[str, tuple[tuple[Spec, Spec], tuple[Spec, Spec]]] = {
    "address": (
        ({"addresses": ["10.1.0.1/24"]}, {"addresses": ["10.2.0.1/24"]}),
        ({"addresses": ["10.2.0.1/24"]}, {"addresses": ["10.1.0.1/24"]}),
    ),
    "IPv6 address": (
        ({}, {"addresses": ["2001:db8::1/64"]}),
        ({"addresses": ["2001:db8::1/64"]}, {}),
    ),
    "route": (({}, {"routes": [{"to": "10.9.0.0/16"}]}), ({"routes": [{"to": "10.9.0.0/16"}]}, {})),
    "gateway": (
        ({}, {"addresses": ["10.2.0.1/24"]}),
        ({"routes": [{"to": "10.9.0.0/16", "via": "10.2.0.1", "onlink": True}]}, {}),
    ),
    "source": (
        ({}, {}),
        ({"routes": [{"to": "10.9.0.0/16", "src": "10.3.0.1"}]}, {"addresses": ["10.3.0.1/24"]}),
    ),
}
"""What a device outside of the targets has or shall get: v0 and v1 before and after."""


@pytest.mark.parametrize("what", BESIDE)
def test_a_target_needs_nothing_that_another_device_keeps_or_is_to_get(node: Node, what: str) -> None:
    before, after = (with_state(*each) for each in BESIDE[what])
    node.apply(before)
    said = node.refused(after, "--target", "v0")
    assert said.count("error[NK0463]") == 1
    assert "add `--target v1`" in said
    assert "spec.yaml:" in said
    node.apply(after, "--target", "v0", "--target", "v1")
    node.apply(before, "--target", "v1", "--target", "v0")
    node.apply(after)


def test_a_target_may_have_what_many_ends_have(node: Node) -> None:
    shared = {"addresses": ["169.254.1.1/32", "fe80::7/64"]}
    node.apply(with_state({}, shared))
    node.apply(with_state(shared, {"addresses": []}), "--target", "v0")
