"""The right to change this machine, which one run has at a time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from nkform.apply import expedite
from nkform.kernel import clock, rundir
from nkform.kernel.error import KernelError
from nkform.kernel.process import own_id
from nkform.kernel.rundir import GOING_BACK, MACHINE, Lock
from nkform.problem import fail

PAUSE = 0.05
"""Seconds between two tries."""


def take(
    command: str,
    seconds: float,
    told: Callable[[str], None],
    *,
    first: bool = False,
    meanwhile: Callable[[], object] = lambda: None,
) -> Lock:
    """Takes the lock, for which it waits at most so many seconds; `told` gets what it waits for, once.

    `first`: ahead of all others who wait; it is for going back when nobody confirmed. `meanwhile` is called again and
    again while it waits. What a run that was killed had
    borrowed of the machine is put back, and that is told. Raises NkformError (another run goes on), KernelError (the
    folder cannot be trusted).
    """
    words = f"nkform {command} {process(own_id())}"
    until = clock.monotonic() + seconds
    waited = False
    turn = _turn(words) if first else None
    try:
        while isinstance(lock := _try(words, first=first), str):
            if clock.monotonic() >= until:
                raise fail(
                    "NK0610",
                    f"{lock} is changing this machine",
                    hint="try again when it is done, or wait longer: --lock-timeout 10m",
                )
            if not waited:
                told(f"waiting for {lock}")
                waited = True
            meanwhile()
            clock.pause(PAUSE)
    finally:
        if isinstance(turn, Lock):
            with suppress(KernelError):
                rundir.remove(MACHINE, GOING_BACK)
            turn.release()
    with suppress(KernelError):  # it stays on record, and `nkform doctor` shows it
        if expedite.put_back():
            told(expedite.PUT_BACK)
    return lock


def process(pid: int) -> str:
    """How whoever has the lock names itself, at the end."""
    return f"(process {pid})"


def _turn(words: str) -> Lock | str | None:
    """The right to be next; None where there is no room to write that down."""
    try:
        return rundir.hold(MACHINE, GOING_BACK, words)
    except KernelError:
        return None


def _try(words: str, *, first: bool) -> Lock | str:
    """The lock, or who has it, or is to have it next."""
    if not first and rundir.is_held(MACHINE, GOING_BACK):
        return rundir.read(MACHINE, GOING_BACK) or "a run that goes back"
    return rundir.lock(words)
