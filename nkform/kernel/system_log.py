"""The system's log (syslog(3)), for whoever has nobody else to tell. Writes to its socket, and waits for nothing.

The C library's function waits for as long as nobody reads what was sent before: a log that is stuck would keep a
guardian from going back, and whatever command takes its place.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import suppress

SOCKET = "/dev/log"
USER = 1 << 3
"""The facility of whoever has none of its own; this and those below: sys/syslog.h."""
ERROR = 3
WARNING = 4
LONGEST = 8000
"""Bytes of a message that all logs take, and a socket has room for."""


def error(text: str) -> None:
    """Something went wrong that was not to be expected. What cannot be told is lost."""
    _send(ERROR, text)


def warning(text: str) -> None:
    """As `error`, of what was to be expected."""
    _send(WARNING, text)


def _send(severity: int, text: str) -> None:
    when = time.strftime("%b %e %H:%M:%S")
    said = f"<{USER | severity}>{when} nkform[{os.getpid()}]: {' '.join(text.split())}"
    message = said.encode(errors="backslashreplace")[:LONGEST]
    with suppress(OSError):
        try:
            _to(socket.SOCK_DGRAM, message)
        except OSError as refused:
            if refused.errno == errno.EPROTOTYPE:  # a log that hears a stream, where each message ends with a zero
                _to(socket.SOCK_STREAM, message + b"\0")


def _to(kind: int, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as log:
        log.connect(SOCKET)
        log.sendall(message)
