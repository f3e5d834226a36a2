"""Routes that the kernel changes or removes with something else of the spec: they are as declared, there and back."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, kinds

Spec = dict[str, Any]


def spec(kind: str, *ends: Spec) -> Spec:
    devices = {
        f"p{number}": {"kind": kind, **end, "peer": {"name": f"eth{number}", "namespace": "a"}}
        for number, end in enumerate(ends)
    }
    return {"version": 1, "node": "w", "namespaces": {"a": {"create": True}}, "devices": devices}


def there_and_back(node: Node, first: Spec, second: Spec) -> None:
    node.apply(first)
    before = netstate_snapshot()
    node.apply(second)
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert differences(before, netstate_snapshot()) == []
    assert node.changes(first) == []


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("via", [{"via": "fd00::9"}, {}], ids=["a gateway", "none"])
@pytest.mark.parametrize(
    ("was", "now", "own"), [(1500, 9000, 1500), (9000, 1500, 9000), (1500, 1400, 1500), (1500, 9000, 1300)]
)
def test_the_mtu_of_an_ipv6_route_does_not_follow_that_of_its_device(
    node: Node, kind: str, was: int, now: int, own: int, via: Spec
) -> None:
    end: Spec = {"addresses": ["fd00::1/64"], "routes": [{"to": "fd09::/64", "mtu": own, **via}]}
    there_and_back(node, spec(kind, {**end, "mtu": was}), spec(kind, {**end, "mtu": now}))


FOUR: Spec = {
    "addresses": ["10.0.0.1/24"],
    "routes": [{"to": "10.9.0.0/16", "via": "10.0.0.9", "src": "10.5.0.1"}],
}
SIX: Spec = {"addresses": ["fd00::1/64"], "routes": [{"to": "fd09::/64", "via": "fd00::9", "src": "fd05::1"}]}


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(["10.5.0.1/32"], ["10.6.0.1/32"], id="IPv4"),
        pytest.param(["fd05::1/128"], ["fd06::1/128"], id="IPv6"),
        pytest.param(["10.5.0.1/24"], [], id="IPv4 alone"),
    ],
)
def test_a_source_goes_from_one_device_to_another(node: Node, kind: str, first: list[str], second: list[str]) -> None:
    route = FOUR if "." in first[0] else SIX
    here, there = {"addresses": first}, {"addresses": second}
    there_and_back(node, spec(kind, route, here, there), spec(kind, route, there, here))


def test_a_source_goes_from_a_device_that_is_removed(node: Node) -> None:
    here: Spec = {"addresses": ["10.5.0.1/32"]}
    gone = spec("veth", FOUR, {}, here)
    del gone["devices"]["p1"]
    there_and_back(node, spec("veth", FOUR, here, {}), gone)


@pytest.mark.parametrize(
    ("route", "first", "second"),
    [
        pytest.param(FOUR, ["10.5.0.1/24"], ["10.7.0.1/24", "10.5.0.1/32"], id="IPv4"),
        pytest.param(SIX, ["fd05::1/64"], ["fd07::1/64", "fd05::1/64"], id="IPv6"),
    ],
)
def test_a_source_of_another_device_changes_its_place(
    node: Node, route: Spec, first: list[str], second: list[str]
) -> None:
    there_and_back(node, spec("veth", route, {"addresses": first}), spec("veth", route, {"addresses": second}))


def test_a_source_goes_from_one_end_of_a_pair_to_the_other(node: Node) -> None:
    route = {"to": "10.9.0.0/16", "via": "10.0.0.9", "src": "10.0.0.1"}
    first, second = spec("veth", {"routes": [route]}), spec("veth", {"routes": [route]})
    for made, own, far in (first, "10.0.0.2/24", "10.0.0.1/24"), (second, "10.0.0.1/24", "10.0.0.2/24"):
        made["devices"]["p0"] |= {"addresses": [own], "peer": {"name": "eth0", "addresses": [far]}}
    there_and_back(node, first, second)
