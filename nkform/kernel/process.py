"""This process and others: who they are, what tells them and their work from all else, and an end to them."""

from __future__ import annotations

import os
from contextlib import suppress


def own_id() -> int:
    """The number of this process."""
    return os.getpid()


def is_root() -> bool:
    """Whether this process acts for the superuser (of its user namespace)."""
    return os.geteuid() == 0


def chance(first: int, end: int) -> int:
    """A number from `first` on and below `end` that nobody else comes upon (getrandom(2))."""
    return first + int.from_bytes(os.urandom(8), "little") % (end - first)


def token() -> str:
    """A text that tells whatever this process begins from all else: it has the number of the process, and another."""
    return f"{os.getpid()}-{chance(0, 1 << 48):x}"


class Process:
    """A process, by a file descriptor of it (pidfd_open(2)): its number may be another's when it has ended."""

    def __init__(self, number: int) -> None:
        self.number = number
        try:
            self._fd = os.pidfd_open(number)
        except OSError:  # it has ended
            self._fd = -1

    @property
    def was_there(self) -> bool:
        """Whether it was there when this object was made."""
        return self._fd >= 0

    def kill(self) -> None:
        """Ends it at once, if it is there."""
        import signal

        with suppress(OSError):
            signal.pidfd_send_signal(self._fd, signal.SIGKILL)
