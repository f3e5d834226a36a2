"""Chains of programs from a spec to the kernel: one contract for every kind of hook and both engines, with packets."""

from __future__ import annotations

import contextlib
import copy
import errno
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nkform.apply import chains as carried_out
from nkform.apply.executor import Executor
from nkform.kernel.error import KernelError
from nkform.plan.actions import Action
from tests.live.helpers.chain_sites import (
    CLSACT_EGRESS,
    CLSACT_INGRESS,
    DEVICE,
    OPEN,
    OTHER,
    SHUT,
    TCX_EGRESS,
    TCX_INGRESS,
    Others,
    Packets,
    Running,
    Site,
    everywhere,
    pins,
)
from tests.live.helpers.support import Node, ip, link, links, needs
from tests.sizes import SIZES

pytestmark = pytest.mark.usefixtures("made_once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere(metafunc)


def actions(node: Node, spec: dict[str, Any]) -> list[str]:
    """The types of the actions of a plan."""
    outcome = node.plan(spec, "--json")
    assert outcome.code == 0, outcome.err
    return [action["type"] for action in outcome.json()["actions"]]


# --- the contract -----------------------------------------------------------------------


@pytest.mark.smoke
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


@pytest.mark.smoke
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


@pytest.mark.smoke(each_hook=True)
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


@pytest.mark.smoke
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


@pytest.mark.parametrize("chain", [[], ["guard"], ["guard", "count"], ["count", "extra", "guard"]], ids=" ".join)
def test_each_program_goes_back_between_those_of_others_that_it_stood_between(
    node: Node, site: Site, engine: str, others: Others, chain: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failure, and at once after an apply. The one of others is in our chain, as no spec can ask for."""
    node.apply(site.spec(["count", "guard"], engine))
    others.attach_behind(site, "theirs", "count")
    counted = site.counted()
    assert site.order() == "count theirs guard"
    with failing_late(monkeypatch):
        error = node.refused(site.spec(chain, engine), command="apply")
    assert "NK0505" in error
    assert site.order() == "count theirs guard"
    node.apply(site.spec(chain, engine))
    assert node.run("rollback", "-y").code == 0
    assert site.order() == "count theirs guard"
    assert site.counted() >= counted


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
        spec["devices"] = {"z0": {"kind": "veth", "peer": {"name": "eth1", "namespace": "a"}}, **spec["devices"]}
        node.apply(spec)
        anew = copy.deepcopy(spec)
        anew["devices"]["z0"]["peer"]["name"], anew["devices"][DEVICE]["peer"]["name"] = "eth0", "eth1"
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
    for turn in range(SIZES.filter_reorders if site.direction is not None else 4):
        spec["devices"][DEVICE]["programs"][site.hook] = chains[turn % len(chains)]
        node.write(spec)
        outcome = node.run("apply", "-y", str(node.path))
        assert outcome.code == 0, f"turn {turn}: {outcome.err}"
        assert site.order() == " ".join(chains[turn % len(chains)])


# --- external devices -------------------------------------------------------------------


EXTERNAL = [
    pytest.param(TCX_INGRESS, TCX_EGRESS, "auto", marks=needs("tcx"), id="tcx"),
    pytest.param(CLSACT_INGRESS, CLSACT_EGRESS, "tc", id="clsact"),
]


@pytest.mark.smoke
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
