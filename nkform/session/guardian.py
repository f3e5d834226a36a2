"""A process beside a run that must be confirmed: it goes back if nobody does, whatever becomes of the run itself.

It belongs to no terminal, no process group and no control group of the caller, so that it outlives them. For as long as
it lives it has the lock of a file that says which run it guards and until when: where the file is there and the lock is
free, the guardian was killed, and whoever finds that takes its place (`look_after`).
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
from typing import Literal

from nkform.apply.interrupt import Interrupts
from nkform.apply.journal import (
    JOURNAL,
    SPARE,
    UNCONFIRMED,
    Found,
    State,
    find,
    is_elsewhere,
    look,
    note_outcome,
    read_outcome,
)
from nkform.apply.lock import process, take
from nkform.dataclass import dataclass
from nkform.kernel import rundir
from nkform.kernel.rundir import GUARDIAN, Lock
from nkform.problem import NkformError, Problem, fail, unexpected
from nkform.session import preload
from nkform.session.recovery import revert
from nkform.session.stuck import KEPT, PAUSE, STALLED, Stuck

MANY_FILES = 4096
"""Open files that going back has room for."""

LONGEST_PAUSE = 60.0
"""Seconds between two tries to go back, at most; the first pause is one second, and each is twice the one before."""
FOREVER = 1e9

OVERDUE = 5.0
"""Seconds after the time to confirm, by which a guardian has begun to go back, unless it is stopped (SIGSTOP)."""

PENDING = "`nkform confirm` keeps it, `nkform rollback` takes it back"
IN_THE_WAY = "`nkform recover` tells what is in the way, `nkform apply` takes its place"
ELSEWHERE = "another network namespace waits to be confirmed, and its guardian does nothing"
ELSEWHERE_HINT = "run any command of nkform in that namespace"
NAME = b"nkform-guardian"
PR_SET_NAME = 15
"""include/uapi/linux/prctl.h; at most 15 bytes, which `ps` shows."""

APPLIED, DISMISSED, REVERT = b"a", b"d", b"r"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run that was not confirmed; `problems`: why it could not be taken back, if it could not."""

    token: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Guarded:
    """The run of that token, until a time of CLOCK_BOOTTIME; None: the run is not done."""

    token: str
    until: float | None


class Guardian:
    """The run's end of the line to its guardian."""

    def __init__(self, node: str, token: str, seconds: float, line: int) -> None:
        self.token = token
        self._node = node
        self._seconds = seconds
        self._line = line

    def applied(self) -> None:
        """The run is done; the time to confirm begins."""
        with contextlib.suppress(OSError):  # somebody has confirmed it already, or the guardian counts for itself
            rundir.rewrite(self._node, GUARDIAN, _written(Guarded(self.token, now() + self._seconds)))
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


class Run:
    """The process that is guarded; its number may be another's when it has ended."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        try:
            self._fd = os.pidfd_open(pid)
        except OSError:  # it has been killed
            self._fd = -1

    def has_lock(self) -> bool:
        """Whether it has the machine's lock. Raises KernelError."""
        return self._fd >= 0 and rundir.is_locked() and (rundir.lock_holder() or "").endswith(process(self._pid))

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)


class Record:
    """The record of a run that waits to be confirmed. `held`: the guardian's own file, which goes with it."""

    def __init__(self, node: str, token: str, held: Lock) -> None:
        self.token = token
        self._node = node
        self._held = held
        self._stamp: tuple[int, int] | None = None

    def state(self) -> Literal["waits", "settled", "hidden"]:
        """Whether it still waits, was confirmed or taken back; or cannot be seen, since something is mounted there.

        That somebody has touched it, or that it cannot be read, confirms nothing. Raises KernelError.
        """
        stamp = rundir.stamp(self._node, UNCONFIRMED)
        if stamp is None:
            hidden = rundir.stamp(self._node, GUARDIAN) is None and not self._held.is_removed()
            return "hidden" if hidden else "settled"
        if stamp != self._stamp:
            found = look(self._node, UNCONFIRMED)
            if found is None or (isinstance(found, Found) and found.entry.token != self.token):
                return "settled"
            self._stamp = stamp
        return "waits"


