"""Signals that ask a run to stop: it does so between actions, and takes back what it did; asked again, at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


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
