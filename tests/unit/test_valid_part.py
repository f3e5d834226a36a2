"""What of a node's data no spec can say is left out, and nothing else: what remains is a valid spec."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkform.document.names import ifname_fault
from nkform.problem import Problem
from nkform.report.spec_text import escaped
from nkform.report.spec_yaml import render
from nkform.spec import loads
from nkform.spec.valid_part import PASSES, sayable, valid_part

DATA: dict[str, Any] = {
    "version": 1,
    "node": "ev",
    "namespaces": {"a": {"create": True}},
    "devices": {
        "v0": {
            "kind": "veth",
            "addresses": ["10.0.0.1/16"],
            "peer": {"name": "eth0", "namespace": "a", "addresses": ["10.0.0.2/16"], "routes": [{"to": "10.9.0.0/16"}]},
        },
        "w0": {"kind": "veth", "mtu": 1400, "peer": {"name": "w1", "namespace": "a"}},
    },
}


def with_peer(**more: Any) -> dict[str, Any]:
    data = copy.deepcopy(DATA)
    data["devices"]["v0"]["peer"].update(more)
    return data


def test_a_valid_spec_stays_as_it_is() -> None:
    assert valid_part(DATA) == (DATA, [])


PREFIXES = ["10.9.0.0/16", "10.0.0.0/16", "0.0.0.0/0", "ff05::/16", "fd05::/64", "239.0.0.0/8", "10.9.0.1/16", "x", ""]
GATEWAYS = [None, "10.0.0.1", "10.0.0.2", "10.0.255.255", "fd00::1", "ff02::1", "127.0.0.1", "", "10.9.0.1"]
ROUTES = st.fixed_dictionaries(
    {"to": st.sampled_from(PREFIXES)},
    optional={
        "via": st.sampled_from(GATEWAYS[1:]),
        "onlink": st.booleans(),
        "metric": st.sampled_from([0, 5, 2**32 - 1, 2**32]),
        "table": st.sampled_from([0, 1, 255, 2**32]),
        "mtu": st.sampled_from([1, 1300, 2**32]),
        "src": st.sampled_from(["10.0.0.2", "10.0.0.3", "fd00::1"]),
    },
)
ADDRESSES = st.sampled_from(
    [
        "10.0.0.2/16",
        "10.0.0.1/16",
        "10.0.0.0/16",
        "239.1.1.1/32",
        "fd00::1/64",
        "127.0.0.1/8",
        "0.0.0.0/0",
        "fe80::1/64",
    ]
)
ENDS = st.fixed_dictionaries(
    {},
    optional={
        "routes": st.lists(ROUTES, max_size=6),
        "addresses": st.lists(ADDRESSES, max_size=4),
        "mac": st.sampled_from(["01:00:00:00:00:01", "02:00:00:00:00:01", "00:00:00:00:00:00"]),
        "txqlen": st.sampled_from([0, 1000, 2**32 - 1]),
        "sysctl": st.sampled_from([{"ipv6": {"mtu": 10**9}}, {"ipv4": {"X": 1}}, {"ipv6": {"disable_ipv6": 1}}]),
        "name": st.sampled_from(["eth0", "all", "\x1b", "\u2028", "n" * 15, "à"]),
    },
)


@given(ENDS, ENDS)
@settings(max_examples=300, deadline=None)
def test_what_remains_is_valid(peer: dict[str, Any], primary: dict[str, Any]) -> None:
    data = with_peer(**peer)
    data["devices"]["v0"].update({key: value for key, value in primary.items() if key != "name"})
    before = copy.deepcopy(data)
    left, warnings = valid_part(data)
    assert data == before
    loads(render(escaped(left)))
    assert left["devices"]["w0"] == DATA["devices"]["w0"]
    assert bool(warnings) == (left != data)
    assert not any("no valid spec" in warning.message for warning in warnings)


def test_one_route_goes_and_the_others_stay() -> None:
    routes = [{"to": "ff05::/16"}, {"to": "10.9.0.0/16"}, {"to": "10.9.0.0/16"}, {"to": "10.8.0.0/16"}]
    left, (warning,) = valid_part(with_peer(routes=routes))
    assert left["devices"]["v0"]["peer"]["routes"] == [{"to": "10.9.0.0/16"}, {"to": "10.8.0.0/16"}]
    assert (warning.code, warning.severity) == ("NK0619", "warning")
    assert 'the route to ff05::/16 of its peer ("ff05::/16" is multicast' in warning.message


def test_what_leans_on_what_is_left_out_does_not_take_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def first_route(data: dict[str, Any]) -> Iterator[Problem]:
        passes.append(data)
        if data["devices"].get("v0", {}).get("peer", {}).get("routes"):
            yield Problem("NK0310", "it leads nowhere", path=("devices", "v0", "peer", "routes", 0, "via"))

    passes: list[dict[str, Any]] = []
    monkeypatch.setattr("nkform.spec.valid_part._problems", first_route)
    left, (warning,) = valid_part(with_peer(routes=[{"to": f"10.{step}.0.0/16"} for step in range(100)]))
    assert list(left["devices"]) == ["w0"]
    assert len(passes) == PASSES + 2
    assert warning.message.endswith(f"; {PASSES - 2} more like it")


def test_what_cannot_be_mended_is_told() -> None:
    left, (warning,) = valid_part({**DATA, "node": "a b"})
    assert left["node"] == "a b"
    assert "no valid spec" in warning.message


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=15))
def test_every_name_has_one_that_can_be_said(name: str) -> None:
    assert ifname_fault(sayable(name)) is None


@pytest.mark.parametrize(("name", "said"), [("\x1b[31m", "\\x1b[31m"), ("default", "_default"), ("\u2028", "\\u2028")])
def test_a_name_stays_legible(name: str, said: str) -> None:
    assert sayable(name) == said
