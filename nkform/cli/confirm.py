"""`nkform apply --confirm` and `nkform confirm`: a change that goes unless somebody says that it may stay."""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, Any

from nkform.cli.common import session
from nkform.cli.output import never_waiting
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
    with _Regret() as regret, never_waiting():
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
                select.select([], [], [], PAUSE)
            elif select.select([sys.stdin], [], [], PAUSE)[0]:
                if os.read(sys.stdin.fileno(), 4096):
                    trial.confirm()
                    print("Confirmed.")
                    return 0
                here = False  # the terminal is gone
    if detach or trial.is_confirmed():
        print("Confirmed.")
        return 0
    raise fail("NK0509", f"nobody confirmed: {trial.node} is as it was before")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
