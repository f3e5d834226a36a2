"""Numbers that nobody else comes upon, out of the kernel's random ones (getrandom(2))."""

from __future__ import annotations

import os


def number(first: int, end: int) -> int:
    """One from `first` on and below `end`."""
    return first + int.from_bytes(os.urandom(8), "little") % (end - first)


def token() -> str:
    """A text that tells whatever this process begins from all else: it has the number of the process, and another."""
    return f"{os.getpid()}-{number(0, 1 << 48):x}"
