"""A process beside a run that must be confirmed: it goes back if nobody does, whatever becomes of the run itself.

It belongs to no terminal, no process group and no control group of the caller, so that it outlives them.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import syslog
import time
from collections.abc import Callable
from pathlib import Path

from nkform.apply.interrupt import Interrupts
from nkform.apply.journal import JOURNAL, OUTCOME, UNCONFIRMED, Found, State, find
from nkform.apply.lock import take
from nkform.apply.recovery import revert
from nkform.dataclass import dataclass
from nkform.kernel import rundir
from nkform.problem import NkformError, Problem

PAUSE = 0.2
"""Seconds between two looks."""

STALLED = 30.0
"""Seconds without progress after which a run counts as stuck, if it has to be confirmed within fewer."""

TRIES = 5
FOREVER = 1e9

NAME = b"nkform-guardian"
PR_SET_NAME = 15
"""include/uapi/linux/prctl.h; at most 15 bytes, which `ps` shows."""

APPLIED, DISMISSED, REVERT = b"a", b"d", b"r"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run that was not confirmed; `problems`: why it could not be taken back, if it could not."""

    token: str
    problems: tuple[str, ...]


class Guardian:
    """The run's end of the line to its guardian."""

    def __init__(self, token: str, line: int) -> None:
        self.token = token
        self._line = line

    def applied(self) -> None:
        """The run is done; the time to confirm begins."""
        self._say(APPLIED)

    def dismiss(self) -> None:
        """The run has undone itself: there is nothing to guard."""
        self._say(DISMISSED)

    def revert(self) -> None:
        """Nobody will confirm."""
        self._say(REVERT)

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            os.write(self._line, word)


def start(node: str, token: str, seconds: float, leave: Callable[[], None]) -> Guardian:
    """Starts a guardian for the run with that token. `leave` closes what the guardian must not keep. Raises OSError."""
    ours, its = os.pipe2(os.O_CLOEXEC)
    run = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        os.close(ours)
        os.waitpid(child, 0)
        return Guardian(token, its)
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(its)
        leave()
        _detach()
        _guard(node, token, seconds, ours, run)
    except BaseException as error:
        syslog.syslog(syslog.LOG_ERR, f"nkform: the guardian of {node} failed: {error!r}")
    finally:
        os._exit(0)


def outcome(node: str, token: str) -> Outcome | None:
    """What the guardian of a run came to, once it has. Raises KernelError."""
    text = rundir.read(node, OUTCOME)
    found = json.loads(text) if text else {}
    return Outcome(token, tuple(found["problems"])) if found.get("token") == token else None


def _detach() -> None:
    """Leaves the caller's terminal and control group, and heeds no signals that are meant for it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_NAME, NAME, 0, 0, 0)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.chdir("/")
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
        # At the end of a session, logind may kill all of its control group (KillUserProcesses in logind.conf(5)).
        with contextlib.suppress(OSError):
            Path(root, "cgroup.procs").write_text(str(os.getpid()))


def _guard(node: str, token: str, seconds: float, line: int, run: int) -> None:
    """Waits for what the run says, and for what becomes of its record."""
    deadline: float | None = None
    record: tuple[int, int] | None = None
    moved = time.monotonic()
    listening = [line]
    while True:
        ready, _, _ = select.select(listening, [], [], PAUSE)
        word = os.read(line, 1) if ready else None
        now = time.monotonic()
        if word == DISMISSED:
            return
        if word == APPLIED:
            deadline, record = now + seconds, rundir.stamp(node, UNCONFIRMED)
            if record is None:
                return  # somebody was faster, and has confirmed it or taken it back
        elif word == REVERT or (word == b"" and deadline is None):
            break  # the run was killed before it was done
        elif word == b"":
            listening = []  # whoever ran it is gone; somebody may still confirm
        if deadline is not None:
            if rundir.stamp(node, UNCONFIRMED) != record:
                return  # confirmed, or taken back
            if now >= deadline:
                break
            continue
        progress = rundir.stamp(node, JOURNAL)
        if progress != record:
            moved, record = now, progress
        if now - moved > max(seconds, STALLED):
            os.kill(run, signal.SIGKILL)  # it holds the lock, and may wait for a terminal that is gone
            break
    _go_back(node, token)


def _state(node: str, token: str) -> tuple[State, Found] | None:
    """The record of the run, if it is still the one that is guarded."""
    for state in (JOURNAL, UNCONFIRMED):
        found = find(node, state)
        if found and found.entry.token == token:
            return state, found
    return None


def _go_back(node: str, token: str) -> None:
    problems: tuple[Problem, ...] = ()
    for turn in range(TRIES):
        time.sleep(turn)
        problems = ()
        try:
            with take("confirm", FOREVER, lambda _: None) as lock:
                current = _state(node, token)
                if current is None:
                    return
                revert(node, *current, lock, Interrupts(lambda _: None))
        except NkformError as error:
            problems = error.problems
        except OSError as error:
            problems = (Problem("NK0503", f"could not {error}"),)
        if not problems:
            break
    said = "nobody confirmed: the node is as before" if not problems else "nobody confirmed, and it cannot go back"
    syslog.syslog(syslog.LOG_WARNING, f"nkform: {node}: {said} {'; '.join(p.message for p in problems)}")
    rundir.write(node, OUTCOME, json.dumps({"token": token, "problems": [p.message for p in problems]}))
