"""A process that keeps running hears signals as words, and waits for whatever comes first."""

from __future__ import annotations

import os
import signal
import time

from nkform.kernel.service import Signals, Waiting


def test_signals_are_heard_as_what_they_ask() -> None:
    with Signals() as signals:
        waiting = Waiting(signals)
        assert waiting.wait(0) == set()
        assert signals.caught() == set()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        assert waiting.wait(5) == {signals.fileno()}
        assert signals.caught() == {"reread", "stop"}
        assert waiting.wait(-1) == set()


def test_waiting_takes_no_longer_than_it_may() -> None:
    with Signals() as signals:
        start = time.monotonic()
        assert Waiting(signals).wait(0.05) == set()
        assert time.monotonic() - start >= 0.05
