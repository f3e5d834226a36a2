"""Routes of others through their own devices that name an address of ours as their source, and lead several ways."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.fault_injection import injected
from tests.live.helpers.support import Node, ip
from tests.live.test_pairs import veth

ROUTES = (
    "route add 198.51.100.0/24 src 10.7.0.1 nexthop via 192.0.2.7 dev uplink nexthop via 192.0.2.8 dev uplink weight 3",
    "route add 198.51.101.0/24 src 10.7.0.1 nhid 7",
    "route add 198.51.102.0/24 nhid 7 src 10.7.0.1 metric 9 proto bird",
    "route add 198.51.103.0/24 src 10.7.0.1 nhid 70",
    "-6 route add 2001:db8:1::/48 src fd00:7::1 nexthop via 2001:db8::7 dev uplink nexthop via 2001:db8::8 dev uplink",
    "-6 route add 2001:db8:2::/48 src fd00:7::1 nhid 8",
)
THEIR_OWN = "route add 198.51.104.0/24 nexthop via 192.0.2.7 dev uplink nexthop via 192.0.2.8 dev uplink"


def spec(*addresses: str) -> dict[str, Any]:
    made = veth()
    made["devices"]["to-a"]["addresses"] = list(addresses)
    return made


def routes() -> list[str]:
    return [line.strip() for six in ("-4", "-6") for line in ip(six, "route", "show", "table", "main").splitlines()
            if "kernel" not in line]  # fmt: skip


@pytest.fixture
def uplink() -> None:
    ip("link", "add", "uplink", "type", "veth", "peer", "name", "far")
    for name in ("uplink", "far"):
        ip("link", "set", name, "addrgenmode", "none", "up")
    ip("addr", "add", "192.0.2.1/24", "dev", "uplink")
    ip("addr", "add", "2001:db8::1/64", "dev", "uplink", "nodad")
    ip("nexthop", "add", "id", "7", "via", "192.0.2.7", "dev", "uplink")
    ip("nexthop", "add", "id", "9", "via", "192.0.2.9", "dev", "uplink")
    ip("nexthop", "add", "id", "70", "group", "7/9")
    ip("nexthop", "add", "id", "8", "via", "2001:db8::7", "dev", "uplink")


@pytest.mark.usefixtures("uplink")
def test_they_come_back_with_the_address_and_are_named_without(node: Node) -> None:
    node.apply(spec("10.7.0.1/24", "fd00:7::1/64"))
    for line in (*ROUTES, THEIR_OWN):
        ip(*line.split())
    before = routes()
    node.write(spec("10.7.0.2/24"))
    with injected("rename journal") as injection:
        told = node.run("apply", "-y", str(node.path)).err
    assert injection.hit
    assert "NK0505" in told
    assert sorted(routes()) == sorted(before)
    told = node.apply().err
    assert "NK0521" in told
    for prefix in ("198.51.100.0/24", "198.51.101.0/24", "198.51.102.0/24", "198.51.103.0/24", "2001:db8:1::/48"):
        assert f"route {prefix}" in told
    assert "198.51.104.0/24" not in told
    assert node.run("rollback", "-y").code == 0
    assert sorted(routes()) == sorted(before)


@pytest.mark.usefixtures("uplink")
def test_they_outlive_a_pair_that_is_made_anew(node: Node) -> None:
    made = spec("10.7.0.1/24", "fd00:7::1/64")
    node.apply(made)
    for line in ROUTES:
        ip(*line.split())
    before = routes()
    made["devices"]["to-a"]["numtxqueues"] = 2
    assert "NK0521" not in node.apply(made).err
    assert sorted(routes()) == sorted(before)
