"""What goes back in part, since a workload is in the way of the rest, blocks nobody: that could be for ever."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from nkform.apply import journal
from nkform.kernel import rundir
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Process, end_all, until
from tests.live.helpers.support import Node, ip, link, links
from tests.live.test_confirm import guardians
from tests.live.test_going_back import elsewhere
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")


@pytest.fixture(autouse=True)
def _nobody_stays_behind() -> Iterator[None]:
    yield
    end_all()
    for process in guardians():
        os.kill(int(process), signal.SIGKILL)
    until(lambda: not guardians())


def spec(mtu: int, *, ipv6: bool = True) -> dict[str, Any]:
    made = veth()
    for device in made["devices"].values():
        device["mtu"] = mtu
    made["devices"]["to-a"]["peer"]["addresses"] = ["fd00::2/64"] if ipv6 else ["10.9.0.2/24"]
    made["devices"]["to-a"]["peer"].pop("routes", None)
    made["devices"]["to-a"].pop("routes", None)
    return made


def stuck(node: Node) -> None:
    """The workload switches IPv6 off while a run is on trial, so that its address cannot come back."""
    node.apply(spec(1500))
    node.write(spec(1400))
    assert node.run("apply", "-y", "--confirm", "1s", "--detach", str(node.path)).code == 0
    ip("netns", "exec", "a", "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    until(lambda: "fd00::2" in (rundir.read("w", journal.OUTCOME) or ""))
    assert link("to-b")["mtu"] == 1500


def over() -> bool:
    return not guardians() and not (rundir.RUN / "w" / "unconfirmed").exists()


def test_other_nodes_go_on(node: Node) -> None:
    stuck(node)
    other = Node(node.folder)
    other.apply(elsewhere())
    other.destroy()
    assert guardians()


def test_an_apply_takes_the_place_of_what_cannot_go_back(node: Node) -> None:
    stuck(node)
    node.apply(spec(1300, ipv6=False))
    until(lambda: not guardians())
    assert over()
    assert link("to-a")["mtu"] == link("to-b")["mtu"] == 1300
    assert node.run("rollback", "-y").code in (0, 1)  # to where it was stuck
    assert link("to-b")["mtu"] == 1500


def test_one_that_fails_takes_nothing_from_the_way_back(node: Node) -> None:
    stuck(node)
    node.write(spec(1300))
    assert node.run("apply", "-y", str(node.path)).code == 1
    ip("netns", "exec", "a", "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    assert node.run("recover", "-y").code == 0
    assert node.changes(spec(1500)) == []


def test_another_trial_takes_its_place(node: Node) -> None:
    stuck(node)
    before = netstate_snapshot()
    node.write(spec(1300, ipv6=False))
    outcome = node.run("apply", "-y", "--confirm", "2s", "--detach", str(node.path))
    assert outcome.code == 0, outcome.err
    assert link("to-b")["mtu"] == 1300
    until(lambda: link("to-b")["mtu"] == 1500)
    until(over)
    assert differences(before, netstate_snapshot()) == []


def test_destroy_takes_its_place(node: Node) -> None:
    stuck(node)
    node.destroy()
    assert links() == set()
    until(over)


def test_the_watch_leaves_the_node_to_the_guardian(node: Node) -> None:
    stuck(node)
    node.write(spec(1400))
    run = Process("watch", "--heal", "--interval", "0.2", str(node.path))
    run.hears("NK0611")
    assert link("to-b")["mtu"] == 1500
    os.kill(run.pid, signal.SIGTERM)
    assert run.ended() == 0


def test_what_has_gone_back_is_not_told_as_what_was_applied(node: Node) -> None:
    """The spec that nobody confirmed is the last that was applied no more."""
    unmanaged = spec(1400)
    for device in unmanaged["devices"].values():
        device.pop("mtu")
    node.apply(unmanaged)
    node.write(spec(1400))
    assert node.run("apply", "-y", "--confirm", "1s", "--detach", str(node.path)).code == 0
    ip("netns", "exec", "a", "sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
    until(lambda: "fd00::2" in (rundir.read("w", journal.OUTCOME) or ""))
    assert link("to-b")["mtu"] == 1500
    outcome = node.plan(unmanaged)
    assert "NK0431" not in outcome.out + outcome.err
    status = node.run("status")
    assert status.code == 0
    assert "1400" not in status.out
    assert "not all could go back" in status.out
