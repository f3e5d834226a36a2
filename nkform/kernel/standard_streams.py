"""The standard streams: opening and reading them, and writes that never wait while others wait for us.

Whoever reads what nkform prints may stop reading: a terminal that was told to (Ctrl-S), a pager, a connection that is
cut off. A run that waited for that would keep the machine's lock, and nobody could go back. So while it has the lock
what cannot be printed at once is kept, and printed when the lock is free.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
import sys
from collections.abc import Callable, Iterator
from typing import IO

MOST = 16 << 20
"""Bytes that are kept for a reader who does not read; what is more is left out."""
LEFT_OUT = b"\n[output left out: nobody read it]\n"
CHUNK = 1 << 16

Write = Callable[[bytes], int]

_asked: Callable[[], bool] = bool
_patient = 0


def never_wait_while(asked: Callable[[], bool]) -> None:
    """From now on nothing that is printed is waited for while `asked` says so."""
    global _asked  # noqa: PLW0603  # there is one terminal
    _asked = asked


@contextlib.contextmanager
def never_waiting() -> Iterator[None]:
    """Nothing that is printed within the block is waited for. What was kept is tried again by each flush."""
    global _patient  # noqa: PLW0603
    _patient += 1
    try:
        yield
    finally:
        _patient -= 1


class Output(io.RawIOBase):
    """What is below a standard stream, and takes all that is written to it. `stream`: the one that Python made."""

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream  # which closes the file when it goes
        self._fd = stream.fileno()
        self._kept = bytearray()
        self._draining = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Raises OSError, but for what is not waited for: that fails when it is flushed."""
        if len(self._kept) <= MOST:
            self._kept += data
            if len(self._kept) > MOST:
                self._kept[MOST:] = LEFT_OUT
        self.flush()
        return len(data)

    def flush(self) -> None:
        """Raises OSError."""
        if not (_patient or _asked()):
            self._drain(self._waiting)
        elif self._kept:
            with contextlib.suppress(OSError), self._without_waiting() as write:
                self._drain(write)

    def _drain(self, write: Write) -> None:
        if self._draining:  # the handler of a signal prints: what it adds is written by whom it interrupted
            return
        self._draining = True
        try:
            while self._kept:
                done = write(bytes(self._kept[:CHUNK]))
                del self._kept[:done]
        finally:
            self._draining = False

    def _waiting(self, data: bytes) -> int:
        return os.write(self._fd, data)

    @contextlib.contextmanager
    def _without_waiting(self) -> Iterator[Write]:
        """What writes as much as can be taken now, and raises BlockingIOError where nothing can.

        The flag for that belongs to the open file, which is the caller's too: so the file is opened once more. That is
        not kept: processes that are forked while it is open would keep a pipe's reader waiting for its end.
        """
        mode = os.fstat(self._fd).st_mode
        if stat.S_ISSOCK(mode):
            import socket

            with socket.socket(fileno=os.dup(self._fd)) as line:
                yield lambda data: line.send(data, socket.MSG_DONTWAIT)
        elif stat.S_ISFIFO(mode) or os.isatty(self._fd):
            again = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            try:
                yield lambda data: os.write(again, data)
            finally:
                os.close(again)
        else:
            yield self._waiting  # files and devices make nobody wait


def open_all() -> None:
    """Has all three standard streams open, as sys knows them; those that were closed lead nowhere.

    A closed one is opened first: else the next file that is opened took its number, and got what is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdin = sys.stdin or os.fdopen(0, encoding="utf-8")
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8")
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8")


def silence(fd: int) -> None:
    """What is still to be written to a file descriptor leads nowhere: whoever read it has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), fd)


def typed(seconds: float) -> bytes | None:
    """What comes from the standard input within so much time; nothing at all (b""): it has ended."""
    import select

    return os.read(sys.stdin.fileno(), 4096) if select.select([sys.stdin], [], [], seconds)[0] else None
