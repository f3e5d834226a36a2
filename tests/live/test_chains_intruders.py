"""Somebody puts another program into a link or a filter of ours, whose pin and name stay: that is seen, and mended.

A program's id is given once, so what runs is compared with what was loaded without looking into either.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest

from nkform.kernel import bpf_links, bpffs
from nkform.kernel.clsact import PREFIX, Tc
from nkform.kernel.descriptors import Owned
from tests.live.helpers.bpf_programs import NEXT, program
from tests.live.helpers.chain_sites import (
    DEVICE,
    NODE,
    OPEN,
    OTHER,
    SHUT,
    Packets,
    Running,
    Site,
    everywhere,
    program_name,
)
from tests.live.helpers.support import Node
from tests.live.test_chains import failing_late
from tests.live.test_watch import Start, watch  # noqa: F401

pytestmark = pytest.mark.usefixtures("made_once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere(metafunc)


def put(site: Site, running: Running, name: str = "intruder") -> None:
    """Another program in the place of one of ours, by who knows its link or its filter."""
    with Owned(program(NEXT, name)) as fd:
        put_program(site, running, fd)


def put_program(site: Site, running: Running, fd: int) -> None:
    if site.direction is None:
        (pin,) = (pin for pin in bpffs.pins(NODE) if pin.entry.startswith(f"{running.name}@"))
        with Owned(bpf_links.open_link(pin.path())) as link:
            bpf_links.link_update(link, fd)
        return
    (filter_,) = (each for each in site.filters() if each.priority == running.place)
    index = socket.if_nametoindex(DEVICE)
    with Tc() as tc:
        name = filter_.name.removeprefix(PREFIX)
        tc.filter_update(index, site.direction, running.place, fd, name=name)


def programs(site: Site) -> list[int]:
    return [each.program_id for each in site.running()]


def test_another_program_in_our_place_is_drift_and_is_mended(node: Node, site: Site, engine: str) -> None:
    spec = site.spec(["count", "guard"], engine)
    node.apply(spec)
    ours = site.running()
    put(site, ours[1])
    intruder = programs(site)[1]
    assert (intruder != ours[1].program_id, program_name(intruder)) == (True, "intruder")

    (change,) = node.changes()
    (field,) = change["fields"]
    assert field["path"] == ["programs", site.hook, "guard"]
    assert (str(intruder) in field["before"], field["after"]) == (True, ours[1].digest)
    assert field["drift"] is True
    assert f"program {intruder}" in node.plan().out

    told = node.run("status", "--node", NODE)
    assert told.code == 0, told.err
    assert f"drift: programs.{site.hook}.guard program {intruder}" in told.out
    assert ours[1].digest not in told.out.replace(f"{ours[1].digest} in the spec", "")
    assert "intruder" in told.out
    (entry,) = (
        e for e in node.run("status", "--json").json()["devices"][0]["hooks"][site.hook] if e["name"] == "guard"
    )
    assert (entry["program_id"], entry["digest"], entry["template"]) == (intruder, "", "")

    shown = node.run("show", "--node", NODE)
    assert ("guard" in shown.out, "count" in shown.out) == (False, True)
    assert "NK0440" in shown.err

    with Packets(site) as packets:
        assert packets.passing() == {OPEN, OTHER, SHUT}
        node.apply()
        assert packets.passing() == {OPEN, OTHER}
    assert [each.place for each in site.running()] == [each.place for each in ours]
    assert site.running()[0] == ours[0]
    assert intruder not in programs(site)


def test_an_undoing_leaves_it_as_it_was_and_as_visible(
    node: Node, site: Site, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = site.spec(["count", "guard"], engine)
    node.apply(spec)
    put(site, site.running()[1])
    before = site.running()
    with failing_late(monkeypatch):
        assert "NK0505" in node.refused(spec, command="apply")
    assert programs(site) == [each.program_id for each in before]
    with failing_late(monkeypatch):
        assert "NK0505" in node.refused(site.spec(["guard", "extra"], engine), command="apply")
    assert programs(site) == [each.program_id for each in before]
    assert [field["path"][-1] for change in node.changes(spec) for field in change["fields"]] == ["guard"]
    node.apply(spec)
    assert node.run("rollback", "-y").code == 0
    assert programs(site)[1] == before[1].program_id
    assert [field["path"][-1] for change in node.changes(spec) for field in change["fields"]] == ["guard"]
    node.apply(spec)
    node.destroy()


def test_counts_of_another_program_are_not_taken_over(node: Node, site: Site, engine: str) -> None:
    """Our own program, loaded for another device: its maps are somebody else's."""
    spec = site.spec(["count"], engine)
    node.apply(spec)
    with Packets(site) as packets:
        for _ in range(25):
            packets.passing()
        assert site.counted() >= 25
        with Owned(program(NEXT, "count")) as fd:
            put_program(site, site.one("count"), fd)
        node.apply(spec)
        assert site.counted() < 25  # the kernel sends some of its own


def test_the_watch_mends_it(node: Node, site: Site, engine: str, watch: Start) -> None:  # noqa: F811
    spec: dict[str, Any] = site.spec(["count", "guard"], engine)
    node.apply(spec)
    process = watch("--heal")
    put(site, site.running()[1])
    process.drift(f"programs.{site.hook}.guard", DEVICE)
    process.until(lambda line: line["event"] == "healed")
    assert "intruder" not in [program_name(number) for number in programs(site)]
    assert process.stop() == 0


def test_a_program_that_runs_as_loaded_is_none_after_any_change(node: Node, site: Site, engine: str) -> None:
    """What is on record of a program follows each of nkform's own changes: the plan after each is empty."""
    for chain in (["guard"], ["guard", "count"], ["count", "guard"], ["extra"], {"default": "drop", "chain": []}, []):
        node.apply(site.spec(chain, engine))
    node.apply(site.spec(["count", "set"], engine))
    spec = site.spec(["count", "set"], engine)
    spec["programs"]["set"]["params"] = {"ports": [OTHER]}
    node.apply(spec)
    assert node.run("rollback", "-y").code == 0
    assert node.changes(site.spec(["count", "set"], engine)) == []
