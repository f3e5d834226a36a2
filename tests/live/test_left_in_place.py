"""A namespace of ours in which others have devices is left in place: when they come and go stops no run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from nkform.apply import transaction
from nkform.apply.executor import Executor
from tests.live.helpers.attack import killed_after
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import REFUSED, Node, batch, ip, kinds, links
from tests.live.test_moved_peers import pair

Spec = dict[str, Any]

GONE: Spec = {"version": 1, "node": "w", "namespaces": {}, "devices": {}}


def came() -> None:
    ip("link", "add", "theirs", "type", "veth", "peer", "name", "theirs1", namespace="web")


def went() -> None:
    ip("link", "del", "theirs", namespace="web")


def before_the_actions(monkeypatch: pytest.MonkeyPatch, then: Callable[[], None]) -> None:
    run = Executor.run

    def late(executor: Executor, actions: Any) -> None:
        monkeypatch.undo()
        then()
        run(executor, actions)

    monkeypatch.setattr(transaction.Executor, "run", late)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("command", ["apply", "destroy"])
def test_devices_made_upon_a_peer_go_with_it(node: Node, kind: str, command: str) -> None:
    node.apply(pair("web", kind))
    kinds_of_device = ("macvlan mode bridge", "vlan id 5")  # a kernel has one of them at least
    batch([f"link add link eth0 name upon type {each}" for each in kinds_of_device], "web")
    assert "upon" in links("web")
    if command == "apply":
        node.write(GONE)
    outcome = node.run(command, "-y", str(node.path))
    assert outcome.code == 0, outcome.err
    assert "NK0416" in outcome.err
    assert "v0" not in links()
    assert node.run(command, "-y", str(node.path)).code == 0
    assert "web" not in ip("netns")


def test_devices_that_go_during_the_run_stop_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(pair("web"))
    came()
    node.write(GONE)
    before_the_actions(monkeypatch, went)
    outcome = node.run("apply", "-y", str(node.path))
    assert outcome.code == 0, outcome.err
    assert "v0" not in links()
    node.apply(GONE)
    assert "web" not in ip("netns")


def test_devices_that_come_during_the_run_stop_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(pair("web"))
    node.write(GONE)
    before_the_actions(monkeypatch, came)
    outcome = node.run("apply", "-y", str(node.path))
    assert outcome.code == 0, outcome.err
    assert "NK0416" in outcome.err
    assert "theirs" in outcome.err
    assert "v0" not in links()
    assert {"theirs", "theirs1"} <= links("web")
    assert node.changes() == []
    went()
    node.apply(GONE)
    assert "web" not in ip("netns")


def test_what_is_undone_says_what_is_in_the_way(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace that a failed run has made, and where others have a device by then."""
    node.apply({**GONE, "namespaces": {"web2": {"create": True}}})
    spec = pair("web")
    spec["devices"]["v0"]["peer"]["routes"] = REFUSED
    node.write(spec)
    run = Executor.run

    def failing(executor: Executor, actions: Any) -> None:
        monkeypatch.undo()
        try:
            run(executor, actions)
        finally:
            came()

    monkeypatch.setattr(transaction.Executor, "run", failing)
    outcome = node.run("apply", "-y", str(node.path))
    assert outcome.code == 1
    assert "not as before: namespace web" in outcome.err
    went()
    assert node.run("recover", "-y").code == 0
    assert "web" not in ip("netns").replace("web2", "")


@pytest.mark.parametrize("kind", kinds())
def test_a_namespace_goes_after_the_new_pair_that_was_in_it(node: Node, kind: str) -> None:
    """A run that replaces a pair, its peer in a new namespace, is killed at each action, and taken back."""
    more: Spec = {"mode": "l2"} if kind == "netkit" else {"numtxqueues": 3}
    first, second = pair("web", kind), pair("web", kind, **more)
    del first["namespaces"], first["devices"]["v0"]["peer"]["namespace"]
    node.apply(first)
    before = netstate_snapshot()
    actions = len(node.plan(second, "--json").json()["actions"])
    for count in range(actions + 1):
        node.write(second)
        killed_after(node, count)
        outcome = node.run("recover", "-y")
        told = f"killed after {count} of {actions} actions: {outcome.err}"
        assert outcome.code == 0, told
        assert differences(before, netstate_snapshot()) == [], told
