"""A record that lost its end is not believed: what is missing in it would count as not there before the run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nkform.apply import journal
from nkform.kernel import rundir
from tests.live.helpers.attack import killed_after
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, links
from tests.live.test_confirm import guardians
from tests.live.test_going_back import changed, kill_guardians, tried
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")


@pytest.fixture(autouse=True)
def _nobody_stays_behind() -> Iterator[None]:
    yield
    if guardians():
        kill_guardians()


def cut(state: str, keep: int) -> None:
    """Leaves so many lines of a record of node w; nobody who looks at its times sees that."""
    path = rundir.RUN / "w" / state
    stamp = path.stat()
    lines = path.read_bytes().splitlines(keepends=True)
    os.truncate(path, sum(map(len, lines[:keep])))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def first_lines(state: str) -> list[int]:
    """How many lines may be left of it, from the first alone to all but the end of what the node was."""
    text = (rundir.RUN / "w" / state).read_text().splitlines()
    return list(range(1, 1 + max(place for place, line in enumerate(text) if '"type":"Device"' in line)))


def test_a_way_back_that_was_cut_off_is_not_taken(node: Node) -> None:
    node.apply(veth())
    node.apply(changed())
    there = links()
    for keep in reversed(first_lines(journal.PREVIOUS)):
        cut(journal.PREVIOUS, keep)
        assert "NK0510" in node.run("rollback", "-y").err
        assert links() == there


def test_a_guardian_does_not_go_back_by_a_record_that_was_cut_off(node: Node) -> None:
    node.apply(veth())
    there = links()
    tried(node, "2s")
    cut(journal.UNCONFIRMED, first_lines(journal.UNCONFIRMED)[-1])
    until(lambda: journal.read_outcome("w"))
    problems = journal.read_outcome("w")["problems"]
    assert "unconfirmed of an earlier run cannot be read" in problems[0]
    assert links() == there


def test_a_killed_run_is_not_taken_back_by_a_journal_that_was_cut_off(node: Node) -> None:
    node.apply(veth())
    there = links()
    node.write(changed())
    killed_after(node, 2)
    cut(journal.JOURNAL, first_lines(journal.JOURNAL)[-1])
    assert "NK0510" in node.run("recover", "-y").err
    assert links() == there
