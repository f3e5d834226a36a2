"""Nobody reads what nkform prints, or it is halted (Ctrl-Z): that keeps neither the lock nor a node from going back."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import socket
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nkform.kernel import rundir
from nkform.session import guardian, running
from tests.live.helpers.processes import RUNNING, alone, end_all, until
from tests.live.helpers.support import Node, link
from tests.live.test_confirm import changed, guardians
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")

TRIAL = 3


class Halted:
    """nkform in a job of its own, as a shell has jobs; `prepare` is called in its process before it begins."""

    def __init__(self, *words: str, prepare: Callable[[], object] = lambda: None) -> None:
        self.pid = os.fork()
        RUNNING.add(self.pid)
        if not self.pid:
            os.setpgid(0, 0)
            null = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(null, number)
            prepare()
            alone(*words)

    def halted(self) -> bool:
        """Waits until it is halted or has ended; whether it is halted."""
        return os.WIFSTOPPED(os.waitpid(self.pid, os.WUNTRACED)[1])

    def goes_on(self) -> int:
        """Its exit code."""
        os.kill(self.pid, signal.SIGCONT)
        RUNNING.discard(self.pid)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def with_signal(number: signal.Signals) -> None:
    """A run of this process gets a signal when it is done, and has the lock."""
    carry_out = running.carry_out

    def carried_out(*arguments: Any) -> Any:
        applied = carry_out(*arguments)
        os.kill(os.getpid(), number)
        return applied

    running.carry_out = carried_out
    guardian.KEPT = 0.5


class Unread:
    """nkform whose standard output and error are full from the beginning, until `reads`."""

    def __init__(self, kind: str, *words: str) -> None:
        self._end, its = {"pipe": os.pipe, "terminal": pty.openpty, "socket": _sockets}[kind]()
        os.set_blocking(its, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(its, b"." * 100)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(its, b".")
        os.set_blocking(its, True)
        self.pid = os.fork()
        RUNNING.add(self.pid)
        if not self.pid:
            os.setsid()
            os.close(self._end)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(its, 1)
            os.dup2(its, 2)
            os.close(its)
            alone(*words)
        os.close(its)

    def reads(self) -> str:
        """All that it printed; its reader waits for its end, as `cat` does."""
        said = b""
        with contextlib.suppress(OSError):  # EIO: the end of a terminal
            while more := os.read(self._end, 1 << 16):
                said += more
        os.close(self._end)
        return said.decode().lstrip(".").replace("\r", "")

    def ended(self) -> int:
        RUNNING.discard(self.pid)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _sockets() -> tuple[int, int]:
    ours, its = socket.socketpair()
    return ours.detach(), its.detach()


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    yield
    end_all()
    until(lambda: not guardians())


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_a_run_is_done_and_lets_go_of_the_lock(node: Node, kind: str) -> None:
    node.apply(veth())
    node.write(changed(mtu=1400))
    run = Unread(kind, "apply", "-y", str(node.path))
    until(lambda: link("to-a")["mtu"] == 1400 and not rundir.is_locked())
    node.apply(changed(mtu=1300))
    said = run.reads()
    assert run.ended() == 0
    assert said.count("mtu = 1500 -> 1400") == 1
    assert "1 changed, 0 destroyed.\n" in said  # on a busy machine, progress comes too


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
@pytest.mark.parametrize("detach", [False, True])
def test_what_nobody_confirms_goes_back(node: Node, kind: str, detach: bool) -> None:
    node.apply(veth())
    node.write(changed(mtu=1400))
    run = Unread(kind, "apply", "-y", "--confirm", f"{TRIAL}s", *(["--detach"] if detach else []), str(node.path))
    until(lambda: link("to-a")["mtu"] == 1400)
    until(lambda: link("to-a")["mtu"] == 1500)
    said = run.reads()
    assert run.ended() == (0 if detach else 1)
    assert said.count("To keep this") == 1
    assert ("nobody confirmed" in said) is not detach


def test_the_guardian_is_watched_although_nobody_reads(node: Node) -> None:
    node.apply(veth())
    node.write(changed(mtu=1400))
    run = Unread("pipe", "apply", "-y", "--confirm", "600s", str(node.path))
    until(lambda: link("to-a")["mtu"] == 1400)
    (first,) = until(guardians)
    os.kill(int(first), signal.SIGKILL)
    until(lambda: guardians() not in ([], [first]))
    assert node.run("confirm").code == 0
    assert "was killed: another one waits for the confirmation now" in run.reads()
    assert run.ended() == 0


def test_a_way_back_is_gone(node: Node) -> None:
    node.apply(veth())
    node.apply(changed(mtu=1400))
    run = Unread("pipe", "rollback", "-y")
    until(lambda: link("to-a")["mtu"] == 1500 and not rundir.is_locked())
    assert "as it was before" in run.reads()
    assert run.ended() == 0


@pytest.mark.parametrize("confirm", [False, True])
def test_ctrl_z_halts_a_run_when_it_is_done(node: Node, confirm: bool) -> None:
    node.apply(veth())
    node.write(changed(mtu=1400))
    trial = ["--confirm", f"{TRIAL}s"] if confirm else []
    run = Halted("apply", "-y", *trial, str(node.path), prepare=lambda: with_signal(signal.SIGTSTP))
    assert run.halted()
    assert link("to-a")["mtu"] == 1400
    assert not rundir.is_locked()
    if confirm:
        until(lambda: link("to-a")["mtu"] == 1500)
    assert run.goes_on() == int(confirm)


def test_ctrl_z_halts_a_run_that_waits_for_its_turn_at_once(node: Node) -> None:
    node.write(veth())
    lock = rundir.lock("somebody else")
    assert isinstance(lock, rundir.Lock)
    with lock:
        run = Halted("apply", "-y", str(node.path), prepare=lock.release)
        until(lambda: handles(run.pid, signal.SIGTSTP))
        os.kill(run.pid, signal.SIGTSTP)
        assert run.halted()
    time.sleep(0.2)
    assert not rundir.is_locked()
    assert run.goes_on() == 0


def handles(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal (SigCgt in proc_pid_status(5))."""
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)


