"""The MTUs that others chose for IPv6, of a link and of routes through it, outlive another MTU of the link."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.helpers.chain_sites import inside
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds
from tests.live.test_foreign_state import virtual
from tests.live.test_pairs import veth

Spec = dict[str, Any]
Chosen = dict[str, int]


def read(device: str, namespace: str = "") -> int:
    if namespace:
        with inside(namespace):
            return read(device)
    return int(Path(f"/proc/sys/net/ipv6/conf/{device}/mtu").read_text())


def write(device: str, value: int, namespace: str = "") -> None:
    if namespace:
        with inside(namespace):
            write(device, value)
    else:
        if device in ("to-a", "eth0"):  # the kernel sets it once more, some time after a pair came up
            until(lambda: "fe80::" in (said := ip("-6", "addr", "show", "dev", device)) and "tentative" not in said)
        Path(f"/proc/sys/net/ipv6/conf/{device}/mtu").write_text(str(value))


def chosen() -> Chosen:
    """The MTUs for IPv6 of both ends, and of the routes of others through them."""
    found = {"to-a": read("to-a"), "eth0": read("eth0", "a")}
    for namespace in ("", "a"):
        for route in json.loads(ip("-6", "-j", "route", "show", "table", "77", namespace=namespace)):
            found[f"{route['dst']} {route.get('gateway')} {route['dev']}"] = route["metrics"][0]["mtu"]
    return found


def choose() -> Chosen:
    for prefix, via, words in (
        ("2001:db8:1::/48", "", "mtu 1400"),
        ("2001:db8:2::/48", "via fe80::9", "mtu 1500"),
        ("2001:db8:3::/48", "", "mtu lock 1450"),
        ("2001:db8:4::/48", "", "mtu 1280 metric 9 proto bird hoplimit 7"),
    ):
        for device, namespace in (("to-a", ""), ("eth0", "a")):
            line = f"-6 route add {prefix} {via} dev {device} table 77 {words}"
            ip(*line.split(), namespace=namespace)
    write("to-a", 1450)
    write("eth0", 1440, "a")
    found = chosen()
    assert len(found) == 10
    return found


def lower(made: Spec) -> None:
    made["devices"]["to-a"]["mtu"] = 1300


def higher(made: Spec) -> None:
    made["devices"]["to-a"]["mtu"] = 1600


def small(made: Spec) -> None:
    made["devices"]["to-a"]["mtu"] = 1000


def down(made: Spec) -> None:
    made["devices"]["to-a"]["up"] = False


def anew(made: Spec) -> None:
    device = made["devices"]["to-a"]
    device |= {"scrub": "none"} if device["kind"] == "netkit" else {"numtxqueues": 2}


def without(made: Spec) -> None:
    del made["devices"]["to-a"]


KEPT = (higher, anew)


@pytest.mark.parametrize("way", [lower, higher, small, down, anew, without])
@pytest.mark.parametrize("kind", kinds())
def test_what_others_chose_is_as_before_on_the_way_back(node: Node, kind: str, way: Callable[[Spec], None]) -> None:
    """And after a run, as far as the link's new MTU leaves room for it; what it does not is named."""
    made = veth(kind)
    node.apply(made)
    before = choose()
    way(made)
    node.write(made)
    with injected("rename journal") as injection:
        assert node.run("apply", "-y", str(node.path)).code == 1
    assert injection.hit
    assert chosen() == before
    told = node.apply().err
    if way in KEPT:
        assert ("NK0521" in told, chosen()) == (False, before)
    elif way is small:
        assert "IPv6 MTU 1450 of to-a" in told
    elif way is lower:
        assert [read("to-a"), read("eth0", "a")] == [1300, 1300]
        assert "IPv6 MTU 1450 of to-a" in told
        assert "IPv6 MTU 1440 of eth0 in a" in told
        assert told.count("2001:db8:1::/48") == told.count("2001:db8:2::/48") == 2
        assert "2001:db8:3::/48" not in told
        assert "2001:db8:4::/48" not in told
    assert node.run("rollback", "-y").code == 0
    assert chosen() == before


def test_routes_of_ours_beside_are_left_alone(node: Node) -> None:
    """The kernel would replace the first of all that have one destination, table and metric."""
    made = veth()
    made["devices"]["to-b"]["routes"].append({"to": "2001:db8:5::/48", "metric": 1024})
    node.apply(made)
    ip("-6", "route", "append", "2001:db8:5::/48", "dev", "to-a", "mtu", "1400", "metric", "1024")

    def routes() -> list[str]:
        return sorted(ip("-6", "route", "show", "2001:db8:5::/48").splitlines())

    before = routes()
    assert len(before) == 2
    lower(made)
    node.apply(made)
    assert node.run("rollback", "-y").code == 0
    assert routes() == before


def test_what_stands_upon_a_device_keeps_what_was_chosen_for_it(node: Node) -> None:
    made = veth()
    node.apply(made)
    virtual("to-a", "above", 7)
    ip("link", "set", "above", "addrgenmode", "none", "up")
    ip("-6", "route", "add", "2001:db8:1::/48", "dev", "above", "mtu", "1400")
    write("above", 1450)
    before = read("above"), ip("-6", "route", "show", "2001:db8:1::/48")
    lower(made)
    node.apply(made)
    assert read("above") == 1300
    assert node.run("rollback", "-y").code == 0
    assert (read("above"), ip("-6", "route", "show", "2001:db8:1::/48")) == before


def test_what_a_spec_declares_is_no_choice_of_others(node: Node) -> None:
    made = veth()
    node.apply(made)
    write("to-a", 1450)
    made["devices"]["to-a"] |= {"mtu": 1600}
    made["devices"]["to-a"]["sysctl"]["ipv6"] = {"mtu": 1400}
    node.apply(made)
    assert read("to-a") == 1400
    assert node.run("rollback", "-y").code == 0
    assert read("to-a") == 1450
