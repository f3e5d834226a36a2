"""What a session tells while it works; whoever opens one decides what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from nkform.kernel import clock
from nkform.problem import Problem


class Listener(Protocol):
    """Gets what a session tells. It is called in the session's own thread, and should return soon."""

    def warn(self, problems: Sequence[Problem]) -> None:
        """Warnings and notes: nothing of it keeps the session from going on."""

    def say(self, text: str) -> None:
        """What the session waits for or does now, as one sentence."""

    def progress(self, done: int, total: int) -> None:
        """So many actions of a run are done."""

    def phase(self, name: str, seconds: float) -> None:
        """A phase (load, probe, observe, plan, apply, record) took so long."""


class Quiet:
    """Keeps warnings, and lets all else go by."""

    def __init__(self) -> None:
        self.warnings: list[Problem] = []

    def warn(self, problems: Sequence[Problem]) -> None:
        self.warnings += problems

    def say(self, text: str) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass

    def phase(self, name: str, seconds: float) -> None:
        pass


class Once:
    """Passes on all that it is told to another listener, but each warning once: several steps find the same."""

    def __init__(self, listener: Listener) -> None:
        self._warned: set[Problem] = set()
        self._listener = listener
        self.say, self.progress, self.phase = listener.say, listener.progress, listener.phase

    def warn(self, problems: Sequence[Problem]) -> None:
        fresh = [problem for problem in dict.fromkeys(problems) if problem not in self._warned]
        self._warned.update(fresh)
        self._listener.warn(fresh)


@contextmanager
def timed(listener: Listener, phase: str) -> Iterator[None]:
    """Tells how long the block took."""
    start = clock.monotonic()
    try:
        yield
    finally:
        listener.phase(phase, clock.monotonic() - start)


@contextmanager
def afterwards(listener: Listener) -> Iterator[None]:
    """What follows a run that is done: it stays done if this fails, which is told."""
    from nkform.kernel.error import KernelError

    try:
        yield
    except KernelError as error:
        text = f"the node is as it shall be, but nkform could not {error}"
        hint = "mend the cause; the next apply clears it up"
        listener.warn([Problem("NK0516", text, hint=hint, severity="warning")])
