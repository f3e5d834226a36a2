"""Guests of the lab, on User-Mode Linux: what comes out of them, how they end, and that nothing of them stays.

Needs root and the kernel: `tools/lab fetch uml` builds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab_build import is_built
from lab_uml import LOCKS, held

CHECKOUT = Path(__file__).parents[2]
LAB = str(CHECKOUT / "tools/lab")
CANNOT_RUN, DIED = 125, 124

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0 or "NKFORM_LAB" in os.environ, reason="needs root, outside of the lab"),
    pytest.mark.skipif(not is_built("uml"), reason="the kernel is not built; tools/lab fetch uml builds it"),
]


def lab(*words: str, command: str, **more: object) -> subprocess.CompletedProcess[bytes]:
    """Runs a shell command in a guest."""
    return subprocess.run(
        (LAB, "run", *words, "uml", "--", "sh", "-c", command), capture_output=True, check=False, timeout=120, **more
    )


MARK = f"LAB_TEST={os.getpid()}"


def processes() -> set[int]:
    """The processes that these tests have started and that are still there: labs, kernels, and what they start."""
    marked = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if MARK.encode() in (folder / "environ").read_bytes().split(b"\0"):
                marked.add(int(folder.name))
    return marked


def kernels() -> set[int]:
    return {pid for pid in processes() if Path(f"/proc/{pid}/exe").readlink().name == "linux"}


def traces() -> set[str]:
    """The files that a kernel of this kind is known to leave: its memory, and the folder of its name."""
    places = (Path("/dev/shm"), Path("/tmp"), Path("/var/tmp"), Path.home() / ".uml", CHECKOUT)
    return {f"{place}/{path.name}" for place in places if place.is_dir() for path in place.iterdir()}


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(*MARK.split("="))
    files = traces()
    yield
    end = time.monotonic() + 10
    while processes() and time.monotonic() < end:
        time.sleep(0.02)
    assert processes() == set()
    assert {name for name in traces() - files if re.search(r"uml|vm_file|core", name)} == set()


def test_the_exit_code_and_both_outputs_are_the_commands() -> None:
    done = lab(command="echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")


def test_the_kernel_is_another_one_and_has_netkit() -> None:
    listing = "ls -d /sys/class/net/*/ | xargs -n1 basename"
    done = lab(command=f"uname -r; ip link add type netkit && {listing}; echo $NKFORM_LAB; hostname")
    release, *rest = done.stdout.decode().split()
    assert release != os.uname().release
    assert rest == ["lo", "nk0", "nk1", "sit0", "uml", "lab-uml"]


def test_much_output_arrives_whole() -> None:
    command = "head -c 20000000 /dev/urandom >/tmp/data; md5sum </tmp/data >&2; cat /tmp/data"
    done = lab(command=command)
    assert len(done.stdout) == 20_000_000
    assert hashlib.md5(done.stdout).hexdigest() == done.stderr.split()[0].decode()


def test_output_arrives_while_the_command_runs() -> None:
    command = (LAB, "run", "uml", "--", "sh", "-c", "echo first; sleep 60")
    with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"first\n"
        running.terminate()
        assert running.wait(10) == 128 + signal.SIGTERM


def test_only_the_checkout_and_shares_are_written_to(tmp_path: Path) -> None:
    shared, other = tmp_path / "shared", tmp_path / "other"
    shared.mkdir()
    other.mkdir()
    inside = CHECKOUT / f".lab-test-{os.getpid()}"
    files = (shared / "file", other / "file", inside)
    done = lab("--share", str(shared), command="; ".join(f"echo text >{file} && cat {file}" for file in files))
    present = [file.exists() for file in files]
    inside.unlink(missing_ok=True)
    assert (done.stdout, present) == (b"text\n" * 3, [True, False, True])


def test_the_folder_and_variables_are_the_callers(tmp_path: Path) -> None:
    done = lab(
        "--env",
        "GIVEN=a b",
        "--env",
        "CARRIED",
        command="pwd; echo $GIVEN $CARRIED $PYTEST_MINE $OTHER; echo $TMPDIR",
        cwd=tmp_path,
        env={**os.environ, "CARRIED": "c", "PYTEST_MINE": "d", "OTHER": "e"},
    )
    assert done.stdout.decode().splitlines() == [str(tmp_path), "a b c d", "/var/tmp"]


def test_its_memory_is_what_is_asked_for() -> None:
    done = lab("--mem", "512M", command="sed -n 's/MemTotal: *//p' /proc/meminfo")
    assert 400_000 < int(done.stdout.split()[0]) < 512 * 1024


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("/run/lab/busybox poweroff -f", "died"),
        ("/run/lab/busybox reboot -f", "was rebooted"),
        ("echo 1 >/proc/sys/vm/panic_on_oom; head -c 2G /dev/zero | tail -n 1", "died"),
        ("sleep 60", "did not finish within 2 seconds"),
    ],
    ids=["off", "reboot", "panic", "timeout"],
)
def test_a_guest_that_ends_early_is_said_to_have(command: str, what: str) -> None:
    start = time.monotonic()
    done = lab("--timeout", "2" if command.startswith("sleep") else "60", "--mem", "256M", command=command)
    said = done.stderr.decode()
    assert done.returncode == DIED, said
    assert re.search(rf"lab: the guest with Linux \S+ {what}\. The end of its console:\n", said)
    assert time.monotonic() - start < 30


def test_what_the_lab_cannot_run_is_its_own_failure() -> None:
    assert lab("--share", "/nowhere", command="true").returncode == CANNOT_RUN
    missing = subprocess.run((LAB, "run", "uml"), capture_output=True, text=True, check=False)
    assert (missing.returncode, missing.stderr) == (
        CANNOT_RUN,
        "lab: no command given: tools/lab run KERNEL -- COMMAND\n",
    )


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda n: n.name)
def test_a_lab_that_is_killed_takes_its_guest_with_it(sent: signal.Signals) -> None:
    command = (LAB, "run", "uml", "--", "sh", "-c", "trap '' INT TERM HUP; sleep 60 & echo started; wait")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"started\n"
        assert kernels()
        running.send_signal(sent)
        running.wait(10)
        assert running.stderr is not None
        assert b"Traceback" not in running.stderr.read()


@pytest.mark.skipif(any(map(held, LOCKS.glob("cpu*"))), reason="other guests are running")
def test_guests_at_the_same_time_run_on_different_processors() -> None:
    cpus = sorted(os.sched_getaffinity(0))
    labs = []
    for _ in cpus:
        command = (LAB, "run", "uml", "--", "sh", "-c", "echo started; sleep 60")
        labs.append(subprocess.Popen(command, stdout=subprocess.PIPE))
    try:
        for running in labs:
            assert running.stdout is not None
            assert running.stdout.readline() == b"started\n"
        allowed = [os.sched_getaffinity(pid) for pid in kernels()]
        assert all(len(affinity) == 1 for affinity in allowed)
        assert set.union(*allowed) == set(cpus)
    finally:
        for running in labs:
            running.kill()
            running.wait()


class Shell:
    """A shell of the lab's on a terminal of ours."""

    def __init__(self) -> None:
        self._terminal, its = pty.openpty()
        self.shown = ""
        self._seen = 0
        self.process = subprocess.Popen(
            (LAB, "shell", "uml"), stdin=its, stdout=its, stderr=its, env={**os.environ, "SHELL": "/bin/sh"}
        )
        os.close(its)

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def wait_for(self, text: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while text not in self.shown[self._seen :]:
            assert time.monotonic() < end, self.shown
            if select.select([self._terminal], [], [], 0.1)[0]:
                self.shown += os.read(self._terminal, 4096).decode()
        self._seen = self.shown.index(text, self._seen) + len(text)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._terminal)


@pytest.fixture
def shell() -> Iterator[Shell]:
    shell = Shell()
    yield shell
    shell.close()


def test_a_shell_has_a_terminal_and_its_exit_code_is_the_labs(shell: Shell) -> None:
    shell.wait_for("# ")
    shell.type("tty; uname -n\r")
    shell.wait_for("/dev/ttyS3\r\nlab-uml\r\n")
    # What the shell starts has the terminal only after a moment, so it says when it runs. The echo has the quotes.
    shell.type("sh -c 'echo run''ning; exec sleep 60'\r")
    shell.wait_for("running\r\n")
    shell.type("\x03")  # Ctrl-C is for what runs in the shell, and not for the lab
    shell.wait_for("# ")
    shell.type("exit 5\r")
    assert shell.process.wait(10) == 5


def test_a_shell_is_there_in_less_than_two_seconds(shell: Shell) -> None:
    used = os.times()
    shell.wait_for("# ")
    shell.type("exit\r")
    shell.process.wait(10)
    spent = sum(os.times()[2:4]) - sum(used[2:4])
    # In seconds of a processor, which a machine that is busy elsewhere does not change.
    assert spent < 2
