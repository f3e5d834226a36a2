"""Whoever keeps from going back what nobody confirmed: has the machine's lock, or the next turn, and does not get on.

Such a process is killed. It may be any of nkform, of whichever node; what it did half-way is on record, as after any
kill.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nkform.kernel import clock, holders, rundir

INTERVAL = 1.0
"""Seconds between two looks, each of which is at all processes."""

PAUSE = 0.2
"""Seconds between two calls of it."""

KEPT = 5.0
"""Seconds that one may be stopped (SIGSTOP, a debugger, a frozen control group); and within which after the time to
confirm the guarded run itself must have let go of the machine's lock."""

STALLED = 30.0
"""Seconds in which one that is not stopped may use no processor, nor any process that it started; and without progress
after which a guarded run counts as stuck, if it has to be confirmed within fewer."""

ENDS_WITHIN = 2.0
"""Seconds that the kernel is given to end what was killed."""

TURN = rundir.RUN / rundir.MACHINE / rundir.GOING_BACK
LOCK = rundir.RUN / rundir.LOCK


class Stuck:
    """Looks again and again whether somebody is stuck, and kills who is for too long.

    `told` gets that. `guardian_of`: only if it is the guardian of that node.
    """

    def __init__(self, told: Callable[[str], None], guardian_of: str = "") -> None:
        self._told = told
        self._guardian_of = guardian_of
        self._next = 0.0
        self._seen: dict[object, tuple[object, float]] = {}
        """For each file what was seen of those that have its lock, and since when."""
        self._halted = False
        self._killed: dict[holders.Holder, float] = {}
        """When; 0: it was told that it does not end."""

    def look(self) -> bool:
        """Whether somebody is stopped who may still go on, or was killed and may still end. Call it often: it looks
        once a second. Raises KernelError."""
        now = clock.monotonic()
        if now < self._next:
            return self._halted
        self._next = now + INTERVAL
        self._halted = self._look(LOCK if rundir.is_locked() else TURN, now)
        return self._halted

    def _look(self, path: Path, now: float) -> bool:
        found = holders.look(path)
        if found is None or not self._is_meant(found):
            self._seen.pop(path, None)
            return False
        if any(process in self._killed for process in found.processes):
            return self._ends(found, now)
        seen, since = self._seen.get(path, (None, now))
        if seen != found.steps:
            since = now
        self._seen[path] = (found.steps, since)
        if now - since < (KEPT if found.halted else STALLED):
            return found.halted
        what = "is stopped (SIGSTOP, a debugger, a frozen control group)" if found.halted else "does not get on"
        self._told(f"{_named(found)} {what} and keeps from going back what nobody confirmed: it is killed")
        for process in found.processes:
            if holders.kill(process, path):
                self._killed[process] = now
        return True

    def _is_meant(self, found: holders.Holders) -> bool:
        if not self._guardian_of:
            return True
        guardian = holders.look(rundir.RUN / self._guardian_of / rundir.GUARDIAN)
        return guardian is not None and any(process in guardian.processes for process in found.processes)

    def _ends(self, found: holders.Holders, now: float) -> bool:
        """Whether those that were killed may be about to end; if they do not, that is told."""
        for process in found.processes:
            since = self._killed.setdefault(process, now)
            if since and now - since >= ENDS_WITHIN:
                self._killed[process] = 0
                why = "it waits in the kernel, or its control group (version 1) is frozen: thaw it"
                self._told(f"{_named(found)} was killed, and does not end: {why}")
        return any(self._killed[process] for process in found.processes)


def _named(found: holders.Holders) -> str:
    """The process, as it calls itself where it can be told."""
    pid = found.processes[0].pid
    words = rundir.lock_holder() or ""
    return words if words.endswith(f"(process {pid})") else f"nkform (process {pid})"
