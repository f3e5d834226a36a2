"""Given work in a child, then it keeps within its limits, keeps nothing of its parent's, and dies with it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nkform.kernel.child import Answer, ChildError, Limits, Worker, run

LIMITS = Limits(seconds=5, cpu=1, memory=64 << 20, output=1 << 20)
ENVIRONMENT = {"PATH": os.defpath}


def answering(serve: Callable[[bytes], bytes]) -> Callable[[bytes], Answer]:
    return lambda request: (serve(request), ())


def test_a_worker_answers_one_request_after_the_other() -> None:
    with Worker(answering(lambda request: request + str(os.getpid()).encode()), LIMITS) as worker:
        answers = {worker.ask(b"x")[0] for _ in range(3)}
    assert len(answers) == 1
    assert answers != {b"x%d" % os.getpid()}


def test_a_worker_gives_file_descriptors() -> None:
    def serve(_: bytes) -> Answer:
        fd = os.memfd_create("of the child")
        os.write(fd, b"from the child")
        return b"", (fd,)

    with Worker(serve, LIMITS) as worker:
        _, (fd,) = worker.ask(b"")
    assert os.pread(fd, 100, 0) == b"from the child"
    os.close(fd)


def hang(_: bytes) -> bytes:
    while True:
        pass


def die(_: bytes) -> bytes:
    ctypes.string_at(0)
    return b""


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (hang, "time"),
        (lambda _: bytes(1 << 30), "memory"),
        (lambda _: bytes(2 << 20), "output"),
        (die, "died"),
        (lambda _: b"%d" % (1 // 0), "failed"),
        (lambda _: sys.exit(0), "failed"),
    ],
)
def test_what_takes_too_much_ends_and_the_next_request_is_answered(work: Callable[[bytes], bytes], reason: str) -> None:
    with Worker(answering(lambda request: work(request) if request else b"well"), LIMITS) as worker:
        for _ in range(2):
            with pytest.raises(ChildError) as caught:
                worker.ask(b"evil")
            assert caught.value.reason == reason
            assert worker.ask(b"")[0] == b"well"


def sleep(_: bytes) -> bytes:
    time.sleep(60)
    return b""


def test_a_system_call_that_never_returns_is_ended() -> None:
    few = Limits(seconds=0.5, cpu=60, memory=64 << 20, output=1 << 20)
    with Worker(answering(sleep), few) as worker, pytest.raises(ChildError) as caught:
        worker.ask(b"")
    assert caught.value.reason == "time"


def test_a_worker_keeps_no_lock_of_its_parent(tmp_path: Path) -> None:
    """A child that lives on with a copy of a descriptor would keep the lock after its parent has let go."""
    mine = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(mine, fcntl.LOCK_EX)
    with Worker(answering(lambda _: str(os.listdir("/proc/self/fd")).encode()), LIMITS) as worker:  # noqa: PTH208
        opened = worker.ask(b"")[0]
        os.close(mine)
        other = os.open(tmp_path / "lock", os.O_RDWR)
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(other)
    assert opened == b"['0', '1', '2', '3', '4']", "the last is that of the listing"


def test_a_worker_of_a_thread_that_has_ended_serves_others() -> None:
    """The kernel kills a child with the thread that forked it."""
    with Worker(answering(lambda _: str(os.getpid()).encode()), LIMITS) as worker:
        first: list[bytes] = []
        thread = threading.Thread(target=lambda: first.append(worker.ask(b"")[0]))
        thread.start()
        thread.join()
        second = worker.ask(b"")[0]
        assert second != first[0]
        assert worker.ask(b"")[0] == second


def alive(pid: int) -> bool:
    """Zombies are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("kind", ["worker", "program"])
def test_a_child_dies_with_its_parent(kind: str) -> None:
    started = {
        "worker": "Worker(lambda _: (time.sleep(60), ()), limits).ask(b'')",
        "program": "run(['/bin/sh', '-c', 'echo $$ >&2; exec sleep 60 2>/dev/null'], limits, {}, stdin=0)",
    }[kind]
    code = f"""
import os, time
from nkform.kernel.child import Limits, Worker, run
limits = Limits(60, 60, 1 << 30, 1 << 20)
pid = os.getpid()
def tell():
    while True:
        time.sleep(0.05)
        found = open(f"/proc/{{pid}}/task/{{pid}}/children").read().split()
        if found:
            print(found[0], flush=True)
            return
import threading
threading.Thread(target=tell, daemon=True).start()
{started}
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert alive(child)
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for _ in range(100):
            if not alive(child):
                return
            time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it lives on")


def test_a_program_says_what_it_has_to_say() -> None:
    fd = os.memfd_create("input")
    os.write(fd, b"word")
    os.lseek(fd, 0, os.SEEK_SET)
    done = run(["/bin/sh", "-c", "cat; echo no >&2; exit 3"], LIMITS, ENVIRONMENT, stdin=fd)
    assert (done.code, done.out, done.err) == (3, b"word", b"no\n")
    os.close(fd)
