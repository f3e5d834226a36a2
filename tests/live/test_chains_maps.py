"""Maps that a spec fills: one contract for every kind of hook and both engines, with packets."""

from __future__ import annotations

import contextlib
import copy
import errno
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import pytest
import yaml

from nkform.apply.executor import Executor
from nkform.kernel import bpf
from nkform.kernel.bpf_maps import map_delete_many, map_items, map_update_many
from nkform.kernel.descriptors import Owned
from nkform.kernel.error import KernelError
from nkform.observe import contents as observed
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
    Packets,
    Site,
    everywhere,
    map_id,
    pins,
)
from tests.live.helpers.support import Node, features, ip, links, needs

PORT = struct.Struct("=H")


pytestmark = pytest.mark.usefixtures("made_once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere(metafunc)


def ports_spec(
    site: Site, engine: str, ports: Collection[int], chain: Sequence[Any] = ("count", "set"), **more: Any
) -> dict[str, Any]:
    spec = site.spec(list(chain), engine)
    spec["programs"]["set"]["params"] = {"ports": list(ports), **more}
    return spec


def keys(site: Site, program: str, name: str) -> set[bytes]:
    """What a map of a program holds, as the kernel says."""
    with Owned(bpf.map_fd(map_id(site.one(program).program_id, name))) as fd:
        return set(map_items(fd))


def ports(site: Site, program: str = "set", name: str = "ports") -> set[int]:
    return {PORT.unpack(key)[0] for key in keys(site, program, name)}


def meddle(site: Site, program: str, name: str, add: Collection[bytes] = (), remove: Collection[bytes] = ()) -> None:
    """Somebody else changes a map."""
    with Owned(bpf.map_fd(map_id(site.one(program).program_id, name))) as fd:
        map_delete_many(fd, remove)
        map_update_many(fd, dict.fromkeys(add, b"\x01"))


def entries(change: Mapping[str, Any], site: Site, *path: str) -> tuple[list[Any], list[Any]]:
    """The entries that go and that come, of a change in which nothing else differs."""
    assert {tuple(field["path"]) for field in change["fields"]} == {("programs", site.hook, *path)}
    gone = [field["before"] for field in change["fields"] if field["before"] is not None]
    come = [field["after"] for field in change["fields"] if field["after"] is not None]
    return gone, come


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


def undone(error: str) -> None:
    assert "NK0505" in error, error
    assert "NK0503" not in error, error
    assert "NK0504" not in error, error


# --- in place ---------------------------------------------------------------------------


@pytest.mark.smoke
def test_entries_come_and_go_under_a_running_program(node: Node, site: Site, engine: str) -> None:
    """Nothing is loaded: link, program, map and what was counted stay."""
    node.apply(ports_spec(site, engine, [SHUT]))
    with Packets(site) as packets:
        assert packets.passing() == {OPEN, OTHER}
        before, number = site.running(), map_id(site.one("set").program_id, "ports")
        for wanted, passing in (([OTHER], {OPEN, SHUT}), ([OTHER, SHUT], {OPEN}), ([], {OPEN, SHUT, OTHER})):
            there = ports(site)
            planned = node.plan(ports_spec(site, engine, wanted), "--json").json()
            assert [action["type"] for action in planned["actions"]] == ["SetMap"]
            (change,) = planned["changes"]
            assert entries(change, site, "set", "ports") == (sorted(there - set(wanted)), sorted(set(wanted) - there))
            node.apply()
            assert site.running() == before
            assert map_id(site.one("set").program_id, "ports") == number
            assert packets.passing() == passing
    text = node.plan(ports_spec(site, engine, [53])).out
    assert f"+ programs.{site.hook}.set.ports = 53" in text
    node.destroy()
    assert (links(), pins()) == (set(), [])


def test_prefixes_of_both_families_come_and_go(node: Node, site: Site, engine: str) -> None:
    def spec(*prefixes: str, **params: str) -> dict[str, Any]:
        made = site.spec(["block"], engine)
        made["programs"]["block"]["params"] = {"match": "source", "prefixes": list(prefixes), **params}
        return made

    node.apply(spec("192.0.2.0/24", "2001:db8::/32"))
    with Packets(site) as packets:
        assert packets.passing() == {OPEN, SHUT, OTHER}
        before = site.running()
        for prefixes, passes in (
            (("10.0.0.0/30", "2001:db8::/32"), False),
            ((f"{site.receiver}/32", "192.0.2.0/24"), True),
            ((f"{site.sender}/32", "fd00::/8"), False),
            (("0.0.0.0/0",), False),
            (("::/0",), True),
        ):
            (change,) = node.changes(spec(*prefixes))
            _, come = entries(change, site, "block", "prefixes")
            assert come
            node.apply()
            assert site.running() == before
            assert packets.passes(OPEN) is passes
        node.apply(spec(f"{site.sender}/32", listed="pass", others="drop"))
        assert site.one("block").place == before[0].place
        assert packets.passes(OPEN)
        node.apply(spec("192.0.2.0/24", listed="pass", others="drop"))
        assert not packets.passes(OPEN)


def test_a_thousand_entries(node: Node, site: Site, engine: str) -> None:
    """All of them change, then all but one go."""

    def spec(first: int, many: int = 1000) -> dict[str, Any]:
        made = site.spec(["block"], engine)
        made["programs"]["block"]["params"] = {
            "match": "source",
            "prefixes": [f"172.{16 + (first + n >> 8)}.{first + n & 255}.0/24" for n in range(many)],
        }
        return made

    node.apply(spec(0))
    before = site.running()
    assert len(keys(site, "block", "listed_ipv4")) == 1000
    (change,) = node.changes(spec(1000))
    gone, come = entries(change, site, "block", "prefixes")
    assert (len(gone), len(come)) == (1000, 1000)
    node.apply()
    node.apply(spec(1000, 1))
    assert site.running() == before
    assert keys(site, "block", "listed_ipv4") == {struct.pack("=I4B", 24, 172, 19, 232, 0)}


def test_more_entries_than_a_map_takes_are_refused_by_plan(node: Node, site: Site, engine: str) -> None:
    """And as many as it takes can be any others the next time."""
    error = node.refused(ports_spec(site, engine, range(1, 6)))
    for words in ("NK0425", "spec.yaml:", "5 entries", "takes 4"):
        assert words in error
    assert links() == set()
    node.apply(ports_spec(site, engine, range(1, 5)))
    before = site.running()
    node.apply(ports_spec(site, engine, range(5, 9)))
    assert site.running() == before
    node.refused(ports_spec(site, engine, range(1, 6)))
    node.apply(ports_spec(site, engine, range(1, 6), most=5))
    assert ports(site) == set(range(1, 6))


# --- with the program -------------------------------------------------------------------


def test_a_program_that_is_replaced_has_the_entries_of_the_spec(node: Node, site: Site, engine: str) -> None:
    """Its map lives on where it holds the same, else the new program has one of its own: never is one without the
    other."""
    node.apply(ports_spec(site, engine, [OTHER]))
    with Packets(site) as packets:
        assert packets.passing() == {OPEN, SHUT}
        before, number = site.one("set"), map_id(site.one("set").program_id, "ports")
        node.apply(ports_spec(site, engine, [OTHER], inverted=True))
        after = site.one("set")
        assert (after.place, after.program_id == before.program_id) == (before.place, False)
        assert map_id(after.program_id, "ports") == number
        assert packets.passing() == {OTHER}
        (change,) = node.changes(ports_spec(site, engine, [SHUT]))
        assert {tuple(field["path"][2:]) for field in change["fields"]} == {("set",), ("set", "ports")}
        node.apply()
        assert map_id(site.one("set").program_id, "ports") != number
        assert packets.passing() == {OPEN, OTHER}


def test_entries_that_change_with_the_order_are_those_of_the_spec(node: Node, site: Site, engine: str) -> None:
    node.apply(ports_spec(site, engine, [SHUT], ["count", "set", "extra"]))
    with Packets(site) as packets:
        assert packets.passing() == {OPEN}
        counted = site.counted()
        for chain, wanted, passing in (
            (["set", "count", "extra"], [], {OPEN, SHUT}),
            (["extra", "set", "count"], [OPEN], {SHUT}),
            (["count", "set"], [SHUT, OPEN], {OTHER}),
            (["set", "count", "guard"], [SHUT, OTHER], {OPEN}),
        ):
            node.apply(ports_spec(site, engine, wanted, chain))
            assert site.order() == " ".join(chain)
            assert ports(site) == set(wanted)
            assert site.counted() >= counted > 0
            assert packets.passing() == passing


def test_two_lists_that_change_at_once_are_a_new_chain(node: Node, site: Site, engine: str) -> None:
    """One after the other, what moves from one list to the other would be in neither, or in both, for a moment."""

    def spec(first: list[int], second: list[int], more: list[int] | None = None) -> dict[str, Any]:
        made = ports_spec(site, engine, first, ["set", "set2", "count"], more=more or [])
        made["programs"]["set2"]["params"] = {"ports": second}
        return made

    node.apply(spec([SHUT], [OTHER]))
    before = {each.name: each for each in site.running()}
    for made in (spec([OTHER], [SHUT]), spec([SHUT], [SHUT], [OTHER])):
        planned = node.plan(made, "--json").json()
        assert [action["type"] for action in planned["actions"]] == ["SetChain"]
        node.apply()
    assert site.order() == "set set2 count"
    assert site.one("count") == before["count"]
    assert (ports(site), ports(site, name="more_ports"), ports(site, "set2")) == ({SHUT}, {OTHER}, {SHUT})
    with Packets(site) as packets:
        assert packets.passing() == {OPEN}


def test_programs_that_differ_in_entries_share_nothing(node: Node, site: Site, engine: str) -> None:
    """One program by its digest, at two hooks of two devices and twice in a chain."""
    spec = site.spec([], engine)
    other = "primary" if site.hook == "peer" else "peer"
    second = copy.deepcopy(spec["devices"][DEVICE])
    second["peer"] |= {"name": "eth1", "addresses": ["10.0.1.2/24"]}
    second["addresses"] = ["10.0.1.1/24"]
    for number, end in enumerate((second, second["peer"])):
        if "mac" in end:
            end["mac"] = f"02:00:00:00:01:0{number}"
    spec["devices"]["y"] = second
    for number, device in enumerate(spec["devices"].values()):
        device["programs"] = {
            hook: [
                {"use": "set", "as": f"s{each}", "params": {"ports": [1000 + 100 * number + 10 * place + each]}}
                for each in range(2)
            ]
            for place, hook in enumerate((site.hook, other))
        }
    node.apply(spec)
    found = [ports_of(each.program_id) for device in (DEVICE, "y") for each in site.running(device)]
    assert found == [{1000}, {1001}, {1100}, {1101}]
    before = [site.running(device) for device in (DEVICE, "y")]
    spec["devices"]["y"]["programs"][site.hook][1]["params"] = {"ports": [7]}
    node.apply(spec)
    found = [ports_of(each.program_id) for device in (DEVICE, "y") for each in site.running(device)]
    assert found == [{1000}, {1001}, {1100}, {7}]
    assert [site.running(device) for device in (DEVICE, "y")] == before


def ports_of(program_id: int) -> set[int]:
    with Owned(bpf.map_fd(map_id(program_id, "ports"))) as fd:
        return {PORT.unpack(key)[0] for key in map_items(fd)}


@needs("tcx")
@pytest.mark.parametrize(("links_", "filters"), [(TCX_INGRESS, CLSACT_INGRESS), (TCX_EGRESS, CLSACT_EGRESS)])
def test_entries_go_along_between_links_and_filters(node: Node, links_: Site, filters: Site, engine: str) -> None:
    node.apply(ports_spec(links_, engine, [SHUT]))
    node.apply(ports_spec(filters, engine, [SHUT]))
    assert ports(filters) == {SHUT}
    node.apply(ports_spec(links_, engine, [OTHER]))
    assert ports(links_) == {OTHER}
    with Packets(links_) as packets:
        assert packets.passing() == {OPEN, SHUT}


def test_an_external_device_has_maps_too(node: Node, engine: str) -> None:
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS
    ip("link", "add", "out0", "type", "veth", "peer", "name", "out1")
    spec = ports_spec(site, engine, [SHUT])
    spec["namespaces"] = {}
    spec["devices"] = {"out0": {"kind": "external", "programs": {"ingress": ["set"]}}}
    node.apply(spec)
    (before,) = site.running("out0", "ingress")
    spec["programs"]["set"]["params"]["ports"] = [OTHER]
    (change,) = node.changes(spec)
    assert [field["path"] for field in change["fields"]] == [["programs", "ingress", "set", "ports"]] * 2
    node.apply()
    assert site.running("out0", "ingress") == [before]
    assert ports_of(before.program_id) == {OTHER}
    node.destroy()
    assert site.running("out0", "ingress") == []


def test_only_maps_that_the_spec_fills_are_looked_into(
    node: Node, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS
    node.apply(ports_spec(site, engine, [SHUT], ["count", "set", "guard", "set2"]))
    genuine, looked_at = observed.maps_of, []

    def maps_of(program_id: int) -> contextlib.AbstractContextManager[dict[str, int]]:
        looked_at.append(program_id)
        return genuine(program_id)

    monkeypatch.setattr(observed, "maps_of", maps_of)
    assert node.changes() == []
    assert sorted(looked_at) == sorted(site.one(name).program_id for name in ("set", "set2"))
    looked_at.clear()
    assert node.run("status").code == 0  # which compares with what was applied
    assert sorted(looked_at) == sorted(site.one(name).program_id for name in ("set", "set2"))


# --- drift ------------------------------------------------------------------------------


def test_what_somebody_changed_in_a_map_is_seen_and_mended(node: Node, site: Site, engine: str) -> None:
    spec = ports_spec(site, engine, [SHUT, OTHER])
    node.apply(spec)
    before = site.running()
    with Packets(site) as packets:
        meddle(site, "set", "ports", [PORT.pack(OPEN)], [PORT.pack(SHUT)])
        assert packets.passing() == {SHUT}
        (change,) = node.changes()
        assert entries(change, site, "set", "ports") == ([OPEN], [SHUT])
        node.apply(spec)
        assert packets.passing() == {OPEN}
        strangers = [PORT.pack(number) for number in range(1, 7)]
        meddle(site, "set", "ports", strangers, [PORT.pack(SHUT), PORT.pack(OTHER)])
        more = [PORT.pack(number) for number in range(7, 9)]
        meddle(site, "set", "ports", more)  # now there is room for none
        node.apply(spec)
        assert (ports(site), site.running()) == ({SHUT, OTHER}, before)
        assert packets.passing() == {OPEN}


def test_bits_beyond_a_prefix_are_no_drift(node: Node, site: Site, engine: str) -> None:
    """To the kernel they are one prefix: taking one of them away would take it away."""
    spec = site.spec(["block"], engine)
    spec["programs"]["block"]["params"]["prefixes"] = ["10.9.0.0/16"]
    node.apply(spec)
    meddle(site, "block", "listed_ipv4", [struct.pack("=I4B", 16, 10, 9, 8, 7)])
    assert keys(site, "block", "listed_ipv4") == {struct.pack("=I4B", 16, 10, 9, 8, 7)}
    assert node.changes() == []


def test_a_map_that_somebody_changed_meanwhile_is_stale(
    node: Node, site: Site, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(ports_spec(site, engine, [SHUT]))
    genuine = Executor.run

    def meanwhile(self: Executor, actions: list[Action]) -> None:
        monkeypatch.setattr(Executor, "run", genuine)
        meddle(site, "set", "ports", [PORT.pack(7)])
        genuine(self, actions)

    monkeypatch.setattr(Executor, "run", meanwhile)
    error = node.refused(ports_spec(site, engine, [OTHER]), command="apply")
    assert "somebody changed it since the plan was made" in error
    assert "NK0503" not in error
    assert ports(site) == {SHUT}, "as it was when nkform looked"


# --- what is shown ----------------------------------------------------------------------


def test_show_prints_the_entries_that_are_there(node: Node, site: Site, engine: str) -> None:
    """Two programs of one digest each with its own; and printed back, it plans empty."""
    spec = ports_spec(site, engine, [SHUT], ["set", {"use": "set", "as": "again", "params": {"ports": [OTHER]}}])
    spec["devices"][DEVICE]["programs"][site.hook].append(
        {"use": "block", "params": {"prefixes": ["fd00::/8", "10.9.0.0/16", "10.1.2.3/32"]}}
    )
    node.apply(spec)
    meddle(site, "again", "ports", [PORT.pack(7)])
    shown = yaml.safe_load(node.run("show").out)
    chain = shown["devices"][DEVICE]["programs"][site.hook]
    assert [each["params"].get("ports") for each in chain] == [[SHUT], [7, OTHER], None]
    assert chain[2]["params"]["prefixes"] == ["10.1.2.3/32", "10.9.0.0/16", "fd00::/8"]
    assert node.changes({**shown, "engine": engine}) == []


def test_entries_take_no_compiler(node: Node, engine: str, tmp_path: Any) -> None:
    """`render` tells how large the maps are; `build` makes one object of all lists."""
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS
    spec = ports_spec(site, engine, [SHUT], ["set", {"use": "set", "as": "again", "params": {"ports": [OTHER]}}])
    rendered = node.run("render", str(node.write(spec)), DEVICE, site.hook)
    assert rendered.code == 0, rendered.err
    assert "ports" in rendered.out
    if engine == "clang":
        built = node.run("build", str(node.path), "-o", str(tmp_path / "objects"))
        assert "1 objects" in built.out, built.err
