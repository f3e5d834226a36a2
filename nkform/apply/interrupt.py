"""Signals that ask a run to stop: it does so between actions, and takes back what it did; asked again, at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """Asked to stop, by the signal of this name. The number of a shell's exit code is 128 + the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


class Interrupts:
    """Within the block, the first signal is kept until `check` is called; the second raises Interrupted at once.

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
            raise Interrupted(self._asked)

    def _arrived(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._asked:
            raise Interrupted(number)
        self._asked = number
        self._told(signal.Signals(number).name)
