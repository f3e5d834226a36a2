"""nkform in processes of their own, forked from the test's: to start Python anew takes seconds in the lab."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NoReturn

from nkform.cli import streams
from nkform.cli.main import main
from nkform.kernel.interrupt import SIGNALS
from tests.sizes import EMULATED

PATIENCE = 120.0 if EMULATED else 30.0
"""Seconds that a thing may take that must happen; emulated kernels are slow."""


RUNNING: set[int] = set()
"""Processes that no test has seen the end of."""


def end_all() -> None:
    """Kills what a test that failed has left running: it may hold the lock."""
    for pid in list(RUNNING):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        RUNNING.discard(pid)


def until(holds: Callable[[], Any]) -> Any:
    """Waits for something that must come to be."""
    end = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < end, "it never came to be"
        time.sleep(0.05)
    return found


def alone(*words: str) -> NoReturn:
    """Runs nkform in a process that was forked for it, with its own standard files rather than the test's."""
    code = 99
    with contextlib.suppress(BaseException):
        for number in SIGNALS:  # whoever runs the tests in the background may have had them ignored
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # as Python begins
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
        streams.install()
        code = main(list(words))
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


class Process:
    """nkform in the background; `prepare` is called in its process before it begins."""

    def __init__(self, *words: str, prepare: Callable[[], object] = lambda: None) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115
        self.pid = os.fork()
        RUNNING.add(self.pid)
        if not self.pid:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(self._file.fileno(), 1)
            os.dup2(self._file.fileno(), 2)
            prepare()
            alone(*words)

    @property
    def said(self) -> str:
        size = os.fstat(self._file.fileno()).st_size
        return os.pread(self._file.fileno(), size, 0).decode()

    def hears(self, word: str) -> None:
        until(lambda: word in self.said)

    def ended(self) -> int:
        """Its exit code, negative for a signal."""
        status = os.waitpid(self.pid, 0)[1]
        RUNNING.discard(self.pid)
        return os.waitstatus_to_exitcode(status)


class Asked:
    """nkform at a terminal of its own, where it asks a question."""

    def __init__(self, *words: str) -> None:
        self.said = ""
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            alone(*words)
        end = time.monotonic() + PATIENCE
        while "Only 'yes'" not in self.said:
            assert time.monotonic() < end, self.said
            self._hear()

    def _hear(self) -> None:
        if select.select([self.terminal], [], [], 0.1)[0]:
            try:
                self.said += os.read(self.terminal, 4096).decode()
            except OSError:
                time.sleep(0.05)

    def answer(self, text: str) -> int:
        """Its exit code. A signal that comes right before it waits for input is heard with the next one only."""
        end = time.monotonic() + PATIENCE
        again = 0.0
        while True:
            if time.monotonic() >= again:
                again = time.monotonic() + 2
                os.write(self.terminal, text.encode())
            self._hear()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._hear()
                os.close(self.terminal)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                os.kill(self.pid, signal.SIGKILL)
