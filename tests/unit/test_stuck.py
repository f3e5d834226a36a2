"""Who keeps from going back what nobody confirmed is told of, and killed in time and not before."""

from __future__ import annotations

from pathlib import Path

import pytest

from nkform.kernel import clock, holders, rundir
from nkform.kernel.holders import Holder, Holders
from nkform.session import stuck
from nkform.session.stuck import ENDS_WITHIN, KEPT, STALLED, Stuck

ONE = Holder(71, 5)
FORKED = Holder(72, 6)


class Machine:
    """What is seen of those that have locks, and what time it is."""

    def __init__(self) -> None:
        self.now = 100.0
        self.seen: dict[Path, Holders] = {}
        self.locked = True
        self.words: str | None = None
        self.killed: list[tuple[Holder, Path]] = []
        self.immune: set[Holder] = set()

    def kill(self, process: Holder, path: Path) -> bool:
        self.killed.append((process, path))
        return process not in self.immune

    def held(self, *processes: Holder, halted: bool = False, steps: int = 0, path: Path = stuck.LOCK) -> None:
        self.seen[path] = Holders(processes, halted, ((steps,),))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(clock, "monotonic", lambda: made.now)
    monkeypatch.setattr(holders, "look", made.seen.get)
    monkeypatch.setattr(holders, "kill", made.kill)
    monkeypatch.setattr(rundir, "is_locked", lambda: made.locked)
    monkeypatch.setattr(rundir, "lock_holder", lambda: made.words)
    return made


@pytest.fixture
def told() -> list[str]:
    return []


def after(machine: Machine, looker: Stuck, seconds: float) -> bool:
    machine.now += seconds
    return looker.look()


def test_nobody_there_is_nobody_stuck(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append)
    assert [after(machine, looker, STALLED) for _ in range(3)] == [False] * 3
    assert (told, machine.killed) == ([], [])


@pytest.mark.parametrize(("halted", "patience"), [(True, KEPT), (False, STALLED)])
def test_who_does_not_get_on_is_killed_in_time(
    machine: Machine, told: list[str], halted: bool, patience: float
) -> None:
    looker = Stuck(told.append)
    machine.held(ONE, FORKED, halted=halted)
    assert looker.look() is halted
    assert after(machine, looker, patience - 0.5) is halted
    assert (told, machine.killed) == ([], [])
    assert after(machine, looker, 1.5)
    assert machine.killed == [(ONE, stuck.LOCK), (FORKED, stuck.LOCK)]
    (line,) = told
    assert line.startswith("nkform (process 71) ")
    assert ("is stopped" in line) is halted


def test_who_gets_on_is_left_alone(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append)
    for step in range(5):
        machine.held(ONE, steps=step)
        after(machine, looker, STALLED - 1)
    assert (told, machine.killed) == ([], [])


def test_who_let_go_meanwhile_begins_anew(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append)
    machine.held(ONE)
    looker.look()
    machine.seen.clear()
    after(machine, looker, STALLED)
    machine.held(ONE)
    after(machine, looker, STALLED)
    assert machine.killed == []


def test_it_looks_once_a_second(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append)
    assert not looker.look()
    machine.held(ONE, halted=True)
    assert not after(machine, looker, stuck.INTERVAL / 2)
    assert after(machine, looker, stuck.INTERVAL / 2)


def test_who_does_not_end_when_killed_is_told_of_once(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append)
    machine.held(ONE)
    looker.look()
    assert after(machine, looker, STALLED)
    assert after(machine, looker, ENDS_WITHIN - 0.5)  # it may still end
    assert not after(machine, looker, stuck.INTERVAL)
    assert not after(machine, looker, STALLED)
    assert len(told) == 2
    assert "does not end" in told[1]
    assert len(machine.killed) == 1


def test_who_let_go_as_it_was_to_be_killed_is_looked_at_again(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append)
    machine.held(ONE)
    machine.immune.add(ONE)
    looker.look()
    after(machine, looker, STALLED)
    after(machine, looker, stuck.INTERVAL)
    assert len(machine.killed) == 2


def test_it_is_named_as_it_calls_itself(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append)
    machine.held(ONE)
    machine.words = "nkform apply of box (process 71)"
    looker.look()
    after(machine, looker, STALLED)
    assert told[0].startswith("nkform apply of box (process 71) does not get on")
    machine.words = "nkform apply of box (process 9)"  # of another
    after(machine, looker, ENDS_WITHIN)
    assert told[1].startswith("nkform (process 71) was killed")


def test_without_the_lock_it_is_whose_turn_it_is(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append)
    machine.locked = False
    machine.held(ONE, halted=True, path=stuck.TURN)
    looker.look()
    after(machine, looker, KEPT)
    assert machine.killed == [(ONE, stuck.TURN)]


def test_only_a_nodes_guardian_is_meant_where_that_is_asked(machine: Machine, told: list[str]) -> None:
    looker = Stuck(told.append, "box")
    guardian = rundir.RUN / "box" / rundir.GUARDIAN
    machine.held(ONE, halted=True)
    looker.look()
    after(machine, looker, KEPT)
    machine.held(FORKED, path=guardian)
    after(machine, looker, KEPT)
    assert machine.killed == []
    machine.held(ONE, path=guardian)
    after(machine, looker, KEPT)
    after(machine, looker, KEPT)
    assert machine.killed == [(ONE, stuck.LOCK)]
