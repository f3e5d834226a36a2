"""A process beside a run that must be confirmed: it goes back if nobody does, whatever becomes of the run itself.

It belongs to no terminal, no process group and no control group of the caller, so that it outlives them. For as long as
it lives it has the lock of a file that says which run it guards and until when: where the file is there and the lock is
free, the guardian was killed, and whoever finds that takes its place (`look_after`).
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from functools import partial
from typing import Literal

from nkform.apply.journal import (
    JOURNAL,
    UNCONFIRMED,
    Found,
    State,
    find,
    free_room,
    is_elsewhere,
    keep_room,
    look,
    note_outcome,
)
from nkform.apply.lock import process, take
from nkform.kernel import clock, daemon, rundir, system_log
from nkform.kernel.daemon import Ear, Line
from nkform.kernel.error import KernelError
from nkform.kernel.interrupt import Interrupts
from nkform.kernel.process import Process, own_id
from nkform.kernel.rundir import GUARDIAN, Lock
from nkform.problem import NkformError, Problem, fail, unexpected
from nkform.session import preload
from nkform.session.guardian_record import (
    PENDING,
    Guarded,
    guarded_by_last,
    is_alive,
    is_overdue,
    should_go_back,
    written,
)
from nkform.session.recovery import revert
from nkform.session.stuck import KEPT, PAUSE, STALLED, Stuck

LONGEST_PAUSE = 60.0
"""Seconds between two tries to go back, at most; the first pause is one second, and each is twice the one before."""
FOREVER = 1e9

ELSEWHERE = "another network namespace waits to be confirmed, and its guardian does nothing"
ELSEWHERE_HINT = "run any command of nkform in that namespace"
NO_GUARDIAN = "what limits the number of processes (`ulimit -u`, pids.max of a control group), or memory, is in its way"
NAME = b"nkform-guardian"

APPLIED, DISMISSED, REVERT = b"a", b"d", b"r"


class Guardian:
    """The run's end of the line to its guardian."""

    def __init__(self, node: str, token: str, seconds: float, line: Line) -> None:
        self.token = token
        self._node = node
        self._seconds = seconds
        self._line = line

    def applied(self) -> None:
        """The run is done; the time to confirm begins."""
        with contextlib.suppress(OSError):  # somebody has confirmed it already, or the guardian counts for itself
            rundir.rewrite(self._node, GUARDIAN, written(Guarded(self.token, clock.since_boot() + self._seconds)))
        self._line.say(APPLIED)

    def dismiss(self) -> None:
        """The run has undone itself: there is nothing to guard."""
        self._line.say(DISMISSED)

    def revert(self) -> None:
        """Nobody will confirm."""
        self._line.say(REVERT)


class Record:
    """The record of a run that waits to be confirmed. `held`: the guardian's own file, which goes with it."""

    def __init__(self, node: str, token: str, held: Lock) -> None:
        self.token = token
        self._node = node
        self._held = held
        self._stamp: tuple[int, int] | None = None

    def state(self) -> Literal["waits", "settled", "hidden"]:
        """Whether it still waits, was confirmed or taken back; or cannot be seen, since something is mounted there.

        That somebody has touched it, or that it cannot be read, confirms nothing. Raises KernelError.
        """
        stamp = rundir.stamp(self._node, UNCONFIRMED)
        if stamp is None:
            hidden = rundir.stamp(self._node, GUARDIAN) is None and not self._held.is_removed()
            return "hidden" if hidden else "settled"
        if stamp != self._stamp:
            found = look(self._node, UNCONFIRMED)
            if found is None or (isinstance(found, Found) and found.entry.token != self.token):
                return "settled"
            self._stamp = stamp
        return "waits"


def start(node: str, token: str, seconds: float, leave: Callable[[], None], until: float | None = None) -> Guardian:
    """Starts a guardian for the run with that token. `leave` closes what the guardian must not keep.

    `until`: the run is done, and is to be confirmed until then. Raises KernelError, NkformError: none watches over it.
    """
    preload.load()  # before the run changes anything, which may be what the code is reached by
    held = rundir.hold(node, GUARDIAN, written(Guarded(token, until)))
    if not isinstance(held, Lock):
        raise fail("NK0611", f"an apply of {node} is guarded already, and may be going back", hint=PENDING)
    number = own_id()

    def life(ear: Ear) -> None:
        leave()
        _guard(node, Record(node, token, held), seconds, ear, Process(number), until)

    try:
        line = daemon.start(NAME, life, lambda error: system_log.error(f"the guardian of {node} failed: {error!r}"))
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"start a guardian for {node}") from error
    finally:
        held.leave()
    return Guardian(node, token, seconds, line)


def _guard(node: str, record: Record, seconds: float, ear: Ear, run: Process, until: float | None) -> None:
    """Goes back if the run is not confirmed in time, also where waiting for that fails in a way nobody thought of."""
    try:
        is_over = _wait(node, record, seconds, ear, run, until)
    except Exception as error:
        system_log.error(f"the guardian of {node} goes back early: {error!r}")
        is_over = True
    if is_over:
        _end(run)
        _go_back_at_last(node, record.token)


def _has_lock(run: Process) -> bool:
    """Whether it has the machine's lock. Raises KernelError."""
    return run.was_there and rundir.is_locked() and (rundir.lock_holder() or "").endswith(process(run.number))


def _end(run: Process) -> None:
    """Kills the guarded run if it keeps the lock: it was stopped (SIGSTOP, a frozen control group), or is stuck."""
    with contextlib.suppress(OSError):
        end = clock.monotonic() + KEPT
        while _has_lock(run):
            if clock.monotonic() >= end:
                run.kill()
                return
            clock.pause(PAUSE)


