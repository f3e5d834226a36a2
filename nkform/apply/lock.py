"""The right to change this machine, which one run has at a time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from nkform.apply import expedite
from nkform.kernel import rundir
from nkform.kernel.netlink import KernelError
from nkform.kernel.rundir import Lock
from nkform.problem import fail

PAUSE = 0.05
"""Seconds between two tries."""


def take(command: str, seconds: float, told: Callable[[str], None]) -> Lock:
    """Takes the lock, for which it waits at most so many seconds; `told` gets what it waits for, once.

    What a run that was killed had borrowed of the machine is put back, and that is told. Raises NkformError (another
    run goes on), KernelError (the folder cannot be trusted).
    """
    words = f"nkform {command} (process {os.getpid()})"
    until = time.monotonic() + seconds
    waited = False
    while isinstance(found := rundir.lock(words), str):
        if time.monotonic() >= until:
            raise fail(
                "NK0610",
                f"{found} is changing this machine",
                hint="try again when it is done, or wait longer: --lock-timeout 10m",
            )
        if not waited:
            told(f"waiting for {found}")
            waited = True
        time.sleep(PAUSE)
    with suppress(KernelError):  # it stays on record, and `nkform doctor` shows it
        if expedite.put_back():
            told(expedite.PUT_BACK)
    return found
