"""Which processes have the lock of a file, as the kernel says, and whether they get on. Reads /proc, kills processes.

A lock of ours belongs to an open file (rundir.py), so fcntl(2) and /proc/locks name no process. /proc/PID/fdinfo/FD
tells the locks of just the file that is open there (proc(5)); nobody but the kernel can write it. Processes of another
PID namespace that is not below this one are not seen.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from nkform.dataclass import dataclass

PROC = Path("/proc")
STOPPED = "Tt"
"""States of proc(5): by a signal, by a tracer."""

V2_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
V1_FREEZER = Path("/sys/fs/cgroup/freezer")


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a lock, or may have it; `born` (clock ticks since boot) tells it from another process of its number."""

    pid: int
    born: int


@dataclass(frozen=True, slots=True)
class Holders:
    """Those that have the lock of a file: one, and what it forked meanwhile.

    `halted`: it is stopped, traced or frozen at the moment. `steps` changes as long as one of them, or a process that
    one of them started, gets on.
    """

    processes: tuple[Holder, ...]
    halted: bool
    steps: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _State:
    process: Holder
    parent: int
    state: str
    ticks: int


def look(path: Path) -> Holders | None:
    """Who has the lock of a file, this process aside; None where nobody is seen to have it."""
    try:
        file = path.stat()
    except OSError:
        return None
    states = {state.process.pid: state for state in _states()}
    named = _named_in(path)
    likely = _family([named], states) if named in states and _has_lock(named, file) else states.keys()
    found = [pid for pid in likely if pid != os.getpid() and _has_lock(pid, file)]
    if not found:
        return None
    leaders = [pid for pid in found if states[pid].parent not in found]
    halted = all(states[pid].state in STOPPED or _is_frozen(pid) for pid in leaders)
    family = sorted(_family(found, states))
    steps = tuple((pid, states[pid].process.born, states[pid].ticks, _switches(pid)) for pid in family)
    return Holders(tuple(states[pid].process for pid in (*leaders, *(set(found) - {*leaders}))), halted, steps)


def kill(process: Holder, path: Path) -> bool:
    """Kills a process if it still has the lock of a file; whether it had."""
    try:
        fd = os.pidfd_open(process.pid)
    except OSError:  # it has ended
        return False
    try:
        # Looked at with the descriptor at hand: it stays that of the process that is seen now.
        state, file = _state(process.pid), path.stat()
        if state is None or state.process != process or not _has_lock(process.pid, file):
            return False
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def _has_lock(pid: int, file: os.stat_result) -> bool:
    """Whether the process has this file open, and through it its lock."""
    with suppress(OSError):  # it has ended
        for entry in os.scandir(PROC / str(pid) / "fd"):
            with suppress(OSError):  # it was closed
                state = entry.stat()
                if (state.st_dev, state.st_ino) == (file.st_dev, file.st_ino):
                    told = (PROC / str(pid) / "fdinfo" / entry.name).read_text(encoding="utf-8", errors="replace")
                    if any(line.startswith("lock:") and " WRITE " in line for line in told.splitlines()):
                        return True
    return False


def _named_in(path: Path) -> int:
    """The process that a lock's file names, at the end: it is the first one to be looked at, and may be any."""
    with suppress(OSError):
        digits = path.read_text(encoding="utf-8", errors="replace")[:500].strip().rpartition("(process ")[2].rstrip(")")
        return int(digits) if digits.isdecimal() else 0
    return 0


def _states() -> Iterator[_State]:
    for entry in os.scandir(PROC):
        if entry.name.isdigit() and (state := _state(int(entry.name))) is not None:
            yield state


def _state(pid: int) -> _State | None:
    """What /proc/PID/stat tells; None: there is no such process."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    words = text.rpartition(")")[2].split()  # those from the third on: the name before them may be anything
    return _State(Holder(pid, int(words[19])), int(words[1]), words[0], int(words[11]) + int(words[12]))


def _family(pids: Iterable[int], states: Mapping[int, _State]) -> set[int]:
    """The processes, and all that they started, as far as those are theirs still."""
    found = set(pids)
    while more := {pid for pid, state in states.items() if state.parent in found} - found:
        found |= more
    return found


def _switches(pid: int) -> int:
    """How often the threads of a process were put to sleep, or off a processor."""
    count = 0
    with suppress(OSError):
        for task in os.scandir(PROC / str(pid) / "task"):
            with suppress(OSError):
                text = (PROC / str(pid) / "task" / task.name / "status").read_text(encoding="utf-8", errors="replace")
                count += sum(int(line.split()[1]) for line in text.splitlines() if "_ctxt_switches:" in line)
    return count


def _is_frozen(pid: int) -> bool:
    """Whether its control group is frozen (cgroups(7))."""
    try:
        lines = (PROC / str(pid) / "cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    for line in lines:
        number, controllers, path = line.split(":", 2)
        place = path.lstrip("/")
        with suppress(OSError):
            if "freezer" in controllers and "FROZEN" in (V1_FREEZER / place / "freezer.state").read_text():
                return True
        for root in V2_ROOTS if number == "0" else ():
            with suppress(OSError):
                if "frozen 1" in (root / place / "cgroup.events").read_text():
                    return True
    return False
