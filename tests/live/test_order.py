"""The order of routes in a spec has no meaning; that of addresses has, whatever was there before."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from nkform.model import Address
from nkform.plan.addresses import Listed
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, ip, kinds
from tests.sizes import SEED

Spec = dict[str, Any]
ADDRESSES = ("10.7.0.1/24", "10.8.0.1/24", "10.7.0.2/24", "10.9.0.1/32")

SCOPES = list(itertools.permutations(["fd00::1/64", "fec0::1/64", "fe80::1/64", "fe8::1/64"]))


def spec(addresses: list[str], routes: list[dict[str, Any]] | None = None, kind: str = "veth") -> Spec:
    device: Spec = {"kind": kind, "addresses": addresses, "peer": {"name": "eth0", "namespace": "web"}}
    if routes is not None:
        device["routes"] = routes
    return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": {"v0": device}}


def source(to: str) -> str:
    """The address that the kernel sends from."""
    found: str = json.loads(ip("-j", "route", "get", to))[0]["prefsrc"]
    return found


@pytest.mark.parametrize("kind", kinds())
def test_routes_may_stand_in_any_order(node: Node, kind: str) -> None:
    routes = [
        {"to": "default", "via": "10.20.0.1"},
        {"to": "10.20.0.1/32"},
        {"to": "fd00:1::/64", "via": "fd00:20::1"},
        {"to": "fd00:20::1/128"},
    ]
    node.apply(spec(["10.7.0.1/32", "fd00:7::1/128"], [], kind))
    node.apply(spec(["10.7.0.1/32", "fd00:7::1/128"], routes, kind))
    ip("route", "del", "default")
    ip("route", "del", "10.20.0.1")
    node.apply()
    node.destroy()
    node.apply(spec(["10.7.0.1/32", "fd00:7::1/128"], routes, kind))


def test_the_source_of_a_route_may_be_an_address_of_a_later_device(node: Node) -> None:
    made = spec([])
    peer = {"name": "eth0", "namespace": "web", "routes": [{"to": "10.30.0.0/24", "src": "10.9.0.9"}]}
    made["devices"]["v0"]["peer"] = peer
    made["devices"]["v1"] = {
        "kind": "veth",
        "peer": {"name": "eth1", "namespace": "web", "addresses": ["10.9.0.9/32"]},
    }
    node.apply(made)
    assert "src 10.9.0.9" in ip("route", namespace="web")


@pytest.mark.parametrize("before", list(itertools.permutations(ADDRESSES))[::5], ids=" ".join)
def test_the_same_spec_gives_the_same_source_whatever_was_there(node: Node, before: tuple[str, ...]) -> None:
    routes = [{"to": "default"}, {"to": "10.66.0.0/24", "src": "10.7.0.2"}]
    node.apply(spec(list(ADDRESSES), routes))
    fresh = [source(to) for to in ("192.0.2.1", "10.7.0.77", "10.8.0.77", "10.66.0.1")]
    assert fresh == ["10.7.0.1", "10.7.0.1", "10.8.0.1", "10.7.0.2"]
    node.destroy()
    node.apply(spec(list(before), routes))
    ip("route", "add", "10.55.0.0/24", "dev", "v0", "proto", "bird", "src", "10.7.0.1")
    node.apply(spec(list(ADDRESSES), routes))
    assert [source(to) for to in ("192.0.2.1", "10.7.0.77", "10.8.0.77", "10.66.0.1")] == fresh
    assert "10.55.0.0/24 dev v0 proto bird" in ip("route")
    for text in reversed(ADDRESSES[:3]):  # somebody gives ours again, in another order
        ip("addr", "del", text, "dev", "v0")
        ip("addr", "add", text, "dev", "v0", "proto", "78")
    node.apply()
    assert [source(to) for to in ("192.0.2.1", "10.7.0.77", "10.8.0.77", "10.66.0.1")] == fresh


def test_where_others_have_the_first_address_of_a_subnet_ours_stay_behind_it(node: Node) -> None:
    node.apply(spec(["10.8.0.1/24"]))
    ip("addr", "add", "10.7.0.99/24", "dev", "v0")
    node.apply(spec(["10.7.0.1/24", "10.8.0.1/24", "10.7.0.2/24"]))
    assert source("10.7.0.77") == "10.7.0.99"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # A new address of a subnet takes the place of the first one, but behind the first one of the other subnet.
        (["10.7.0.2/24"], ["10.7.0.3/24", "10.8.0.1/32"]),
        # The one that takes the first one's place comes behind all first ones.
        (["10.6.0.1/24", "10.7.0.1/24", "10.6.0.2/24"], ["10.6.0.2/24", "10.7.0.1/24"]),
    ],
)
def test_an_address_that_takes_the_place_of_another_is_put_in_order(
    node: Node, before: list[str], after: list[str]
) -> None:
    node.apply(spec(before))
    node.apply(spec(after))
    assert order("v0") == [each.text for each in Listed(map(Address, after))]


def test_a_random_order_becomes_any_other_one(node: Node) -> None:
    """Also with an address of others, which stays, in a subnet of its own or at the head of one of ours."""
    chance = random.Random(SEED)
    theirs = ("10.9.0.9/24", "10.6.0.9/24")
    node.apply(spec([]))
    for step in range(40):
        addresses = [f"10.{subnet}.0.{host}/24" for subnet in (6, 7, 8) for host in (1, 2, 3)]
        wanted = chance.sample(addresses, chance.randint(0, len(addresses)))
        if step == 20:
            for text in theirs:
                ip("addr", "add", text, "dev", "v0")
        node.apply(spec(wanted))
        have = [each for each in order("v0") if each not in theirs]
        if step < 20:
            assert have == [each.text for each in Listed(map(Address, wanted))]
        assert {text[:5]: [each for each in have if each[:5] == text[:5]] for text in have} == {
            text[:5]: [each for each in wanted if each[:5] == text[:5]] for text in wanted
        }


IPV6 = ("fd00:7::1/64", "fd00:7::2/64", "fd00:8::1/64", "fd00:9::1/128")


@pytest.mark.parametrize("before", [(), *itertools.permutations(IPV6, 2), IPV6[::-1]], ids=" ".join)
def test_the_same_spec_gives_the_same_ipv6_source_whatever_was_there(node: Node, before: tuple[str, ...]) -> None:
    routes = [{"to": "::/0"}, {"to": "2001:db8:66::/48", "src": "fd00:7::1"}]
    where = ("2001:db8::1", "fd00:7::77", "fd00:8::77", "2001:db8:66::1")
    node.apply(spec(list(IPV6), routes))
    fresh = [source(to) for to in where]
    assert fresh == ["fd00:9::1", "fd00:7::2", "fd00:8::1", "fd00:7::1"]
    node.destroy()
    node.apply(spec(list(before), routes[:1]))
    ip("-6", "addr", "add", "2001:db8:1::9/64", "dev", "v0", "nodad")
    node.apply(spec(list(IPV6), routes))
    ip("-6", "addr", "del", "2001:db8:1::9/64", "dev", "v0")
    assert [source(to) for to in where] == fresh
    shown = node.run("show").out
    assert node.changes(shown) == []
    places = [shown.index(text) for text in IPV6]
    assert places == sorted(places)
    node.apply(spec([*IPV6[1:], IPV6[0]], routes))
    assert source("2001:db8::1") == source("2001:db8:66::1") == "fd00:7::1"
    for text in IPV6:  # somebody gives ours again, in another order
        ip("addr", "del", text, "dev", "v0")
        ip("addr", "add", text, "dev", "v0", "proto", "78", "nodad")
    node.apply(spec(list(IPV6[::-1]), routes))
    assert [source(to) for to in where] == ["fd00:7::1", "fd00:7::1", "fd00:8::1", "fd00:7::1"]


@pytest.mark.parametrize("addresses", SCOPES)
def test_addresses_of_ipv6_stand_in_any_order_of_scopes(node: Node, addresses: tuple[str, ...]) -> None:
    """The kernel sorts them by scope; fec0::/10 has one of its own, and 0fe8:: is nothing special."""
    node.apply(spec(list(addresses)))
    node.apply(spec([*reversed(addresses)]))


@pytest.mark.parametrize("addresses", [ADDRESSES, IPV6, (*ADDRESSES, *IPV6)], ids=["ipv4", "ipv6", "both"])
def test_an_order_that_is_undone_is_the_one_before(node: Node, addresses: tuple[str, ...]) -> None:
    chance = random.Random(SEED)
    for _ in range(8):
        first, second = (chance.sample(addresses, chance.randint(2, len(addresses))) for _ in range(2))
        named = next((text for text in first if text in second), first[0]).partition("/")[0]
        routes = [{"to": "2001:db8:66::/48" if ":" in named else "10.66.0.0/24", "src": named}]
        node.apply(spec(first, routes))
        before, listed = netstate_snapshot(), (order("v0"), order("v0", "-6"))
        node.write(spec(second, routes if named in " ".join(second) else []))
        with injected("rename journal") as injection:
            outcome = node.run("apply", "-y", str(node.path))
        assert injection.hit or second == first
        assert "NK0504" not in outcome.err
        assert differences(before, netstate_snapshot()) == []
        assert (order("v0"), order("v0", "-6")) == listed
        node.destroy()


HOLDERS: dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]] = {
    "to a later device": ({"v1": ["10.5.0.1/32"], "v2": []}, {"v1": [], "v2": ["10.5.0.1/32"]}),
    "to an earlier device": ({"v1": [], "v2": ["10.5.0.1/32"]}, {"v1": ["10.5.0.1/32"], "v2": []}),
    "from a device that goes": ({"v1": ["10.5.0.1/32"]}, {"v2": ["10.5.0.1/32"]}),
    "behind another": ({"v1": ["10.5.0.1/32"]}, {"v1": ["10.6.0.1/24", "10.5.0.1/32"]}),
    "with another prefix": ({"v1": ["10.5.0.1/32"]}, {"v1": ["10.5.0.1/24"]}),
    "to the device itself": ({"v0": ["10.7.0.2/24"], "v1": ["10.5.0.1/32"]}, {"v0": ["10.7.0.2/24", "10.5.0.1/32"]}),
    "from the device itself": ({"v0": ["10.7.0.2/24", "10.5.0.1/32"]}, {"v0": ["10.7.0.2/24"], "v1": ["10.5.0.1/32"]}),
}


@pytest.mark.parametrize("peers", [False, True], ids=["primary", "peer"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("case", HOLDERS)
def test_a_route_outlives_that_its_source_goes_to_another_place(
    node: Node, case: str, family: str, peers: bool
) -> None:
    """With the last address of a source the kernel takes the routes that name it, through whichever device."""

    def text(address: str) -> str:
        if family == "IPv4":
            return address
        value, _, length = address.partition("/")
        return f"fd00:{value.split('.')[1]}::{value[-1]}/{128 if length == '32' else 64}"

    def made(holders: dict[str, list[str]]) -> Spec:
        routes = [{"to": "10.99.0.0/16", "src": "10.5.0.1"}]
        if family == "IPv6":
            routes = [{"to": "fd99::/64", "src": text("10.5.0.1/32").partition("/")[0]}]
        devices: Spec = {}
        for name, addresses in {"v0": [], **holders}.items():
            end: Spec = {
                "addresses": [text(each) for each in addresses],
                **({"routes": routes} if name == "v0" else {}),
            }
            peer = {"name": f"{name}p", "namespace": "web", **(end if peers else {})}
            devices[name] = {"kind": "veth", "peer": peer, **({} if peers else end)}
        return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": devices}

    first, second = map(made, HOLDERS[case])
    node.apply(first)
    before = netstate_snapshot()
    node.write(second)
    with injected("rename journal") as injection:
        outcome = node.run("apply", "-y", str(node.path))
    assert injection.hit
    assert "NK0504" not in outcome.err
    assert differences(before, netstate_snapshot()) == []
    node.apply(second)
    assert node.run("rollback", "-y").code == 0
    assert node.changes(first) == []


def test_the_kernel_lists_addresses_as_the_plan_expects() -> None:
    chance = random.Random(SEED)
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    Path("/proc/sys/net/ipv4/conf/v0/promote_secondaries").write_text("1")
    listed = Listed(())
    for _ in range(300):
        there = list(listed)
        if there and chance.random() < 0.5:
            address = chance.choice(there)
            listed.delete(address)
            ip("addr", "del", address.text, "dev", "v0")
        else:
            address = Address(f"10.{chance.randint(1, 4)}.0.{chance.randint(1, 4)}/{chance.choice((24, 24, 32))}")
            if address in there:
                continue
            listed.add(address)
            ip("addr", "add", address.text, "dev", "v0")
        assert order("v0") == [each.text for each in listed]


def order(device: str, family: str = "-4") -> list[str]:
    """The addresses of a device as `ip` lists them."""
    lines = ip(family, "-o", "address", "show", "dev", device).splitlines()
    return [line.split()[3] for line in lines if not line.split()[3].startswith("fe80")]
