"""Programs of many new devices are loaded in a second thread, ahead of their turn."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import chains
from nkform.bpf.programs import Programs
from nkform.kernel import ahead
from tests.live.helpers.attack import in_child
from tests.live.helpers.fault_injection import NOWHERE, injected
from tests.live.helpers.netstate import netstate_snapshot
from tests.live.helpers.support import Node, needs

pytestmark = [pytest.mark.usefixtures("made_once"), needs("tcx")]

MANY = chains.AHEAD_FROM


def spec(*, lists: bool = False) -> dict[str, Any]:
    """Pairs with two programs each; `lists`: with maps that parameters fill, too."""
    programs = {
        "guard": {"template": "source_guard"},
        "count": {"template": "counters"},
        "list": {"template": "prefix_filter", "params": {"prefixes": ["192.0.2.0/24"], "match": "source"}},
    }
    chain = ["guard", "list"] if lists else ["guard"]
    devices = {
        f"v{number}": {
            "kind": "veth",
            "peer": {"name": f"w{number}", "addresses": [f"192.0.2.{number}/32"]},
            "programs": {"peer": chain, "primary": ["count"]},
        }
        for number in range(MANY)
    }
    return {"version": 1, "node": "ahead", "programs": programs, "devices": devices}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """In which thread each program was loaded."""
    seen: list[str] = []
    for name in ("load", "load_ahead"):
        genuine = getattr(Programs, name)

        def load(*words: Any, genuine: Any = genuine, **named: Any) -> Any:
            seen.append(threading.current_thread().name)
            return genuine(*words, **named)

        monkeypatch.setattr(Programs, name, load)
    return seen


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_all_are_loaded_ahead_and_nothing_stays_open(node: Node, threads: list[str]) -> None:
    node.apply(spec(lists=True))
    assert threads == ["nkform-ahead"] * 3 * MANY
    assert node.plan(spec(lists=True)).code == 0
    before = open_files()
    node.destroy()
    node.apply(spec())
    assert open_files() == before


def test_no_more_than_the_limit_are_loaded_ahead(
    node: Node, threads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "_most", lambda: 1)
    node.apply(spec())
    assert threads == ["nkform-ahead"] * 2 * MANY


def test_a_program_that_must_know_its_device_is_loaded_once_it_is_there(node: Node, threads: list[str]) -> None:
    some = spec()
    some["programs"] = {"arp": {"template": "arp_responder", "params": {"addresses": ["169.254.1.1"]}}}
    for device in some["devices"].values():
        device["programs"] = {"peer": ["arp"]}
    node.apply(some)
    assert threads.count("nkform-ahead") == threads.count("MainThread") == MANY


def test_a_failure_ahead_is_undone_as_a_whole(node: Node) -> None:
    node.write(spec())
    before = netstate_snapshot()
    with injected(NOWHERE) as injection:
        assert node.run("apply", "-y", str(node.path)).code == 0
    maps = [place for place, call in enumerate(injection.made) if "MAP_CREATE" in call]
    node.destroy()
    struck = 0
    for place in ("bpf MAP_CREATE", maps[len(maps) // 2], maps[-1]):
        with injected(place) as injection:  # the order of two threads' calls is not the same each time
            outcome = node.run("apply", "-y", str(node.path))
        if "MAP_CREATE" in injection.hit:
            struck += 1
            assert outcome.code == 1
            assert "NK0505" in outcome.err
        else:
            node.destroy()
        assert netstate_snapshot() == before
        assert threading.active_count() == 1
    assert struck


def test_a_run_that_is_killed_while_loading_is_taken_back(node: Node) -> None:
    node.write(spec())
    before = netstate_snapshot()

    def apply() -> None:
        with injected("PROG_LOAD", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(apply) == -signal.SIGKILL
    assert node.run("recover", "-y").code == 0
    assert netstate_snapshot() == before


def test_maps_are_taken_over_although_others_are_loaded_ahead(node: Node, threads: list[str]) -> None:
    node.apply({**spec(), "devices": {"v0": spec()["devices"]["v0"]}})
    threads.clear()
    changed = spec()
    changed["devices"]["v0"]["peer"]["addresses"] = ["192.0.2.77/32"]
    node.apply(changed)
    assert threads.count("MainThread") == 1
