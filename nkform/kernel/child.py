"""Work in a child process: within limits of time, memory and output, and never longer than its parent lives.

For what a stranger's text makes a compiler, a template language or a library do. A child keeps none of its parent's
file descriptors (the machine's lock, say) but those that it is given.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Literal

from nkform.dataclass import dataclass

PR_SET_PDEATHSIG = 1
"""include/uapi/linux/prctl.h. The signal comes when the thread ends that forked, not only when the process does."""

_HEADER = struct.Struct("=BQ")
_FDS = 4
_CHUNK = 1 << 16
_LINE = 3
"""The file descriptor of a worker's end of the line."""

_MOST_FDS = 1 << 20
"""NR_OPEN, the most that a process can have (include/uapi/linux/fs.h: INR_OPEN_MAX is less)."""

_libc = ctypes.CDLL(None, use_errno=True)

PROGRAMS = os.defpath
"""Where programs are looked for, as PATH has it, unless somebody says so."""

Reason = Literal["time", "memory", "output", "died", "failed"]
Answer = tuple[bytes, Sequence[int]]
"""What a worker answers, and file descriptors that go with it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take: `seconds` by the clock, `cpu` seconds of a processor, `memory` bytes of address space (a
    worker: beside what its parent has), `output` bytes that it may say or write."""

    seconds: float
    cpu: int
    memory: int
    output: int


class ChildError(Exception):
    """A child did not do its work: it took too long, or too much, or died. The text completes "it …"."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class OutOfTimeError(BaseException):
    """Raised in a worker, wherever it is, when its processor time is used up: no error that anybody may pass over."""


def find(name: str) -> str | None:
    """The path of a program, from the top: one on PATH, or the one at that path; None if there is none."""
    import shutil

    path = shutil.which(name)
    return path and str(Path(path).absolute())


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended; a negative code is the signal that ended it."""

    code: int
    out: bytes
    err: bytes


