"""What time it is, by three clocks (clock_gettime(2)), and waiting. All times are in seconds."""

from __future__ import annotations

import time


def now() -> float:
    """Since 1970: for people, and for records. It may be set."""
    return time.time()


def monotonic() -> float:
    """Since some moment, for measuring; it is never set, and stands still while the machine sleeps."""
    return time.monotonic()


def since_boot() -> float:
    """Since boot, the machine's sleep among it: the same for all processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def pause(seconds: float) -> None:
    """Lets so much time pass."""
    time.sleep(seconds)


def local(seconds: float) -> str:
    """A time since 1970 as the clocks on the wall here show it."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
