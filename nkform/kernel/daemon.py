"""A process that outlives its maker: of no terminal, process group or control group of its, without its limits.

The maker has the end of a line to it, and so has whoever inherits that; what has none any more to say to it has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NoReturn

from nkform.kernel import control_groups

PR_SET_NAME = 15
"""include/uapi/linux/prctl.h; at most 15 bytes, which `ps` shows."""

MANY_FILES = 4096
"""Open files that it has room for."""

READY = b"ready"
"""What the process says when it is about to live."""

PATIENCE = 30.0
"""Seconds that it may take for that: it may share the machine with many."""


class Line:
    """The maker's end, which is closed with it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._owner = os.getpid()

    def __del__(self) -> None:
        if self._owner == os.getpid():  # in a process that was forked, the number may be another file's
            os.close(self._fd)

    def say(self, word: bytes) -> None:
        """One byte, if anybody is there to hear it."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._fd, word)


class Ear:
    """The process's own end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ended = False

    def hear(self, seconds: float) -> bytes | None:
        """A byte that was said, within so much time; once, that nobody is there any more to say one: none (b"")."""
        if self._ended:
            time.sleep(seconds)
            return None
        ready, _, _ = select.select([self._fd], [], [], seconds)
        word = os.read(self._fd, 1) if ready else None
        self._ended = word == b""
        return word


def start(name: bytes, life: Callable[[Ear], None], failed: Callable[[BaseException], None]) -> Line:
    """Starts a process of that name, which ends when `life` returns, or has `failed`.

    Returns once it is about to live: whatever kept it from that is an OSError here.
    """
    ours, its = os.pipe2(os.O_CLOEXEC)
    news, told = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()  # so that nothing is written twice
    sys.stderr.flush()
    try:
        child = os.fork()
    except OSError:
        for fd in (ours, its, news, told):
            os.close(fd)
        raise
    if not child:
        _begin(name, Ear(ours), (its, news), told, life, failed)
    os.close(ours)
    os.close(told)
    try:
        os.waitpid(child, 0)
        _hear_of_it(news)
    except BaseException:
        os.close(its)
        raise
    finally:
        os.close(news)
    return Line(its)


def _begin(
    name: bytes,
    ear: Ear,
    others: Iterable[int],
    told: int,
    life: Callable[[Ear], None],
    failed: Callable[[BaseException], None],
) -> NoReturn:
    """From the first child to the process itself, which has another parent. `others` are the maker's descriptors."""
    tell: Callable[[BaseException], None] = partial(_tell, told)
    try:
        os.setsid()
        control_groups.leave()  # first: they may have no room for the next process
        if os.fork():
            os._exit(0)
        for fd in others:
            os.close(fd)
        detach(name)
        os.write(told, READY)
        os.close(told)
        tell = failed
        life(ear)
    except BaseException as error:
        tell(error)
    finally:
        os._exit(0)


def _tell(told: int, error: BaseException) -> None:
    """Tells the maker why it is not about to live."""
    number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
    with contextlib.suppress(OSError):
        os.write(told, str(number).encode())


def _hear_of_it(news: int) -> None:
    """Waits until the process is about to live. Raises OSError."""
    if not select.select([news], [], [], PATIENCE)[0]:
        number = errno.ETIMEDOUT
    else:
        word = os.read(news, 20)
        if word == READY:
            return
        number = int(word or errno.ESRCH)  # it was killed before it could say anything
    raise OSError(number, os.strerror(number))


def detach(name: bytes) -> None:
    """Leaves the maker's terminal, and heeds no signals that are meant for it."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(PR_SET_NAME, name, 0, 0, 0)
    _lift_limits()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.chdir("/")


def _lift_limits() -> None:
    """Limits that the maker was given (ulimit, prlimit(1)) are not to keep it from its work."""
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