def _wait(node: str, record: Record, seconds: float, ear: Ear, run: Process, until: float | None) -> bool:
    """Waits for what the run says, and for what becomes of its record; whether it is to be taken back."""
    moved, seen = clock.monotonic(), rundir.stamp(node, JOURNAL)
    while True:
        word = ear.hear(PAUSE)
        if word == DISMISSED:
            return False
        if word == APPLIED:
            guarded = guarded_by_last(node)
            until = (guarded and guarded.until) or clock.since_boot() + seconds
        elif word == REVERT or (word == b"" and until is None):
            return True  # the run was killed before it was done; where it was done, somebody may still confirm
        if until is not None:
            state = record.state()
            if state == "settled":
                return False
            if clock.since_boot() >= until and state == "waits":
                return True
            continue
        progress = rundir.stamp(node, JOURNAL)
        if progress != seen:
            moved, seen = clock.monotonic(), progress
        if clock.monotonic() - moved > max(seconds, STALLED):
            run.kill()  # it holds the lock
            return True


def _state(node: str, token: str) -> tuple[State, Found] | None:
    """The record of the run, if it is still the one that is guarded."""
    for state in (JOURNAL, UNCONFIRMED):
        found = find(node, state)
        if found and found.entry.token == token:
            return state, found
    return None


def _go_back_at_last(node: str, token: str) -> None:
    """Goes back, and tries again until all of it is done, or the record is not ours any more."""
    pause = 0.0
    while go_back(node, token) not in (None, ()):
        pause = min(max(1.0, 2 * pause), LONGEST_PAUSE)
        clock.pause(pause)


def go_back(node: str, token: str) -> tuple[Problem, ...] | None:
    """Goes back to before the run of that token, as far as that can be, and puts on record what came of it.

    Returns why something could not; None where the run is on record no more. Raises nothing.
    """
    problems: tuple[Problem, ...] = ()
    spec = ""
    with contextlib.suppress(OSError):
        free_room(node)
    try:
        stuck = Stuck(system_log.warning)
        with take("confirm", FOREVER, lambda _: None, first=True, meanwhile=stuck.look) as lock:
            current = _state(node, token)
            if current is None:
                return None
            spec = current[1].entry.spec
            warn = partial(_log_problem, node)
            revert(node, *current, lock, Interrupts(lambda _: None), warn=warn)
            with contextlib.suppress(OSError):  # before a watch has its turn, which knows by it what not to heal to
                note_outcome(node, token, (), spec)
    except NkformError as error:
        problems = error.problems
    except OSError as error:
        problems = (Problem("NK0503", f"could not {error}"),)
    except Exception as error:
        problems = (unexpected(error),)
    said = "nobody confirmed: the node is as before" if not problems else "nobody confirmed, and not all goes back:"
    system_log.warning(f"{node}: {said} {'; '.join(problem.message for problem in problems)}")
    if problems:
        with contextlib.suppress(OSError):
            note_outcome(node, token, problems, spec)
        with contextlib.suppress(OSError):
            keep_room(node, UNCONFIRMED)  # for the next try
    return problems


def _log_problem(node: str, problem: Problem) -> None:
    system_log.warning(f"{node}: {problem.message}")


def make_way(node: str, told: Callable[[str], None]) -> None:
    """Kills whoever is stopped and keeps from going back what nobody confirmed; for that it waits some seconds, in
    which it may go on. Raises KernelError."""
    guarded = guarded_by_last(node)
    if guarded is None or not (rundir.is_locked() or rundir.is_held(rundir.MACHINE, rundir.GOING_BACK)):
        return
    if guarded.until is not None and not should_go_back(guarded.until):
        return
    stuck = Stuck(told, "" if guarded.until is not None else node)  # before the run is done, only who goes back already
    while stuck.look():
        clock.pause(PAUSE)


def look_after(node: str, told: Callable[[str], None]) -> tuple[Problem, ...]:
    """Takes the place of a guardian that was killed or stopped: starts another one while there is time, or goes back.

    Does nothing where one is at work, or where a run is; a record that nobody waits for is removed. Returns what could
    not go back, or that somebody else has to see to it. Raises KernelError, NkformError.
    """
    make_way(node, told)
    guarded = guarded_by_last(node)
    if guarded is None or rundir.is_locked():
        return ()
    lives = is_alive(node)
    if lives and (guarded.until is None or not is_overdue(node, guarded.token, guarded.until)):
        return ()
    current = _state(node, guarded.token)
    if current is None:
        if is_elsewhere(node, JOURNAL) or is_elsewhere(node, UNCONFIRMED):
            return (Problem("NK0511", f"what was done to {node} in {ELSEWHERE}", hint=ELSEWHERE_HINT),)
        rundir.remove(node, GUARDIAN)
        return ()
    state, found = current
    if state == UNCONFIRMED and guarded.until is not None and clock.since_boot() < guarded.until:
        try:
            start(node, guarded.token, found.entry.confirm, lambda: None, guarded.until)
        except KernelError as error:
            what = f"the guardian of {node} was killed, and nkform could not {error}"
            return (Problem("NK0618", what, hint=f"{PENDING}; {NO_GUARDIAN}"),)
        told(f"the guardian of {node} was killed: another one waits for `nkform confirm` now")
        return ()
    what = "does not answer" if lives else "was killed"
    told(f"nobody confirmed what was done to {node}, and its guardian {what}: going back")
    return go_back(node, guarded.token) or ()
