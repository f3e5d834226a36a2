"""`nkform apply --confirm` and `nkform confirm`: a change that goes unless somebody says that it may stay."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from nkform.apply import journal
from nkform.apply.guardian import IN_THE_WAY, go_back, has_tried, is_alive, is_overdue, now, outcome, start
from nkform.cli.common import check_node, chosen_node, look_after
from nkform.cli.writing import locked, refuse_all_elsewhere, say
from nkform.kernel import rundir
from nkform.problem import NkformError, Problem, fail

if TYPE_CHECKING:
    from nkform.apply.guardian import Guardian, Outcome

PAUSE = 0.2
"""Seconds between two looks at whether somebody confirmed."""


def run(options: argparse.Namespace) -> int:
    check_node(options.node)
    look_after(options)
    with locked(options, "confirm"):
        waiting = [name for name in rundir.nodes() if journal.find(name, journal.UNCONFIRMED)]
        if not waiting or (options.node and options.node not in waiting):
            refuse_all_elsewhere(options.node)
        if not waiting:
            raise fail("NK0612", "nothing waits to be confirmed", hint="it may have gone back already: `nkform plan`")
        in_time = [name for name in waiting if not has_tried(name)]
        node = chosen_node(waiting if options.node else in_time or waiting, options.node)
        refuse_late(node)
        if left := journal.find(node, journal.JOURNAL):
            what = f"nkform {left.entry.command} (process {left.entry.pid}) {left.ended} on {node}: it comes first"
            raise fail("NK0514", what, hint="`nkform recover` takes the node back to what it was before")
        journal.confirm(node)
    print(f"Confirmed: {node} stays as it is.")
    return 0


def refuse_late(node: str) -> None:
    """Raises NkformError where the run that waits to be confirmed has begun to go back."""
    found = journal.find(node, journal.UNCONFIRMED)
    if found and outcome(node, found.entry.token) is not None:
        raise fail(
            "NK0509",
            f"too late: {node} goes back to what it was, as far as it can",
            hint=IN_THE_WAY,
        )


def wait(node: str, guardian: Guardian, seconds: float, *, detach: bool) -> int:
    """Waits until somebody confirms, here or elsewhere, or the guardian has gone back. Raises NkformError."""
    record = rundir.stamp(node, journal.UNCONFIRMED)
    until = now() + seconds
    here = sys.stdin is not None and sys.stdin.isatty() and not detach
    ways = "press Enter, or run `nkform confirm`" if here else "run `nkform confirm`"
    with _Regret() as regret:
        say(f"To keep this, {ways} within {seconds:g} s; otherwise {node} goes back to what it was.")
        while rundir.stamp(node, journal.UNCONFIRMED) == record:
            if (found := outcome(node, guardian.token)) is not None:
                raise _stuck(found)
            guardian = _guarded(node, guardian, seconds, until)
            if detach:
                return 0
            if regret.take():
                say("going back")
                guardian.revert()
                here = False
            if not here:
                select.select([], [], [], PAUSE)
            elif select.select([sys.stdin], [], [], PAUSE)[0]:
                if os.read(sys.stdin.fileno(), 4096):
                    return _confirm(node, record)
                here = False  # the terminal is gone
    if detach or rundir.stamp(node, journal.PREVIOUS) == record:
        print("Confirmed.")
        return 0
    raise fail("NK0509", f"nobody confirmed: {node} is as it was before")


def _guarded(node: str, guardian: Guardian, seconds: float, until: float) -> Guardian:
    """The guardian, or another one in its place if it was killed, or this process itself where none can be had."""
    if rundir.stamp(node, journal.UNCONFIRMED) is None:
        return guardian
    if is_alive(node):
        if is_overdue(node, guardian.token, until):
            go_back(node, guardian.token)
        return guardian
    try:
        again = start(node, guardian.token, seconds, lambda: None, until)
    except OSError:
        if now() >= until:
            go_back(node, guardian.token)
        return guardian
    except NkformError:  # somebody else has just done so
        return guardian
    say(f"the guardian of {node} was killed: another one waits for the confirmation now")
    return again


class _Regret:
    """Ctrl-C while a change waits to be confirmed: nobody will confirm it. Within the block it does nothing else."""

    def __init__(self) -> None:
        self._felt = False
        self._before: Any = None

    def __enter__(self) -> _Regret:
        self._before = signal.signal(signal.SIGINT, self._feel)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _feel(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        self._felt = True

    def take(self) -> bool:
        """Whether it was felt since this was asked last."""
        felt, self._felt = self._felt, False
        return felt


def _confirm(node: str, record: tuple[int, int] | None) -> int:
    from nkform.apply.lock import take

    with take("confirm", 60, say):
        if rundir.stamp(node, journal.UNCONFIRMED) == record:
            refuse_late(node)
            journal.confirm(node)
            print("Confirmed.")
            return 0
    raise fail("NK0509", f"too late: {node} is as it was before")


def _stuck(found: Outcome) -> NkformError:
    return NkformError(
        Problem(
            "NK0513",
            "nobody confirmed, and not all of the node could go back",
            hint="it is tried again for as long as it takes; `nkform recover` tries at once",
        ),
        *(Problem("NK0503", text) for text in found.problems),
    )