def run(
    command: Sequence[str],
    limits: Limits,
    environment: Mapping[str, str],
    *,
    stdin: int | None,
    keep: Sequence[int] = (),
) -> Done:
    """Runs a program with what it needs on standard input (None: nothing), `keep` being further files for it.

    It has no terminal and no folder to write in. Raises ChildError, OSError (it cannot be started).
    """
    import subprocess

    parent = os.getpid()

    def bound() -> None:
        _bind(parent)
        _limit(limits, limits.memory)

    with subprocess.Popen(
        command, cwd="/", env=environment,
        stdin=subprocess.DEVNULL if stdin is None else stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        pass_fds=keep, start_new_session=True, preexec_fn=bound,  # noqa: PLW1509  # system calls and nothing else
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            deadline = time.monotonic() + limits.seconds
            out, err = _gathered((process.stdout, process.stderr), deadline, limits)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise _too_long(limits) from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if code == -signal.SIGXCPU:
        raise ChildError("time", f"took more than {limits.cpu} s of processor time")
    return Done(code, out, err)


def _gathered(streams: Sequence[IO[bytes]], deadline: float, limits: Limits) -> list[bytes]:
    """All that a program says, until it has no more to say."""
    import selectors

    said = {stream.fileno(): bytearray() for stream in streams}
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready and time.monotonic() >= deadline:
                raise _too_long(limits)
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                said[key.fd] += chunk
                if not chunk:
                    selector.unregister(key.fileobj)
            if sum(map(len, said.values())) > limits.output:
                raise ChildError("output", f"said more than {limits.output >> 10} KiB")
    return [bytes(some) for some in said.values()]


def _too_long(limits: Limits) -> ChildError:
    return ChildError("time", f"did not end within {limits.seconds:g} s")


def _bind(parent: int) -> None:
    """The caller, a child just forked, dies with its parent."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before this was asked for
        os._exit(1)


def _limit(limits: Limits, memory: int) -> None:
    for what, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, limits.cpu),
        (resource.RLIMIT_FSIZE, limits.output),
    ):
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)  # noqa: PLW2901
        resource.setrlimit(what, (most, hard))


# --- workers ----------------------------------------------------------------------------


class Worker:
    """A forked child that answers requests, one after the other, with what `serve` makes of them.

    It is forked when it is first asked, or told to start, and again after it was stopped for what it did. It inherits
    its parent's memory as it is then; it calls `prepare` before it answers. `serve` can return file descriptors.
    Close it.
    """

    def __init__(
        self, serve: Callable[[bytes], Answer], limits: Limits, prepare: Callable[[], object] = lambda: None
    ) -> None:
        self._serve = serve
        self._limits = limits
        self._prepare = prepare
        self._pid = 0
        self._line: socket.socket | None = None
        self._starter: threading.Thread | None = None
        self._owner = os.getpid()

    def __del__(self) -> None:
        if self._owner == os.getpid():  # not in a child that somebody else has forked
            self.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> int:
        """Ends the child if there is one; the status that waitpid(2) has for it."""
        if self._line is not None:
            self._line.close()
            self._line = None
        if not self._pid:
            return 0
        pid, self._pid = self._pid, 0
        os.kill(pid, signal.SIGKILL)
        return os.waitpid(pid, 0)[1]

    def ask(self, request: bytes) -> tuple[bytes, list[int]]:
        """The answer to a request; its file descriptors are the caller's. Raises ChildError, OSError."""
        # The child dies with the thread that forked it: one that may end before we are answered is of no use to us.
        if self._starter not in (threading.current_thread(), threading.main_thread()):
            self.close()
        line = self.start()
        deadline = time.monotonic() + self._limits.seconds
        try:
            line.settimeout(self._limits.seconds)
            line.sendall(_HEADER.pack(0, len(request)) + request)
            status, answer, fds = self._answer(line, deadline)
        except TimeoutError:
            self.close()
            raise _too_long(self._limits) from None
        except ConnectionError:
            raise _died(self.close()) from None
        except BaseException:
            self.close()
            raise
        if status == _OK:
            return answer, fds
        self.close()
        if status == _TIME:
            raise ChildError("time", f"took more than {self._limits.cpu} s of processor time")
        if status == _MEMORY:
            raise ChildError("memory", f"needed more than {self._limits.memory >> 20} MiB of memory")
        raise ChildError("failed", answer.decode(errors="replace"))

    def _answer(self, line: socket.socket, deadline: float) -> tuple[int, bytes, list[int]]:
        def wait() -> None:
            line.settimeout(max(0.001, deadline - time.monotonic()))

        head, fds, _, _ = socket.recv_fds(line, _HEADER.size, _FDS)
        while len(head) < _HEADER.size:
            head += _some(line, _HEADER.size - len(head))
        status, size = _HEADER.unpack(head)
        if size > self._limits.output:
            raise ChildError("output", f"made more than {self._limits.output >> 10} KiB")
        answer = bytearray()
        while len(answer) < size:
            wait()
            answer += _some(line, min(_CHUNK, size - len(answer)))
        return status, bytes(answer), fds

    def start(self) -> socket.socket:
        """Forks the child if there is none. Raises OSError."""
        if self._line is not None:
            return self._line
        ours, its = socket.socketpair()
        parent = os.getpid()
        with its:
            pid = os.fork()
            if pid == 0:
                try:
                    _confine(its.fileno(), self._limits, parent)
                    self._prepare()
                    _work(self._serve, self._limits)
                finally:
                    os._exit(1)
        self._pid, self._line, self._starter = pid, ours, threading.current_thread()
        return ours


_OK, _TIME, _MEMORY, _FAILED = range(4)


def _some(line: socket.socket, size: int) -> bytes:
    chunk = line.recv(size)
    if not chunk:
        raise ConnectionResetError
    return chunk


def _died(status: int) -> ChildError:
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    return ChildError("died", f"died of {signal.Signals(number).name}" if number else "ended without an answer")


def _confine(line: int, limits: Limits, parent: int) -> None:
    """The child hears no signals that are meant for its parent, and has nothing open but the line."""
    _bind(parent)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.dup2(line, _LINE)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(_LINE + 1, _MOST_FDS)
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    _limit(limits, pages * resource.getpagesize() + limits.memory)
    signal.signal(signal.SIGXCPU, _out_of_time)


def _work(serve: Callable[[bytes], Answer], limits: Limits) -> None:
    """The child's life."""
    with socket.socket(fileno=_LINE) as end:
        while (request := _request(end)) is not None:
            _allow(limits.cpu)
            status, answer, fds = _served(serve, request)
            socket.send_fds(end, [_HEADER.pack(status, len(answer))], fds)
            end.sendall(answer)
            for fd in fds:
                os.close(fd)
    os._exit(0)


def _served(serve: Callable[[bytes], Answer], request: bytes) -> tuple[int, bytes, Sequence[int]]:
    try:
        return _OK, *serve(request)
    except OutOfTimeError:
        return _TIME, b"", ()
    except MemoryError:
        return _MEMORY, b"", ()
    except BaseException as error:
        return _FAILED, f"{type(error).__name__}: {error}"[:2000].encode(errors="replace"), ()


def _request(line: socket.socket) -> bytes | None:
    """The next request; None once nobody is there any more to ask."""
    try:
        head = b""
        while len(head) < _HEADER.size:
            head += _some(line, _HEADER.size - len(head))
        request = bytearray()
        size = _HEADER.unpack(head)[1]
        while len(request) < size:
            request += _some(line, min(_CHUNK, size - len(request)))
    except ConnectionError:
        return None
    return bytes(request)


def _allow(seconds: int) -> None:
    """So much processor time more from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    until = math.ceil(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (until if hard == resource.RLIM_INFINITY else min(until, hard), hard))


def _out_of_time(_number: int, _frame: FrameType | None) -> None:
    raise OutOfTimeError
