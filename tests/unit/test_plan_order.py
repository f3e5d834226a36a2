"""The order of what a new pair gets."""

from __future__ import annotations

from nkform.model import Address, Device, Endpoint, Route
from nkform.plan.actions import AddAddress, AddRoute, CreatePair, SetSysctls, SetUp, create, end_of

FOUR, SIX = Address("10.0.0.2/32"), Address("fd00::2/128")
ROUTE = Route("0.0.0.0/0", via="10.0.0.1")


def end(name: str, namespace: str = "", *, up: bool = True) -> Endpoint:
    return Endpoint(name, namespace, {"up": up}, (SIX, FOUR), (ROUTE,), {"ipv4.rp_filter": "0"})


def test_the_workloads_end_gets_its_ipv6_addresses_when_it_is_up_and_the_nodes_end_before() -> None:
    primary, peer = end("v0"), end("eth0", "web")
    device = Device("v0", "veth", {}, primary, peer)
    inside, outside = end_of("v0", peer), end_of("v0", primary)
    assert list(create(device)) == [
        CreatePair(device),
        SetSysctls(inside, peer.sysctl),
        AddAddress(inside, FOUR),
        SetUp(inside, True),
        AddAddress(inside, SIX),
        AddRoute(inside, ROUTE),
        SetSysctls(outside, primary.sysctl),
        AddAddress(outside, SIX),
        AddAddress(outside, FOUR),
        SetUp(outside, True),
        AddRoute(outside, ROUTE),
    ]


def test_an_end_that_stays_down_gets_its_addresses_and_no_routes() -> None:
    peer = end("eth0", "web", up=False)
    device = Device("v0", "veth", {}, Endpoint("v0"), peer)
    inside = end_of("v0", peer)
    assert list(create(device)) == [
        CreatePair(device), SetSysctls(inside, peer.sysctl), AddAddress(inside, SIX), AddAddress(inside, FOUR),
    ]  # fmt: skip