def test_a_run_that_is_stopped_with_the_lock_is_not_waited_for(node: Node) -> None:
    node.apply(veth())
    node.write(changed(mtu=1400))
    run = Halted("apply", "-y", "--confirm", "2s", str(node.path), prepare=lambda: with_signal(signal.SIGSTOP))
    assert run.halted()
    assert rundir.is_locked()
    until(lambda: link("to-a")["mtu"] == 1500)
    assert run.goes_on() == -signal.SIGKILL


def test_a_job_in_the_background_may_write_to_its_terminal(node: Node) -> None:
    """Where the terminal halts such jobs (`stty tostop`), that is when the lock is free."""
    node.apply(veth())
    node.write(changed(mtu=1400))
    shell, terminal = pty.fork()
    if not shell:
        mode = termios.tcgetattr(0)
        mode[3] |= termios.TOSTOP
        termios.tcsetattr(0, termios.TCSANOW, mode)
        job = os.fork()
        if not job:
            os.setpgid(0, 0)
            alone("apply", "-y", str(node.path))
        os.waitpid(job, os.WUNTRACED)
        os._exit(int(rundir.is_locked() or link("to-a")["mtu"] != 1400))
    with contextlib.suppress(OSError):
        while os.read(terminal, 1 << 16):
            pass
    assert os.waitstatus_to_exitcode(os.waitpid(shell, 0)[1]) == 0
    os.close(terminal)


def test_a_reader_that_has_gone_undoes_nothing(node: Node) -> None:
    node.write(veth())
    run = Unread("pipe", "apply", "-y", str(node.path))
    os.close(run._end)
    assert run.ended() == 1
    assert node.changes() == []
