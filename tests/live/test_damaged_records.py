"""What is wrong with the record of one node concerns that node alone, and keeps nobody from going back."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from nkform.apply import journal
from nkform.kernel import rundir
from tests.live.helpers.attack import killed_after
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, Outcome, link
from tests.live.test_going_back import (  # noqa: F401 - the fixture
    _nobody_stays_behind,
    alive,
    changed,
    elsewhere,
    mtus,
    tried,
)
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")


@pytest.fixture
def other(node: Node) -> Node:
    """A second node, with a way back."""
    made = Node(node.folder)
    made.path = node.folder / "other.yaml"
    made.apply(elsewhere())
    spec = elsewhere()
    spec["devices"]["x0"]["mtu"] = 1300
    made.apply(spec)
    return made


def damage(node: str, state: str) -> Path:
    """Another version of nkform wrote it, before anybody who waits for it looked."""
    path = rundir.RUN / node / state
    stamp = path.stat() if path.exists() else None
    path.write_text('{"x": 1}\n')
    path.chmod(0o600)
    if stamp:
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return path


def told_once(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 0, outcome.err
    for word in words:
        assert outcome.err.count(word) == 1, outcome.err


def test_another_nodes_record_of_a_trial_that_cannot_be_read_is_told(node: Node, other: Node) -> None:
    node.apply(veth())
    path = str(damage("other", journal.UNCONFIRMED))
    node.write(changed())
    told_once(node.run("apply", "-y", str(node.path)), "NK0510", path)
    told_once(node.run("rollback", "-y", "--node", "w"), "NK0510", path)
    tried(node, "600s")
    told_once(node.run("confirm", "--node", "w"), "NK0510", path)
    assert mtus() == {1400}
    tried_again = node.run("apply", "-y", "--confirm", "600s", "--detach", str(node.write(changed(1300))))
    assert tried_again.code == 0, tried_again.err
    told_once(node.run("confirm"), "NK0510", path)
    node.destroy()


@pytest.mark.parametrize("state", [journal.PREVIOUS, journal.JOURNAL])
def test_another_nodes_way_back_that_cannot_be_read_is_told(node: Node, other: Node, state: str) -> None:
    node.apply(veth())
    node.apply(changed())
    path = str(damage("other", state))
    outcome = node.run("rollback", "-y", "--node", "w")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(path) == (state == journal.PREVIOUS)
    node.write(changed(1300))
    killed_after(node, 1)
    outcome = node.run("recover", "-y", "--node", "w")
    assert outcome.code == 0, outcome.err
    assert outcome.err.count(path) == (state == journal.JOURNAL)
    assert mtus() == {1500}


@pytest.mark.parametrize("command", ["rollback", "confirm", "recover"])
def test_the_commands_of_the_node_itself_refuse_it(node: Node, other: Node, command: str) -> None:
    path = str(damage("other", journal.UNCONFIRMED))
    outcome = node.run(command, *([] if command == "confirm" else ["-y"]), "--node", "other")
    assert outcome.code == 1
    assert "NK0510" in outcome.err
    assert path in outcome.err
    assert "NK0510" in other.run("apply", "-y", str(other.path)).err


def test_which_way_back_is_meant_has_to_be_said_as_long_as_one_may_be_another_nodes(node: Node, other: Node) -> None:
    node.apply(veth())
    node.apply(changed())
    damage("other", journal.PREVIOUS)
    outcome = node.run("rollback", "-y")
    assert outcome.code == 1
    assert "NK0604" in outcome.err


def test_a_trial_of_which_the_record_is_damaged_is_waited_for_until_it_has_been_tried(node: Node, other: Node) -> None:
    node.apply(veth())
    tried(node, "4s")
    damage("w", journal.UNCONFIRMED)
    assert "NK0611" in other.run("apply", "-y", str(other.path)).err
    until(lambda: rundir.read("w", journal.OUTCOME))
    outcome = other.run("apply", "-y", str(other.path))
    assert outcome.code == 0, outcome.err
    (rundir.RUN / "w" / journal.UNCONFIRMED).unlink()
    until(lambda: not alive())


@pytest.mark.parametrize("cut", ["never confirmed", "killed"])
def test_a_previous_that_cannot_be_read_keeps_no_run_from_being_taken_back(node: Node, cut: str) -> None:
    node.apply(changed(1300))
    node.apply(veth())
    before = netstate_snapshot()
    if cut == "killed":
        node.write(changed())
        killed_after(node, 1)
        damage("w", journal.PREVIOUS)
        outcome = node.run("recover", "-y")
        assert outcome.code == 0, outcome.err
    else:
        tried(node, "2s")
        damage("w", journal.PREVIOUS)
        until(lambda: not alive())
        assert '"problems": []' in (rundir.read("w", journal.OUTCOME) or "")
    assert differences(before, netstate_snapshot()) == []
    assert "NK0510" in node.run("rollback", "-y").err
    assert node.run("destroy", "-y", "--node", "w").code == 0


def open_to_all(folder: Path) -> None:
    folder.chmod(0o777)


def a_file_open_to_all(folder: Path) -> None:
    (folder / "namespaces").write_text("x 1 a\n")
    (folder / "namespaces").chmod(0o666)


def another_folder(folder: Path) -> None:
    folder.with_name("notes").mkdir()
    folder.with_name("notes").chmod(0o775)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [(open_to_all, "other"), (a_file_open_to_all, "other/namespaces"), (another_folder, "notes")],
)
def test_what_others_could_write_to_is_named_and_stops_no_other_node(
    node: Node, other: Node, spoil: Callable[[Path], None], named: str
) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "3s")
    spoil(rundir.RUN / "other")
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []
    assert '"problems": []' in (rundir.read("w", journal.OUTCOME) or "")
    for words in (["plan", str(node.path)], ["apply", "-y", str(node.path)], ["show", "--node", "w"], ["doctor"]):
        outcome = node.run(*words)
        assert outcome.code == 0, outcome.err
        assert outcome.err.count("NK0617") == 1, outcome.err
        assert str(rundir.RUN / named) in outcome.err
    assert mtus() == {1400}


def test_whoever_can_write_to_a_nodes_folder_makes_nobody_wait(node: Node, other: Node) -> None:
    """By a guardian's lock in it, or a record of a trial."""
    node.apply(veth())
    folder = rundir.RUN / "other"
    (folder / journal.UNCONFIRMED).write_text((folder / journal.PREVIOUS).read_text())
    held = rundir.hold("other", rundir.GUARDIAN, "")
    assert isinstance(held, rundir.Lock)
    with held:
        assert "NK0611" in node.refused(changed(), command="apply")
        folder.chmod(0o777)
        node.apply(changed())
    assert link("x0")["mtu"] == 1300
