"""`nkform apply --confirm` and `nkform confirm`: a change that goes unless somebody says that it may stay."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from nkform.cli.common import session
from nkform.kernel import clock
from nkform.kernel.interrupt import Regret
from nkform.kernel.standard_streams import never_waiting, typed
from nkform.problem import fail

if TYPE_CHECKING:
    from nkform.session.trial import Trial

PAUSE = 0.2
"""Seconds between two looks at whether somebody confirmed."""


def run(options: argparse.Namespace) -> int:
    with session(options) as nkform:
        node = nkform.confirm(options.node)
    print(f"Confirmed: {node} stays as it is.")
    return 0


def wait(trial: Trial, *, detach: bool) -> int:
    """Waits until somebody confirms, here or elsewhere, or the guardian has gone back. Raises NkformError."""
    here = sys.stdin is not None and sys.stdin.isatty() and not detach
    ways = "press Enter, or run `nkform confirm`" if here else "run `nkform confirm`"
    with Regret() as regret, never_waiting():
        _say(f"To keep this, {ways} within {trial.seconds:g} s; otherwise {trial.node} goes back to what it was.")
        while trial.is_waiting():
            if detach:
                return 0
            sys.stderr.flush()
            if regret.take():
                _say("going back")
                trial.revert()
                here = False
            if not here:
                clock.pause(PAUSE)
            elif word := typed(PAUSE):
                trial.confirm()
                print("Confirmed.")
                return 0
            elif word is not None:
                here = False  # the terminal is gone
    if detach or trial.is_confirmed():
        print("Confirmed.")
        return 0
    raise fail("NK0509", f"nobody confirmed: {trial.node} is as it was before")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
