"""Signals that ask a run to stop: it does so between actions, and takes back what it did; asked again, at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from nkform.kernel import rundir

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HALTS = (signal.SIGTSTP, signal.SIGTTOU)
"""Signals that halt a process (signal(7)): Ctrl-Z, and what a process in the background writes to its terminal."""


class Interrupted(BaseException):
    """Asked to stop, by the signal of this name; what was done is to be taken back."""


class Stopped(BaseException):
    """Asked again: nothing more is to be done, not even that."""


class Interrupts:
    """Within the block, the first signal is kept until `check` is called; the second raises Stopped at once.

    Elsewhere than in the main thread it does nothing: signals never arrive there.
    """

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told
        self._asked = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and the like
                    self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raises Interrupted if somebody asked."""
        if self._asked:
            raise Interrupted(signal.Signals(self._asked).name)

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked:
            raise Stopped(signal.Signals(number).name)
        self._asked = number
        self._told(signal.Signals(number).name)


class Halts:
    """Within the block, what would halt this process does so when it has not, or no longer, the machine's lock: whoever
    wants to go back waits for that.

    Elsewhere than in the main thread, and where somebody else handles these signals, it does nothing.
    """

    def __init__(self) -> None:
        self._handled: list[signal.Signals] = []
        self._asked = False

    def __enter__(self) -> Halts:
        if threading.current_thread() is threading.main_thread():
            # After a handler a write is tried again, and the signal comes again; where that is ignored, it is written.
            free = [number for number in HALTS if signal.getsignal(number) is signal.SIG_DFL]
            for number in free:
                signal.signal(number, signal.SIG_IGN if number == signal.SIGTTOU else self._arrived)
            self._handled = free
        return self

    def __exit__(self, *_: object) -> None:
        for number in self._handled:
            signal.signal(number, signal.SIG_DFL)
        if self._asked:
            os.kill(os.getpid(), signal.SIGTSTP)

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if rundir.has_lock():
            self._asked = True
            return
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        signal.signal(number, self._arrived)


class Regret:
    """Ctrl-C while a change waits to be confirmed: nobody will confirm it. Within the block it does nothing else."""

    def __init__(self) -> None:
        self._felt = False
        self._before: Any = None

    def __enter__(self) -> Regret:
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
