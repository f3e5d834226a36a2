"""What a trial, or what could not go back, means for other nodes' specs and for other commands."""

from __future__ import annotations

import time
from typing import Any

import pytest

from nkform.apply import journal
from nkform.kernel import rundir
from tests.live.helpers.attack import killed_after
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Process, until
from tests.live.helpers.support import Node, link
from tests.live.test_confirm import guardians as alive
from tests.live.test_going_back import (  # noqa: F401 - the fixture
    _nobody_stays_behind,
    changed,
    elsewhere,
    in_a,
    kill_guardians,
    mtus,
    take_the_name,
    tried,
)
from tests.live.test_pairs import veth


@pytest.fixture
def other(node: Node) -> Node:
    """A second node, whose last apply can be taken back."""
    made = Node(node.folder)
    made.path = node.folder / "other.yaml"
    made.apply(elsewhere())
    spec = elsewhere()
    spec["devices"]["x0"]["mtu"] = 1300
    made.apply(spec)
    return made


def stuck(node: Node) -> None:
    """A trial that nobody confirmed, and of which not all can go back."""
    tried(node, "1s")
    take_the_name()
    until(lambda: "eth0" in (rundir.read("w", journal.OUTCOME) or ""))


@pytest.mark.parametrize("command", ["rollback", "recover"])
def test_nothing_of_another_node_goes_back_during_a_trial(node: Node, other: Node, command: str) -> None:
    if command == "recover":
        spec = elsewhere()
        spec["devices"]["x0"]["mtu"] = 1200
        other.write(spec)
        killed_after(other, 1)
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "600s")
    outcome = node.run(command, "-y", "--node", "other")
    assert outcome.code == 1
    assert "NK0611" in outcome.err
    assert node.run("rollback", "-y", "--node", "w").code == 0  # its own way back is open
    assert differences(before, netstate_snapshot()) == []
    assert node.run(command, "-y", "--node", "other").code == 0
    assert link("x0")["mtu"] == (1300 if command == "recover" else 1500)


def test_going_back_on_another_node_takes_the_place_of_a_guardian_that_is_killed(node: Node, other: Node) -> None:
    node.apply(veth())
    tried(node, "1s")
    kill_guardians()
    time.sleep(1)
    outcome = node.run("rollback", "-y", "--node", "other")
    assert "going back" in outcome.err
    assert outcome.code == 0
    assert mtus() == {1500}


def test_a_trial_that_was_killed_in_a_later_part_leaves_nothing_pending(node: Node, other: Node) -> None:
    """Its first part was done, and its record waited to be confirmed."""
    from nkform.session import running

    node.apply(veth())
    before = netstate_snapshot()
    spec = changed()
    spec["devices"]["to-b"]["routes"] = [{"to": "192.0.2.0/24", "via": "203.0.113.1"}]
    node.write(spec)

    def killed_in_the_second() -> None:
        from tests.live.helpers.attack import die

        genuine = running._Runner.carry_out
        done = []

        def carry_out(self: Any, look: Any, *, whole: bool) -> None:
            if done:
                from nkform.apply.executor import Executor

                run = Executor.run
                Executor.run = lambda self, some: (run(self, some[:1]), die())  # type: ignore[method-assign,assignment]
            genuine(self, look, whole=whole)
            done.append(look)

        running._Runner.carry_out = carry_out  # type: ignore[method-assign]

    run = Process(
        "apply", "-y", "--keep-going", "--confirm", "2s", "--detach", str(node.path), prepare=killed_in_the_second
    )
    assert run.ended() != 0
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []
    assert rundir.stamp("w", journal.UNCONFIRMED) is None
    assert other.run("apply", "-y", str(other.path)).code == 0
    assert node.run("rollback", "-y").code == 1 or differences(before, netstate_snapshot()) == []


def test_what_another_node_cannot_take_back_keeps_nobody_from_confirming(node: Node, other: Node) -> None:
    node.apply(veth())
    stuck(node)
    spec = elsewhere()
    spec["devices"]["x0"]["mtu"] = 1400
    other.write(spec)
    assert other.run("apply", "-y", "--confirm", "600s", "--detach", str(other.path)).code == 0
    outcome = node.run("confirm")
    assert outcome.out == "Confirmed: other stays as it is.\n", outcome.err
    assert "NK0509" in node.run("confirm", "--node", "w").err
    assert link("x0")["mtu"] == 1400


def test_an_apply_of_some_devices_does_not_end_the_way_back_of_the_others(node: Node) -> None:
    node.apply(veth())
    stuck(node)
    node.write(veth())
    outcome = node.run("apply", "-y", "--target", "to-b", str(node.path))
    assert outcome.code == 1
    assert "NK0611" in outcome.err
    in_a("link", "del", "eth0")
    until(lambda: not alive())
    assert mtus() == {1500}


def test_what_is_half_rolled_back_waits_for_nobody_once_it_is_recovered(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "600s")
    kill_guardians()
    killed_after(node, 1, None, "rollback", "-y")
    assert node.run("recover", "-y").code == 0
    assert differences(before, netstate_snapshot()) == []
    assert "NK0612" in node.run("confirm").err
    assert '"spec": ""' not in (rundir.read("w", journal.OUTCOME) or '"spec": ""')  # `watch --heal` leaves it
    node.apply(changed())


def test_what_is_half_rolled_back_cannot_be_confirmed(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "600s")
    killed_after(node, 1, None, "rollback", "-y")
    outcome = node.run("confirm")
    assert outcome.code == 1
    assert "NK0514" in outcome.err
    assert node.run("recover", "-y").code == 0
    assert differences(before, netstate_snapshot()) == []
