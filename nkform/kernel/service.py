"""What a service manager and a process that keeps running say to one another: signals, and sd_notify(3)."""

from __future__ import annotations

import os
import signal
import socket
from types import FrameType

NOTIFY_SOCKET = "NOTIFY_SOCKET"


def notify(state: str) -> None:
    """Tells the service manager, such as `READY=1`, if there is one that wants to know.

    Raises OSError where its socket cannot be reached.
    """
    path = os.environ.get(NOTIFY_SOCKET, "")
    if not path.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaker:
        speaker.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)


class Signals:
    """Signals as bytes to be read from a file descriptor, in place of interruptions.

    They are heard even while somebody else's handlers are installed for a time: the wake-up descriptor is the
    interpreter's own business (signal.set_wakeup_fd). Only the main thread can make one.
    """

    HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before = {number: signal.signal(number, _ignore) for number in self.HEARD}
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)

    def close(self) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def __enter__(self) -> Signals:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._read

    def caught(self) -> set[int]:
        """The numbers of the signals that came since the last call; never waits."""
        try:
            return set(os.read(self._read, 4096))
        except BlockingIOError:
            return set()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler must be there for the wake-up to be written."""
