"""An apply that goes back unless somebody confirms it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nkform.apply import journal
from nkform.apply.journal import UnreadableError
from nkform.kernel import clock, rundir
from nkform.kernel.error import KernelError
from nkform.problem import NkformError, Problem, fail
from nkform.results import Pending
from nkform.session import records
from nkform.session.guardian import go_back, start
from nkform.session.guardian_record import (
    IN_THE_WAY,
    guarded_by_last,
    has_tried,
    is_alive,
    is_overdue,
    outcome,
    should_go_back,
)
from nkform.session.node import chosen
from nkform.session.run_lock import refuse_all_elsewhere
from nkform.session.stuck import Stuck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from nkform.session.guardian import Guardian
    from nkform.session.guardian_record import Outcome
    from nkform.session.listener import Listener


class Trial:
    """A run that waits to be confirmed. Whoever has it sees to it that its guardian lives, by `is_waiting`.

    `lock` takes the lock of the machine on behalf of a command, or has it already (Session.lock).
    """

    def __init__(
        self,
        node: str,
        guardian: Guardian,
        seconds: float,
        listener: Listener,
        lock: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self.node = node
        self.seconds = seconds
        self._guardian = guardian
        self._listener = listener
        self._lock = lock
        self._record = rundir.stamp(node, journal.UNCONFIRMED)
        self._until = clock.since_boot() + seconds
        self._stuck = Stuck(listener.say)

    def is_waiting(self) -> bool:
        """Whether it still waits; a guardian that was killed is replaced.

        Raises NkformError (NK0513) where it goes back and not all could, KernelError.
        """
        if not self._is_on_record():
            return False
        if (found := outcome(self.node, self._guardian.token)) is not None:
            raise _stuck(found)
        self._guardian = self._guarded()
        return True

    def is_confirmed(self) -> bool:
        """Whether somebody confirmed it, once it waits no more. Raises KernelError."""
        return rundir.stamp(self.node, journal.PREVIOUS) == self._record

    def revert(self) -> None:
        """Nobody will confirm it: it goes back now."""
        self._guardian.revert()

    def confirm(self) -> None:
        """The node stays as it is. Raises NkformError (NK0509: too late), KernelError."""
        with self._lock("confirm"):
            if self._is_on_record():
                refuse_late(self.node)
                journal.confirm(self.node)
                return
        raise fail("NK0509", f"too late: {self.node} is as it was before")

    def _is_on_record(self) -> bool:
        """Whether the record that waits is this run's, whoever has touched it."""
        stamp = rundir.stamp(self.node, journal.UNCONFIRMED)
        if stamp not in (None, self._record):
            found = journal.look(self.node, journal.UNCONFIRMED)
            if isinstance(found, journal.Found) and found.entry.token == self._guardian.token:
                self._record = stamp
        return stamp is not None and stamp == self._record

    def _guarded(self) -> Guardian:
        """The guardian, or another one in its place if it was killed, or this process itself where none can be had."""
        node, guardian = self.node, self._guardian
        if rundir.stamp(node, journal.UNCONFIRMED) is None:
            return guardian
        if is_alive(node):
            if should_go_back(self._until):
                self._stuck.look()
            if is_overdue(node, guardian.token, self._until):
                go_back(node, guardian.token)
            return guardian
        try:
            again = start(node, guardian.token, self.seconds, lambda: None, self._until)
        except OSError:
            if clock.since_boot() >= self._until:
                go_back(node, guardian.token)
            return guardian
        except NkformError:  # somebody else has just done so
            return guardian
        self._listener.say(f"the guardian of {node} was killed: another one waits for the confirmation now")
        return again


def confirm(name: str | None, listener: Listener) -> str:
    """Confirms what waits on a node, or the only one that waits; returns the node's name. The lock is held.

    Where nothing waits because the last apply had nothing to do, that is said, and no error: a script that applies and
    confirms need not know. Raises NkformError, KernelError.
    """
    looks = {node: journal.look(node, journal.UNCONFIRMED) for node in rundir.nodes()}
    for node, fault in looks.items():
        if isinstance(fault, UnreadableError | KernelError):
            if node == name:
                raise fault
            listener.warn(records.warnings(fault))
    waiting = [node for node, found in looks.items() if isinstance(found, journal.Found)]
    if not waiting or (name and name not in waiting):
        refuse_all_elsewhere(name)
        if last := journal.up_to_date(name):
            listener.say(f"nothing waits to be confirmed: the last apply of {last} had nothing to do")
            return last
    if not waiting:
        raise fail("NK0612", "nothing waits to be confirmed", hint="it may have gone back already: `nkform plan`")
    in_time = [node for node in waiting if not has_tried(node)]
    node = chosen(waiting if name else in_time or waiting, name)
    refuse_late(node)
    if left := journal.find(node, journal.JOURNAL):
        what = f"nkform {left.entry.command} (process {left.entry.pid}) {left.ended} on {node}: it comes first"
        raise fail("NK0514", what, hint="`nkform recover` takes the node back to what it was before")
    journal.confirm(node)
    return node


def pending() -> Iterator[Pending]:
    """What waits to be confirmed on this machine, or goes back, as far as it can be read. Raises KernelError."""
    for node in rundir.nodes():
        found = journal.look(node, journal.UNCONFIRMED)  # damaged: whoever wants to change something is told
        if isinstance(found, journal.Found):
            guarded, done = guarded_by_last(node), outcome(node, found.entry.token)
            until = guarded.until if guarded and guarded.token == found.entry.token else None
            left = 0.0 if until is None else max(0.0, until - clock.since_boot())
            yield Pending(node, found.entry.when, left, done.problems if done else ())


def refuse_late(node: str) -> None:
    """Raises NkformError where the run that waits to be confirmed has begun to go back."""
    found = journal.find(node, journal.UNCONFIRMED)
    if found and outcome(node, found.entry.token) is not None:
        raise fail("NK0509", f"too late: {node} goes back to what it was, as far as it can", hint=IN_THE_WAY)


def _stuck(found: Outcome) -> NkformError:
    return NkformError(
        Problem(
            "NK0513",
            "nobody confirmed, and not all of the node could go back",
            hint="it is tried again for as long as it takes; `nkform recover` tries at once",
        ),
        *(Problem("NK0503", text) for text in found.problems),
    )
