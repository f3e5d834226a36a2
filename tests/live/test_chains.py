"""Chains of programs from a spec to the kernel: one contract for every kind of hook and both engines, with packets."""

from __future__ import annotations

import contextlib
import copy
import errno
import json
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from nkform.apply import chains as carried_out
from nkform.apply.executor import Executor
from nkform.kernel import bpffs
from nkform.kernel.bpf_links import MAX_PROGRAMS
from nkform.kernel.netlink import KernelError
from nkform.plan.actions import Action
from tests.live.chain_sites import (
    CLSACT_EGRESS,
    CLSACT_INGRESS,
    DEVICE,
    FAR,
    MACS,
    NEAR,
    NETKIT_PEER,
    NETKIT_PRIMARY,
    OPEN,
    OTHER,
    SHUT,
    SILENCE,
    TCX_EGRESS,
    TCX_INGRESS,
    Others,
    Packets,
    Running,
    Site,
    compile_once,
    everywhere,
    inside,
    pins,
    sites,
    turns,
    udp,
)
from tests.live.support import IP, Node, features, ip, link, links, needs, reaches, sh

BPFTOOL = os.environ.get("NKFORM_BPFTOOL") or shutil.which("bpftool") or ""
"""A recent bpftool, where set-up found one."""


@pytest.fixture(autouse=True)
def _bcc_compiles_once(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_once(monkeypatch)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere(metafunc)


@pytest.fixture
def others() -> Iterator[Others]:
    made = Others()
    yield made
    made.close()


def actions(node: Node, spec: dict[str, Any]) -> list[str]:
    """The types of the actions of a plan."""
    outcome = node.plan(spec, "--json")
    assert outcome.code == 0, outcome.err
    return [action["type"] for action in outcome.json()["actions"]]


# --- the contract -----------------------------------------------------------------------


def test_packets_pass_and_are_dropped_as_the_chain_says(node: Node, site: Site, engine: str) -> None:
    spec = site.spec(["count", "guard"], engine)
    node.apply(spec)
    assert site.order() == "count guard"
    with Packets(site) as packets:
        before = site.counted()
        assert packets.passing() == {OPEN, OTHER}
        assert site.counted() >= before + 3
    node.destroy()
    assert (links(), pins()) == (set(), [])


def test_a_new_value_is_an_update_in_place(node: Node, site: Site, engine: str) -> None:
    """The link (or the filter) stays, and so does what was counted."""
    spec = site.spec(["count", "guard"], engine)
    node.apply(spec)
    with Packets(site) as packets:
        assert packets.passing() == {OPEN, OTHER}
        before, counted = site.running(), site.counted()
        spec["programs"]["guard"]["params"] = {"ports": [OTHER]}
        (change,) = node.changes(spec)
        assert change["operation"] == "update"
        assert [field["path"] for field in change["fields"]] == [["programs", site.hook, "guard"]]
        assert actions(node, spec) == ["SetChain"]
        node.apply()
        after = site.running()
        assert [each.place for each in after] == [each.place for each in before]
        assert after[0] == before[0]
        assert after[1].digest != before[1].digest
        assert site.counted() >= counted
        assert packets.passing() == {OPEN, SHUT}
        spec["programs"]["count"]["params"] = {"segments": True}
        counted = site.counted()
        node.apply(spec)
        assert [each.place for each in site.running()] == [each.place for each in before]
        assert site.one("count").program_id != before[0].program_id
        assert site.counted() >= counted


def test_programs_come_go_and_change_places(node: Node, site: Site, engine: str) -> None:
    """What stays keeps its link; what moves keeps its counters."""
    node.apply(site.spec(["count", "guard"], engine))
    with Packets(site) as packets:
        assert packets.passing() == {OPEN, OTHER}
        places = {each.name: each.place for each in site.running()}
        for chain, passing, staying in (
            (["count", "extra", "guard"], {OPEN}, {"count", "guard"}),
            (["extra", "guard", "count"], {OPEN}, {"extra", "guard"}),
            (["guard", "count"], {OPEN, OTHER}, {"guard", "count"}),
            (["count", "guard"], {OPEN, OTHER}, set()),
            (["count", "guard", "extra"], {OPEN}, {"count", "guard"}),
            (["count"], {OPEN, OTHER, SHUT}, {"count"}),
        ):
            counted = site.counted()
            node.apply(site.spec(chain, engine))
            assert site.order() == " ".join(chain)
            now = {each.name: each.place for each in site.running()}
            assert {name for name in now if places.get(name) == now[name]} >= staying
            assert site.counted() >= counted > 0
            assert packets.passing() == passing
            places = now
        node.apply(site.spec([], engine))
        assert (site.order(), pins()) == ("", [])
        node.apply(site.spec(["guard"], engine))
        assert packets.passing() == {OPEN, OTHER}


def test_default_drop_drops_what_falls_through(node: Node, site: Site, engine: str) -> None:
    node.apply(site.spec({"default": "drop", "chain": ["accept"]}, engine))
    assert site.order() == "accept default"
    with Packets(site) as packets:
        assert packets.passing() == {OPEN}
        node.apply(site.spec(["accept"], engine))
        assert packets.passing() == {OPEN, SHUT, OTHER}
        node.apply(site.spec({"default": "drop", "chain": []}, engine))
        assert site.order() == "default"
        assert packets.passing() == set()


def test_blackhole_holds_while_the_chain_is_empty(node: Node, site: Site, engine: str) -> None:
    """And only then: nkform warns of a chain behind which nothing drops."""
    blackhole: dict[str, Any] = {"policy": "blackhole"} if site.hook == "primary" else {"peer": {"policy": "blackhole"}}
    node.apply(site.spec(None, engine, **blackhole))
    with Packets(site) as packets:
        assert packets.passing() == set()
        falling = site.spec(["guard"], engine, **blackhole)
        assert "NK0422" in node.apply(falling).err
        assert packets.passing() == {OPEN, OTHER}
        closed = site.spec({"default": "drop", "chain": ["accept"]}, engine, **blackhole)
        assert "NK0422" not in node.apply(closed).err
        assert packets.passing() == {OPEN}
        assert "NK0422" not in node.apply(site.spec([], engine, **blackhole)).err
        assert packets.passing() == set()


def theirs(site: Site, device: str = DEVICE) -> list[Running]:
    return [each for each in site.running(device) if not each.ours]


def test_a_chain_stands_where_it_shall_among_programs_of_others(
    node: Node, site: Site, engine: str, others: Others
) -> None:
    node.apply(site.spec(None, engine))
    for name, place in (("one", 20000), ("two", 30000)):
        others.attach(site, name, place)
    before = theirs(site)
    one, two = (each.program_id for each in before)
    with Packets(site) as packets:
        for position, order in (
            (None, "one two count guard"),
            ("first", "count guard one two"),
            (
                {"after": "one" if site.direction is None else one},
                "one count guard two",
            ),  # filters are called otherwise
            ("last", "one two count guard"),
            ({"before": two}, "one count guard two"),
            ({"before": one}, "count guard one two"),
            ({"after": two}, "one two count guard"),
            (None, "one two count guard"),
        ):
            chain: dict[str, Any] = {"chain": ["count", "guard"]}
            if position is not None:
                chain["position"] = position
            node.apply(site.spec(chain, engine))
            assert site.order() == order
            assert theirs(site) == before
            assert packets.passing() == {OPEN, OTHER}
        for names in (["guard", "count"], ["extra"], ["count", "extra"]):
            node.apply(site.spec({"chain": names, "position": {"before": two}}, engine))
            assert site.order() == f"one {' '.join(names)} two"
            assert theirs(site) == before
    node.apply(site.spec(None, engine))
    assert site.running() == before
    node.destroy()
    assert (links(), pins()) == (set(), [])


def test_a_chain_stays_between_programs_of_others_when_all_of_it_is_replaced(
    node: Node, site: Site, engine: str, others: Others
) -> None:
    """Without a position it is wherever it is."""
    node.apply(site.spec(["guard"], engine))
    others.attach(site, "before", 0)
    others.attach(site, "after", 40000)
    assert node.changes() == []
    node.apply(site.spec(["count", "extra"], engine))
    assert site.order() == "before count extra after"


def between(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> None:
    """Something happens once, after a plan is made and before it is carried out."""
    genuine = Executor.run

    def run(self: Executor, actions: list[Action]) -> None:
        monkeypatch.setattr(Executor, "run", genuine)
        meanwhile()
        genuine(self, actions)

    monkeypatch.setattr(Executor, "run", run)


@contextlib.contextmanager
def failing_late(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While the block runs, the first plan that is carried out fails when all of it is done."""
    genuine = Executor.run

    def failing(self: Executor, actions: list[Action]) -> None:
        monkeypatch.setattr(Executor, "run", genuine)
        genuine(self, actions)
        raise KernelError(errno.ENOMEM, "go on")

    monkeypatch.setattr(Executor, "run", failing)
    yield
    monkeypatch.setattr(Executor, "run", genuine)


@pytest.mark.parametrize("empty", [False, True], ids=["some", "empty"])
def test_a_chain_that_somebody_changed_meanwhile_is_stale(
    node: Node, site: Site, engine: str, others: Others, empty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(site.spec([] if empty else ["count", "guard"], engine))
    before, pinned = site.running(), pins()
    between(monkeypatch, lambda: others.attach(site, "rival", 50000))
    error = node.refused(site.spec(["guard", "extra"], engine), command="apply")
    assert "NK0501" in error
    assert "somebody changed it since the plan was made" in error
    assert "NK0503" not in error
    assert [each for each in site.running() if each.ours] == before
    assert [each.name for each in theirs(site)] == ["rival"]
    assert pins() == pinned
    node.apply(site.spec(["guard", "extra"], engine))


def test_a_failure_at_any_step_leaves_the_chain_as_it_was(
    node: Node, site: Site, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the step took effect before it failed or not."""
    node.apply(site.spec(["count", "guard", "extra"], engine))
    with Packets(site) as packets:
        assert packets.passing() == {OPEN}
    spec = site.spec({"default": "drop", "chain": ["accept", "guard", "count"]}, engine)
    spec["programs"]["guard"]["params"] = {"ports": [OTHER]}

    def state() -> tuple[object, ...]:
        ours = [(each.name, each.digest) for each in site.running()]
        return ours, pins()

    before, counted = state(), site.counted()
    way = carried_out.Links if site.direction is None else carried_out.Filters
    genuine = {name: getattr(way, name) for name in ("attach", "update", "detach")}
    steps = 0
    for place in range(100):
        taken = 0

        def failing(name: str, place: int = place) -> Callable[..., Any]:
            def step(*args: Any, **more: Any) -> Any:
                nonlocal taken
                taken += 1
                if taken == place // 2 + 1 and place % 2 == 0:
                    raise KernelError(errno.ENOMEM, f"do step {place}")
                done = genuine[name](*args, **more)
                if taken == place // 2 + 1:
                    raise KernelError(errno.ENOMEM, f"do step {place}")
                return done

            return step

        for name in genuine:
            monkeypatch.setattr(way, name, failing(name))
        node.write(spec)
        outcome = node.run("apply", "-y", str(node.path))
        if outcome.code == 0:
            break
        assert place // 2 < 20, outcome.err
        steps += 1
        assert "NK0501" in outcome.err
        assert "NK0503" not in outcome.err, outcome.err
        assert "NK0504" not in outcome.err, outcome.err
        assert state() == before, f"after step {place}"
        assert site.counted() >= counted > 0
    assert steps >= 10
    assert site.order() == "accept guard count default"
    assert site.counted() >= counted
    assert node.changes() == []


def test_a_failure_after_the_chain_leaves_it_as_it_was(
    node: Node, site: Site, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new chain is complete when something else fails."""
    node.apply(site.spec(["count", "guard", "extra"], engine))
    with Packets(site) as packets:
        assert packets.passing() == {OPEN}
        counted, pinned = site.counted(), pins()
        before = [(each.name, each.digest, each.program_id) for each in site.running()]
        changes = ((["extra", "count", "guard"], [SHUT]), (["count", "guard", "extra"], [OTHER]), ([], [SHUT]))
        for chain, ports in changes:
            spec = site.spec(chain, engine)
            spec["programs"]["guard"]["params"] = {"ports": ports}
            with failing_late(monkeypatch):
                error = node.refused(spec, command="apply")
            assert "NK0503" not in error, error
            assert "NK0504" not in error, error
            assert [(each.name, each.digest, each.program_id) for each in site.running()] == before
            assert pins() == pinned
            assert site.counted() >= counted > 0
            assert packets.passing() == {OPEN}


def test_a_failure_after_a_chain_moved_puts_it_back_among_programs_of_others(
    node: Node, site: Site, engine: str, others: Others, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(site.spec(["count", "guard"], engine))
    others.attach(site, "before", 0)
    others.attach(site, "after", 40000)
    counted = site.counted()
    for change in ({"chain": ["count", "guard"], "position": "first"}, {"chain": ["extra"], "position": "last"}):
        with failing_late(monkeypatch):
            error = node.refused(site.spec(change, engine), command="apply")
        assert "NK0505" in error
        assert site.order() == "before count guard after"
        assert site.counted() >= counted
    assert node.changes(site.spec(["count", "guard"], engine)) == []


def test_a_pair_that_is_made_anew_has_its_chain_and_its_counters(
    node: Node, site: Site, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when something fails after that, the old pair is back with its own."""
    spec = site.spec(["count", "guard"], engine)
    node.apply(spec)
    with Packets(site) as packets:
        assert packets.passing() == {OPEN, OTHER}
    counted, index, pinned = site.counted(), link(DEVICE)["ifindex"], pins()
    anew = copy.deepcopy(spec)
    device = anew["devices"][DEVICE]
    if site.kind == "netkit":
        device["mode"] = "l3" if site.mode == "l2" else "l2"
        for end in (device, device["peer"]):
            end.pop("mac", None)
    else:  # a veth is made anew only where its peer shall have a name that another one's still has
        spec["devices"] = {"a0": {"kind": "veth", "peer": {"name": "eth1", "namespace": "a"}}, **spec["devices"]}
        node.apply(spec)
        anew = copy.deepcopy(spec)
        anew["devices"]["a0"]["peer"]["name"], anew["devices"][DEVICE]["peer"]["name"] = "eth0", "eth1"
        anew["devices"] = dict(reversed(anew["devices"].items()))
    assert {change["name"]: change["operation"] for change in node.changes(anew)}[DEVICE] == "replace"
    with failing_late(monkeypatch):
        assert "NK0505" in node.refused(anew, command="apply")
    assert (site.order(), pins()) == ("count guard", pinned)
    assert site.counted() >= counted > 0
    assert node.changes(spec) == []
    node.apply(anew)
    assert link(DEVICE)["ifindex"] != index
    assert site.order() == "count guard"
    assert site.counted() >= counted


def test_a_chain_can_change_for_ever(node: Node, site: Site, engine: str) -> None:
    """Priorities of filters are finite; those between two filters run out after some changes of order."""
    spec = site.spec(["guard"], engine)
    chains = (["guard", "count"], ["guard", "extra", "count"], ["extra", "guard"], ["count", "extra", "guard"])
    for turn in range(turns(24 if site.direction is not None else 4)):
        spec["devices"][DEVICE]["programs"][site.hook] = chains[turn % len(chains)]
        node.write(spec)
        outcome = node.run("apply", "-y", str(node.path))
        assert outcome.code == 0, f"turn {turn}: {outcome.err}"
        assert site.order() == " ".join(chains[turn % len(chains)])


# --- both hooks of a pair ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        pytest.param("netkit", "l2", marks=needs("netkit")),
        pytest.param("netkit", "l3", marks=needs("netkit")),
        ("veth", "l2"),
    ],
)
def test_chains_at_both_hooks_of_a_pair(node: Node, kind: str, mode: str, engine: str) -> None:
    """With packets both ways, and bpftool as a witness. In mode l3 nothing is left of what answers ARP."""
    outward, inward = (NETKIT_PEER, NETKIT_PRIMARY) if kind == "netkit" else (TCX_INGRESS, TCX_EGRESS)
    if kind == "veth" and "tcx" not in features():
        outward, inward = CLSACT_INGRESS, CLSACT_EGRESS
    outward, inward = replace(outward, mode=mode), replace(inward, mode=mode)
    spec = outward.spec(["source", "arp", "count", "guard"], engine)
    spec["programs"] |= {
        "source": {"template": "source_guard"},
        "arp": {"template": "arp_responder", "params": {"addresses": ["10.0.0.77"]}},
    }
    spec["devices"][DEVICE]["programs"]["primary"] = ["count", "extra"]
    planned = node.plan(spec)
    assert ("NK0424" in planned.err) == (mode == "l3")
    assert ("arp" in planned.err) == (mode == "l3")
    node.apply(spec)
    assert outward.order() == ("source arp count guard" if mode == "l2" else "source count guard")
    assert inward.order() == "count extra"
    assert ("arp" in " ".join(pins())) == (mode == "l2" and outward.direction is None)
    with Packets(outward) as out, Packets(inward) as into:
        assert out.passing() == {OPEN, OTHER}
        assert into.passing() == {OPEN, SHUT}
    assert reaches("a", NEAR)
    if mode == "l2":
        asked = [IP, "netns", "exec", "a", "ping", "-c", "1", "-W", "1", "10.0.0.77"]
        subprocess.run(asked, capture_output=True, check=False)
        assert MACS[NEAR] in ip("neigh", "show", "10.0.0.77", namespace="a")
    with forged("10.0.0.3") as sent:
        assert not sent()
    with forged(FAR) as sent:
        assert sent()
    if BPFTOOL:
        bpftool_agrees(outward)
        bpftool_agrees(inward)
    assert node.changes() == []


def bpftool_agrees(site: Site) -> None:
    """Names, order and links of a hook are those that bpftool shows."""
    kind = site.name.replace("-", "/")
    (shown,) = json.loads(sh(BPFTOOL, "-j", "net", "show", "dev", DEVICE))
    there = [each for each in shown["tc"] if each["kind"] == kind and each["devname"] == DEVICE]
    ours = site.running()
    assert len(there) == len(ours)
    if site.direction is not None:
        assert [each["id"] for each in there] == [each.program_id for each in ours]
        return
    assert [(each["prog_id"], each["link_id"]) for each in there] == [(e.program_id, e.place) for e in ours]
    found = {each["id"]: each for each in json.loads(sh(BPFTOOL, "-j", "link", "show"))}
    for each in ours:
        assert found[each.place]["type"] == site.name.partition("-")[0]
        assert found[each.place]["prog_id"] == each.program_id
        assert found[each.place]["attach_type"] == site.name.replace("-", "_")


@contextlib.contextmanager
def forged(source: str) -> Iterator[Callable[[], bool]]:
    """Sends packets of the workload from an address of one's choice, and tells whether they arrive."""
    with inside("a"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    into = udp(NEAR, OPEN)
    into.settimeout(SILENCE)

    def sent() -> bool:
        payload = struct.pack("!HHHH", 1234, OPEN, 8, 0)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 64, 17, 0)
        raw.sendto(header + socket.inet_aton(source) + socket.inet_aton(NEAR) + payload, (NEAR, 0))
        with contextlib.suppress(TimeoutError):
            into.recv(64)
            return True
        return False

    try:
        yield sent
    finally:
        raw.close()
        into.close()


def test_answering_arp_goes_on_when_the_pair_is_made_anew(
    node: Node, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program knows the ifindex of its device, which is another one then."""
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS

    def spec(name: str) -> dict[str, Any]:
        other = "eth0" if name == "eth1" else "eth1"
        made = site.spec(["arp"], engine, peer={"name": name})
        made["programs"]["arp"] = {"template": "arp_responder", "params": {"addresses": ["10.0.0.77"]}}
        made["devices"]["a0"] = {"kind": "veth", "peer": {"name": other, "namespace": "a"}}
        return made

    def answers(name: str) -> bool:
        asked = [IP, "netns", "exec", "a", "ping", "-c", "1", "-W", "1", "10.0.0.77"]
        ip("neigh", "flush", "dev", name, namespace="a")
        for _ in range(5):
            subprocess.run(asked, capture_output=True, check=False)
            if MACS[NEAR] in ip("neigh", "show", "10.0.0.77", namespace="a"):
                return True
        return False

    node.apply(spec("eth0"))
    assert answers("eth0")
    index = link(DEVICE)["ifindex"]
    with failing_late(monkeypatch):
        assert "NK0505" in node.refused(spec("eth1"), command="apply")
    if link(DEVICE)["ifindex"] != index:
        assert answers("eth0")
    node.apply(spec("eth1"))
    assert link(DEVICE)["ifindex"] != index
    assert answers("eth1")


# --- external devices -------------------------------------------------------------------


EXTERNAL = [
    pytest.param(TCX_INGRESS, TCX_EGRESS, "auto", marks=needs("tcx"), id="tcx"),
    pytest.param(CLSACT_INGRESS, CLSACT_EGRESS, "tc", id="clsact"),
]


@pytest.mark.parametrize(("inward", "outward", "attach"), EXTERNAL)
def test_an_external_device_gets_programs_and_loses_only_ours(
    node: Node, engine: str, others: Others, inward: Site, outward: Site, attach: str
) -> None:
    ip("link", "add", "out.0", "type", "veth", "peer", "name", "out1")  # bpffs knows no dots
    for site, name in ((inward, "theirs"), (outward, "others")):
        others.attach(site, name, 100, "out.0")
    before = inward.running("out.0"), outward.running("out.0")
    index = link("out.0")["ifindex"]
    spec = inward.spec(None, engine)
    chains = {"ingress": {"position": "first", "chain": ["guard", "count"]}, "egress": ["count"]}
    spec["devices"] = {"out.0": {"kind": "external", "attach": attach, "programs": chains}}
    spec["namespaces"] = {}
    node.apply(spec)
    assert inward.order("out.0", "ingress") == "guard count theirs"
    assert outward.order("out.0", "egress") == "others count"
    chains["ingress"] = ["count"]
    node.apply(spec)
    assert inward.order("out.0", "ingress") == "count theirs"
    spec["devices"] = {}
    node.apply(spec)
    assert (inward.running("out.0"), outward.running("out.0")) == before
    spec["devices"] = {"out.0": {"kind": "external", "attach": attach, "programs": {"ingress": ["guard"]}}}
    node.apply(spec)
    node.destroy()
    assert (inward.running("out.0"), outward.running("out.0")) == before
    assert (pins(), link("out.0")["ifindex"]) == ([], index)


# --- warnings and errors ----------------------------------------------------------------


@needs("tcx")
def test_filters_that_a_chain_hides_are_named(node: Node, others: Others) -> None:
    node.apply(TCX_INGRESS.spec([]))
    others.attach(CLSACT_INGRESS, "hidden", 7)
    warned = node.plan(TCX_INGRESS.spec(["count"])).err
    assert "NK0423" in warned
    assert "hidden" in warned
    assert "NK0423" not in node.plan(CLSACT_INGRESS.spec(["count"])).err
    node.apply(TCX_INGRESS.spec(["count"]))
    assert [each.name for each in CLSACT_INGRESS.running()] == ["hidden"]


def refused_programs(site: Site, engine: str = "auto", **programs: Any) -> dict[str, Any]:
    """A spec whose chain is these programs."""
    spec = site.spec(list(programs), engine)
    spec["programs"] = programs
    return spec


WRONG: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("template", {"p": {"template": "counter"}}, ("NK0704", "did you mean counters?")),
    ("parameter", {"p": {"template": "udp_ports", "params": {"ports": [1], "port": 1}}}, ("port", "ports")),
    ("missing", {"p": {"template": "udp_ports"}}, ("ports",)),
    ("value", {"p": {"template": "udp_ports", "params": {"ports": [70000]}}}, ("70000", "65535")),
    ("code", {"p": {"template": "udp_ports", "params": {"ports": ["1; return 0"]}}}, ("1; return 0",)),
    ("word", {"p": {"template": "udp_ports", "params": {"ports": [1], "verdict": "drop; }"}}}, ("drop; }",)),
]


@pytest.mark.parametrize(("programs", "said"), [pytest.param(*row[1:], id=row[0]) for row in WRONG])
def test_what_is_wrong_with_programs_is_said_by_plan(
    node: Node, programs: dict[str, Any], said: tuple[str, ...]
) -> None:
    error = node.refused(refused_programs(TCX_INGRESS, **programs))
    for words in ("spec.yaml:", *said):
        assert words in error
    assert links() == set()


def test_unknown_programs_and_hooks_are_said_by_validate(node: Node) -> None:
    error = node.refused(TCX_INGRESS.spec(["gard"]), command="validate")
    assert "NK0320" in error
    assert "did you mean guard?" in error
    error = node.refused(TCX_INGRESS.spec([], programs={"ingress": ["guard"]}), command="validate")
    assert "NK0322" in error
    assert "primary and peer" in error
    error = node.refused(TCX_INGRESS.spec([], programs={"pear": ["guard"]}), command="validate")
    assert "pear" in error
    error = node.refused(TCX_INGRESS.spec([], programs={"primary": ["source"]}) | PROGRAMS_MISPLACED)
    assert "NK0713" in error
    assert "source_guard cannot stand at the hook primary" in error


PROGRAMS_MISPLACED = {"programs": {"source": {"template": "source_guard"}}}


def test_a_template_that_does_not_compile(node: Node, site: Site, engine: str) -> None:
    node.apply(site.spec(["count", "guard"], engine))
    before = site.running()
    error = node.refused(
        refused_programs(site, engine, count={"template": "counters"}, bad={"template": "uncompilable"}),
        command="apply",
    )
    for words in ("no_such_verdict", "uncompilable/program.bpf.c.j2:5", "NK0505"):
        assert words in error
    assert site.running() == before


def test_a_template_that_the_verifier_refuses(node: Node, site: Site, engine: str) -> None:
    node.apply(site.spec(["count", "guard"], engine))
    before = site.running()
    error = node.refused(
        refused_programs(site, engine, count={"template": "counters"}, bad={"template": "refused"}), command="apply"
    )
    for words in ("is outside of the", "refused", "NK0505"):
        assert words in error
    assert site.running() == before


@pytest.mark.parametrize("place", sites(NETKIT_PEER, TCX_INGRESS))
def test_a_hook_that_is_full_is_said_by_plan(node: Node, place: Site, others: Others) -> None:
    node.apply(place.spec([]))
    for number in range(MAX_PROGRAMS):
        others.attach(place, f"p{number}", 1)
    error = node.refused(place.spec(["guard"]))
    assert "NK0420" in error
    assert "63" in error
    assert len(place.running()) == MAX_PROGRAMS


@pytest.mark.parametrize("place", sites(NETKIT_PEER, TCX_INGRESS))
def test_a_hook_without_room_for_a_change_is_said_by_plan(node: Node, place: Site, others: Others) -> None:
    node.apply(place.spec(["guard", "count"]))
    for number in range(MAX_PROGRAMS - 2):
        others.attach(place, f"p{number}", 1)
    running = place.running()
    error = node.refused(place.spec(["count", "guard"]))
    assert "NK0427" in error
    assert "spec.yaml" in error
    assert place.running() == running
    spec = place.spec(["guard", "count"])
    spec["programs"]["guard"]["params"] = {"ports": [OTHER]}
    node.apply(spec)  # one program in the place of another needs no room


@needs("netkit")
def test_a_chain_that_the_mode_empties_does_not_fall_through(node: Node) -> None:
    spec = NETKIT_PEER.spec(["arp"], mode="l3", peer={"policy": "blackhole"})
    spec["programs"]["arp"] = {"template": "arp_responder", "params": {"addresses": ["169.254.1.1"]}}
    for end in (spec["devices"][DEVICE], spec["devices"][DEVICE]["peer"]):
        end.pop("mac", None)
    said = node.apply(spec).err
    assert "NK0424" in said
    assert "NK0422" not in said


def test_an_anchor_that_is_not_there(node: Node, site: Site, others: Others) -> None:
    node.apply(site.spec([]))
    others.attach(site, "there", 1)
    number = site.running()[0].program_id
    error = node.refused(site.spec({"chain": ["guard"], "position": {"after": "elsewhere"}}))
    for words in ("NK0421", "elsewhere", f"(id {number})"):
        assert words in error
    for chain in ({"chain": ["guard"], "position": {"before": "there"}}, {"chain": [], "position": {"before": number}}):
        if site.direction is None or chain["chain"] == []:
            node.apply(site.spec(chain))


def test_a_bpffs_that_is_not_mounted_is_mounted(node: Node) -> None:
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS
    sh("umount", "/sys/fs/bpf")
    try:
        node.apply(site.spec(["guard"]))
        assert site.order() == "guard"
        node.destroy()
    finally:
        if not bpffs.is_mounted():
            bpffs.mount()


def test_devices_may_have_dots_in_their_names(node: Node, site: Site, engine: str) -> None:
    spec = site.spec(["count", "guard"], engine)
    spec["devices"]["x.1"] = spec["devices"].pop(DEVICE)
    node.apply(spec)
    assert site.order("x.1") == "count guard"
    node.destroy()
    assert (links(), pins()) == (set(), [])
