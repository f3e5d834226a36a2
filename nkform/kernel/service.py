"""What a service manager and a process that keeps running say to one another: signals, and sd_notify(3)."""

from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Mapping
from types import FrameType
from typing import Literal, Protocol

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


Asked = Literal["stop", "reread"]
"""What signals ask of a process that keeps running, as systemd.service(5) has it."""


class HasDescriptor(Protocol):
    """Something to be read."""

    def fileno(self) -> int: ...


class Waiting:
    """Waits for what is first of several things to have something to be read."""

    def __init__(self, *things: HasDescriptor) -> None:
        self._poll = select.poll()
        for thing in things:
            self._poll.register(thing, select.POLLIN)

    def wait(self, seconds: float) -> set[int]:
        """The file descriptors of those that have, as soon as any has; none if the time was up before."""
        return {fd for fd, _ in self._poll.poll(max(0.0, seconds) * 1000)}


class Signals:
    """Signals as bytes to be read from a file descriptor, in place of interruptions.

    They are heard even while somebody else's handlers are installed for a time: the wake-up descriptor is the
    interpreter's own business (signal.set_wakeup_fd). Only the main thread can make one.
    """

    HEARD: Mapping[int, Asked] = {signal.SIGTERM: "stop", signal.SIGINT: "stop", signal.SIGHUP: "reread"}

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

    def caught(self) -> set[Asked]:
        """What the signals ask that came since the last call; never waits."""
        try:
            return {self.HEARD[number] for number in os.read(self._read, 4096) if number in self.HEARD}
        except BlockingIOError:
            return set()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """A handler must be there for the wake-up to be written."""
