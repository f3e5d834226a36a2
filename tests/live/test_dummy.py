"""Dummies from a spec to the kernel: devices of nkform's own that have no peer, with `ip` as the witness."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import yaml

from tests.live.helpers.support import Node, features, ip, link, links, sh
from tests.live.test_attacks import Score, attacked, nothing_is_left, prisoner
from tests.live.test_watch import watch  # noqa: F401  # a fixture
from tests.sizes import SEED

LACKING = "dummy" not in features()
needs_dummy = pytest.mark.skipif(LACKING, reason="this kernel has no dummy devices (CONFIG_DUMMY)")
pytestmark = pytest.mark.usefixtures("made_once")

PROGRAMS = {"count": {"template": "counters"}, "shut": {"template": "verdict", "params": {"verdict": "drop"}}}


def spec(name: str = "d0", **changes: Any) -> dict[str, Any]:
    device = {"kind": "dummy", "addresses": ["192.0.2.1/32", "fd00::1/128"], **changes}
    return {"version": 1, "node": "w", "programs": PROGRAMS, "devices": {name: device}}


FULL = spec(
    mtu=1400,
    mac="02:00:00:00:00:01",
    txqlen=10,
    routes=[{"to": "10.9.0.0/16"}, {"to": "10.8.0.0/16", "via": "10.9.0.1", "src": "192.0.2.1"}],
    sysctl={"ipv4": {"arp_ignore": 1}},
    programs={"ingress": ["count"], "egress": ["count"]},
)


def addresses(name: str) -> set[str]:
    found = json.loads(ip("-j", "addr", "show", "dev", name))[0]["addr_info"]
    return {f"{each['local']}/{each['prefixlen']}" for each in found if each["scope"] != "link"}


@pytest.mark.smoke
@needs_dummy
def test_it_is_made_changed_and_destroyed(node: Node) -> None:
    node.apply(FULL)
    made = link("d0")
    assert made["linkinfo"]["info_kind"] == "dummy"
    assert (made["mtu"], made["address"], made["txqlen"]) == (1400, "02:00:00:00:00:01", 10)
    assert made["ifalias"] == "nkform:w"
    assert "UP" in made["flags"]
    assert addresses("d0") == {"192.0.2.1/32", "fd00::1/128"}
    assert "10.8.0.0/16 via 10.9.0.1" in ip("route")
    assert sh("sysctl", "-n", "net.ipv4.conf.d0.arp_ignore").strip() == "1"
    shown = node.run("show").out
    assert yaml.safe_load(shown)["devices"]["d0"]["kind"] == "dummy"
    assert node.changes(shown) == []
    node.apply(spec(mac="02:00:00:00:00:02", addresses=["192.0.2.2/32"], up=False))
    changed = link("d0")
    assert (changed["ifindex"], changed["address"]) == (made["ifindex"], "02:00:00:00:00:02")
    assert "UP" not in changed["flags"]
    assert addresses("d0") == {"192.0.2.2/32"}
    node.destroy()
    assert links() == set()


@needs_dummy
@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_its_programs_see_what_it_transmits(node: Node, attach: str) -> None:
    node.apply({**spec(), "devices": {"d0": {**FULL["devices"]["d0"], "attach": attach}}})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for _ in range(3):
            out.sendto(b"lost", ("10.9.1.1", 9))
    (device,) = json.loads(node.run("status", "--json").out)["devices"]
    programs = {hook: program for hook, (program,) in device["hooks"].items()}
    assert {program["way"] for program in programs.values()} == {"tc" if attach == "tc" else "link"}
    packets = {hook: program["numbers"]["counters"]["ipv4"]["packets"] for hook, program in programs.items()}
    assert packets == {"ingress": 0, "egress": 3}
    node.apply(spec())
    assert node.run("status", "--json").out.count('"template": "counters"') == 0


@needs_dummy
def test_one_that_exists_is_adopted_and_given_back(node: Node) -> None:
    ip("link", "add", "d0", "type", "dummy")
    index = link("d0")["ifindex"]
    assert "NK0412" in node.refused(spec())
    node.apply(spec(), "--adopt")
    assert (link("d0")["ifindex"], link("d0")["ifalias"]) == (index, "nkform:w")
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert link("d0")["ifindex"] == index
    assert "ifalias" not in link("d0")
    assert addresses("d0") == set()


@needs_dummy
@pytest.mark.parametrize("kind", ["veth", "auto"])
def test_it_becomes_a_pair_and_comes_back(node: Node, kind: str) -> None:
    pair = spec(kind=kind, peer={"name": "p0"}, programs={"peer": ["count"]})
    node.apply(FULL)
    assert "a dummy has no peer" in node.plan(pair).out
    node.apply(pair)
    assert links() == {"d0", "p0"}
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert links() == {"d0"}
    assert node.changes(FULL) == []
    node.apply(pair)
    node.apply(FULL)
    assert links() == {"d0"}


@needs_dummy
def test_a_saved_plan_carries_it(node: Node) -> None:
    path = node.folder / "node.plan"
    assert node.plan(FULL, "-o", str(path)).code == 0
    outcome = node.run("apply", str(path))
    assert outcome.code == 0, outcome.err
    assert node.changes(FULL) == []
    assert node.plan(spec(), "-o", str(path)).code == 0
    ip("link", "set", "d0", "mtu", "1300")
    outcome = node.run("apply", str(path))
    assert outcome.code == 1
    assert "NK0620" in outcome.err


@needs_dummy
def test_what_others_change_is_healed(node: Node, watch: Callable[..., Any]) -> None:  # noqa: F811
    node.apply(FULL)
    process = watch("--heal")
    ip("addr", "del", "192.0.2.1/32", "dev", "d0")
    process.settled("addresses", "d0")
    ip("link", "del", "d0")
    process.settled("", "d0")
    assert process.stop() == 0
    assert node.changes(FULL) == []


@needs_dummy
def test_many_go_together_and_leave_those_of_others(node: Node) -> None:
    ip("link", "add", "theirs", "type", "dummy")
    many = {f"d{number}": {"kind": "dummy"} for number in range(5)}
    node.apply({**spec(), "devices": many})
    node.apply({**spec(), "devices": {}})
    assert links() == {"theirs"}


STATES: list[dict[str, Any]] = [
    {**spec(), "devices": {}},
    FULL,
    spec(mtu=1300, addresses=["192.0.2.1/32", "192.0.2.3/24"], programs={"egress": ["shut", "count"]}),
    spec(kind="veth", mtu=1300, peer={"name": "p0"}),
    spec(up=False),
]


@pytest.mark.long
@needs_dummy
def test_it_is_changed_whole_or_not_at_all(node: Node, tell: Callable[[str], None]) -> None:
    score, chance = Score(), random.Random(SEED)
    with prisoner(score):
        for first, second in pairwise([*STATES, STATES[0]]):
            attacked(node, first, second, score, chance)
        nothing_is_left(node, "w")
    tell(str(score))


@pytest.mark.skipif(not LACKING, reason="this kernel has dummy devices")
def test_a_kernel_without_them_is_told_of(node: Node) -> None:
    said = node.refused(spec())
    assert "error[NK0401]: this kernel has no dummy devices" in said
    assert "CONFIG_DUMMY" in said
