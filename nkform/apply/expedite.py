"""Expedited RCU grace periods while a run attaches and detaches programs.

The switch is the whole machine's (kernel/rcu.py), so it is borrowed: only where it is off, for as long as a batch of
attachments takes, and with a number that no other run uses. That number is on record below /run/nkform before it is
set, and it is put back only where the switch still has it: what somebody else set meanwhile stays. A run that is killed
leaves its record; whoever holds the machine's lock next puts the switch back.

Runs that do not see each other's lock (another /run) do not take the switch from each other: the second one finds it on
and leaves it alone, and waits longer once the first one is done.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nkform.kernel import process, rcu, rundir
from nkform.kernel.error import KernelError
from nkform.kernel.rundir import MACHINE, Lock

RECORD = "rcu_expedited"

PUT_BACK = f"put {rcu.EXPEDITED} back to {rcu.OFF}, which a run that was killed had left on"


class Expedited:
    """The right to borrow the switch, which only the holder of the machine's lock has."""

    def __init__(self, lock: Lock | None) -> None:
        """Without a lock nothing is ever expedited."""
        self._lock = lock

    @contextmanager
    def during(self, wanted: bool) -> Iterator[None]:
        """Within the block grace periods are expedited, where that is wanted and possible.

        Nothing here stops a run: it only takes longer where the switch cannot be had.
        """
        number = self._borrow() if self._lock is not None and wanted else None
        try:
            yield
        finally:
            if number is not None:
                with suppress(KernelError):  # the record stays: the next command tries again
                    put_back()

    def _borrow(self) -> int | None:
        try:
            if rcu.obstacle() or rcu.read() != rcu.OFF:
                return None
            number = process.chance(1 << 20, rcu.LARGEST)
            rundir.write(MACHINE, RECORD, f"{number}\n")
            rcu.write(number)
        except KernelError:
            with suppress(KernelError):
                put_back()
            return None
        return number


def is_borrowed() -> bool:
    """Whether a run has the switch, or was killed while it had it."""
    return rundir.stamp(MACHINE, RECORD) is not None


def put_back() -> bool:
    """Puts the switch back where a run of ours has set it, and forgets the record. Only for the holder of the lock.

    Returns whether it was still set. Raises KernelError: it may still be set, and stays on record.
    """
    text = rundir.read(MACHINE, RECORD)
    if text is None:
        return False
    ours = rcu.is_there() and f"{rcu.read()}\n" == text
    if ours:
        rcu.write(rcu.OFF)
    rundir.remove(MACHINE, RECORD)
    return ours


def put_back_if_idle(words: str) -> bool:
    """As `put_back`, for commands that change nothing, where no run is at work. Never raises.

    `words` tell others who has the lock for that moment.
    """
    with suppress(KernelError):
        if is_borrowed() and isinstance(lock := rundir.lock(words), Lock):
            with lock:
                return put_back()
    return False