def now() -> float:
    """Seconds since boot, those asleep among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def is_alive(node: str) -> bool:
    """Whether a guardian watches over a run of the node. Raises KernelError."""
    return rundir.is_held(node, GUARDIAN)


def has_tried(node: str) -> bool:
    """Whether what nobody confirmed has gone back as far as it could, which was not all. Raises KernelError."""
    found, guarded = look(node, UNCONFIRMED), guarded_by_last(node)
    token = found.entry.token if isinstance(found, Found) else guarded.token if guarded else ""
    done = outcome(node, token)
    return done is not None and bool(done.problems)


def is_overdue(node: str, token: str, until: float) -> bool:
    """Whether a guardian that lives should have begun to go back, and has not: it is stopped. Raises KernelError."""
    return (
        now() >= until + OVERDUE
        and outcome(node, token) is None
        and not rundir.is_held(rundir.MACHINE, rundir.GOING_BACK)
        and not rundir.is_locked()
    )


def start(node: str, token: str, seconds: float, leave: Callable[[], None], until: float | None = None) -> Guardian:
    """Starts a guardian for the run with that token. `leave` closes what the guardian must not keep.

    `until`: the run is done, and is to be confirmed until then. Raises OSError, KernelError.
    """
    preload.load()  # before the run changes anything, which may be what the code is reached by
    held = rundir.hold(node, GUARDIAN, _written(Guarded(token, until)))
    if not isinstance(held, Lock):
        raise fail("NK0611", f"an apply of {node} is guarded already, and may be going back", hint=PENDING)
    ours, its = os.pipe2(os.O_CLOEXEC)
    run = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        child = os.fork()
    except OSError:
        held.release()
        os.close(ours)
        os.close(its)
        raise
    if child:
        os.close(ours)
        held.leave()
        os.waitpid(child, 0)
        return Guardian(node, token, seconds, its)
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.close(its)
        leave()
        _detach()
        _guard(node, Record(node, token, held), seconds, ours, Run(run), until)
    except BaseException as error:
        _log(syslog.LOG_ERR, f"the guardian of {node} failed: {error!r}")
    finally:
        os._exit(0)


def outcome(node: str, token: str) -> Outcome | None:
    """What the guardian of a run came to, once it has. Raises KernelError."""
    noted = read_outcome(node)
    return Outcome(token, tuple(map(str, noted["problems"]))) if noted.get("token") == token else None


def guarded_by_last(node: str) -> Guarded | None:
    """What the last guardian of a node guards or guarded; None where there was none. Raises KernelError."""
    text = rundir.read(node, GUARDIAN)
    try:
        said = json.loads(text) if text else None
        return Guarded(str(said["token"]), said["until"]) if said else None
    except (ValueError, LookupError, TypeError):
        return Guarded("", None)


def _written(guarded: Guarded) -> str:
    return json.dumps({"token": guarded.token, "until": guarded.until})


def _log(priority: int, text: str) -> None:
    with contextlib.suppress(Exception):
        syslog.syslog(priority, f"nkform: {text}")


def _detach() -> None:
    """Leaves the caller's terminal and control group, and heeds no signals that are meant for it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_NAME, NAME, 0, 0, 0)
    _lift_limits()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.chdir("/")
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"):
        # At the end of a session, logind may kill all of its control group (KillUserProcesses in logind.conf(5)).
        with contextlib.suppress(OSError):
            Path(root, "cgroup.procs").write_text(str(os.getpid()))


def _lift_limits() -> None:
    """Limits that the run was given (ulimit, prlimit(1)) are not to keep it from going back."""
    import resource

    endless = resource.RLIM_INFINITY
    needed = {
        resource.RLIMIT_NOFILE: MANY_FILES,
        resource.RLIMIT_CPU: endless,
        resource.RLIMIT_FSIZE: endless,
        resource.RLIMIT_AS: endless,
    }
    for limit, enough in needed.items():
        hard = resource.getrlimit(limit)[1]
        with contextlib.suppress(OSError):
            resource.setrlimit(limit, (hard, hard))
        if hard != endless and (enough == endless or hard < enough):
            with contextlib.suppress(OSError, ValueError):  # who lacks CAP_SYS_RESOURCE
                resource.setrlimit(limit, (enough, enough))


def _guard(node: str, record: Record, seconds: float, line: int, run: Run, until: float | None) -> None:
    """Goes back if the run is not confirmed in time, also where waiting for that fails in a way nobody thought of."""
    try:
        is_over = _wait(node, record, seconds, line, run, until)
    except Exception as error:
        _log(syslog.LOG_ERR, f"the guardian of {node} goes back early: {error!r}")
        is_over = True
    if is_over:
        _end(run)
        _go_back_at_last(node, record.token)


def _end(run: Run) -> None:
    """Kills the guarded run if it keeps the lock: it was stopped (SIGSTOP, a frozen control group), or is stuck."""
    with contextlib.suppress(OSError):
        end = time.monotonic() + KEPT
        while run.has_lock():
            if time.monotonic() >= end:
                run.kill()
                return
            time.sleep(PAUSE)


