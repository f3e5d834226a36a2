"""Namespaces of one's own: every cycle runs in a network, mount and process namespace that ends with it.

/run is a fresh tmpfs there, so that named network namespaces, locks and journals are private too. The
machine's own network namespace is never touched: `enter` refuses to go on in it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import BenchError, call

UNSHARE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
WORK = Path("/run/nkform-bench")
HIGHEST = -20
"""The highest of the priorities that setpriority(2) knows."""
AUTOGROUP = Path("/proc/self/autogroup")
NETWORK = Path("/proc/self/ns/net")


def outside() -> str:
    """What tells the network namespace outside from the one inside; goes to `enter`."""
    return str(NETWORK.readlink())


def command(inner: Sequence[str]) -> list[str]:
    """The command line that runs `inner` in namespaces of its own."""
    return [*UNSHARE, *inner]


def enter(outer: str) -> None:
    """Called by the first process inside: makes /run and /sys private, raises `lo`, and takes the highest priority.

    With that, other work on the machine hardly disturbs: it gets what the benchmark leaves.
    """
    if str(NETWORK.readlink()) == outer:
        raise BenchError("this is the network namespace of the machine itself")
    call("mount", "-t", "tmpfs", "tmpfs", "/run")
    call("mount", "-t", "sysfs", "sysfs", "/sys")
    call("ip", "link", "set", "lo", "up")
    WORK.mkdir()
    _take_priority()


def _take_priority() -> None:
    """The kernel may share its time out among autogroups first, then among their processes: it is told both."""
    os.setpriority(os.PRIO_PROCESS, 0, HIGHEST)
    os.setsid()
    with contextlib.suppress(OSError):  # a kernel without autogroups: sched(7)
        AUTOGROUP.write_text(str(HIGHEST))


def settle(limit: float = 120) -> float:
    """Waits until the kernel has taken down the network namespaces that nobody uses any more.

    It does that in the background, in a kernel thread that shows `+netns` in its name while it is at it. Returns the
    share of the processor time that was in use when that was done: other work.
    """
    deadline = time.monotonic() + limit
    quiet = 0
    while quiet < 4 and time.monotonic() < deadline:
        quiet = 0 if _taking_down() else quiet + 1
        time.sleep(0.05)
    return _busy(0.5)


def _busy(seconds: float) -> float:
    """The share of the processor time that is in use over a moment in which this program does nothing: proc(5)."""

    def read() -> tuple[int, int]:
        with Path("/proc/stat").open() as file:
            values = [int(word) for word in file.readline().split()[1:9]]
        return sum(values), values[3] + values[4]

    total, idle = read()
    time.sleep(seconds)
    total_then, idle_then = read()
    return 1 - (idle_then - idle) / max(1, total_then - total)


def _taking_down() -> bool:
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if "+netns" in comm.read_text():
                return True
        except OSError:
            continue
    return False