def _wait(node: str, record: Record, seconds: float, line: int, run: Run, until: float | None) -> bool:
    """Waits for what the run says, and for what becomes of its record; whether it is to be taken back."""
    moved, seen = time.monotonic(), rundir.stamp(node, JOURNAL)
    listening = [line]
    while True:
        ready, _, _ = select.select(listening, [], [], PAUSE)
        word = os.read(line, 1) if ready else None
        if word == DISMISSED:
            return False
        if word == APPLIED:
            guarded = guarded_by_last(node)
            until = (guarded and guarded.until) or now() + seconds
        elif word == REVERT or (word == b"" and until is None):
            return True  # the run was killed before it was done
        elif word == b"":
            listening = []  # whoever ran it is gone; somebody may still confirm
        if until is not None:
            state = record.state()
            if state == "settled":
                return False
            if now() >= until and state == "waits":
                return True
            continue
        progress = rundir.stamp(node, JOURNAL)
        if progress != seen:
            moved, seen = time.monotonic(), progress
        if time.monotonic() - moved > max(seconds, STALLED):
            run.kill()  # it holds the lock
            return True


def _state(node: str, token: str) -> tuple[State, Found] | None:
    """The record of the run, if it is still the one that is guarded."""
    for state in (JOURNAL, UNCONFIRMED):
        found = find(node, state)
        if found and found.entry.token == token:
            return state, found
    return None


def _go_back_at_last(node: str, token: str) -> None:
    """Goes back, and tries again until all of it is done, or the record is not ours any more."""
    pause = 0.0
    while go_back(node, token) not in (None, ()):
        pause = min(max(1.0, 2 * pause), LONGEST_PAUSE)
        time.sleep(pause)


def go_back(node: str, token: str) -> tuple[Problem, ...] | None:
    """Goes back to before the run of that token, as far as that can be, and puts on record what came of it.

    Returns why something could not; None where the run is on record no more. Raises nothing.
    """
    problems: tuple[Problem, ...] = ()
    spec = ""
    with contextlib.suppress(OSError):
        rundir.remove(node, SPARE)
    try:
        stuck = Stuck(lambda said: _log(syslog.LOG_WARNING, said))
        with take("confirm", FOREVER, lambda _: None, first=True, meanwhile=stuck.look) as lock:
            current = _state(node, token)
            if current is None:
                return None
            spec = current[1].entry.spec
            revert(node, *current, lock, Interrupts(lambda _: None))
            with contextlib.suppress(OSError):  # before a watch has its turn, which knows by it what not to heal to
                note_outcome(node, token, (), spec)
    except NkformError as error:
        problems = error.problems
    except OSError as error:
        problems = (Problem("NK0503", f"could not {error}"),)
    except Exception as error:
        problems = (unexpected(error),)
    said = "nobody confirmed: the node is as before" if not problems else "nobody confirmed, and not all goes back:"
    _log(syslog.LOG_WARNING, f"{node}: {said} {'; '.join(problem.message for problem in problems)}")
    if problems:
        with contextlib.suppress(OSError):
            note_outcome(node, token, problems, spec)
    return problems


def make_way(node: str, told: Callable[[str], None]) -> None:
    """Kills whoever is stopped and keeps from going back what nobody confirmed; for that it waits some seconds, in
    which it may go on. Raises KernelError."""
    guarded = guarded_by_last(node)
    if guarded is None or not (rundir.is_locked() or rundir.is_held(rundir.MACHINE, rundir.GOING_BACK)):
        return
    if guarded.until is not None and now() < guarded.until + OVERDUE:
        return
    stuck = Stuck(told, "" if guarded.until is not None else node)  # before the run is done, only who goes back already
    while stuck.look():
        time.sleep(PAUSE)


def look_after(node: str, told: Callable[[str], None]) -> tuple[Problem, ...]:
    """Takes the place of a guardian that was killed or stopped: starts another one while there is time, or goes back.

    Does nothing where one is at work, or where a run is; a record that nobody waits for is removed. Returns what could
    not go back, or that somebody else has to see to it. Raises KernelError, NkformError.
    """
    make_way(node, told)
    guarded = guarded_by_last(node)
    if guarded is None or rundir.is_locked():
        return ()
    lives = is_alive(node)
    if lives and (guarded.until is None or not is_overdue(node, guarded.token, guarded.until)):
        return ()
    current = _state(node, guarded.token)
    if current is None:
        if is_elsewhere(node, JOURNAL) or is_elsewhere(node, UNCONFIRMED):
            return (Problem("NK0511", f"what was done to {node} in {ELSEWHERE}", hint=ELSEWHERE_HINT),)
        rundir.remove(node, GUARDIAN)
        return ()
    state, found = current
    if state == UNCONFIRMED and guarded.until is not None and now() < guarded.until:
        start(node, guarded.token, found.entry.confirm, lambda: None, guarded.until)
        told(f"the guardian of {node} was killed: another one waits for `nkform confirm` now")
        return ()
    what = "does not answer" if lives else "was killed"
    told(f"nobody confirmed what was done to {node}, and its guardian {what}: going back")
    return go_back(node, guarded.token) or ()
