"""What the lab does around a guest: the choice of its processor, and what becomes of what it sends."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from lab_job import Job, cpio
from lab_kernels import BuiltKernel
from lab_relay import GuestError, Relay
from lab_uml import processor

TOOLS = Path(__file__).parents[2] / "tools"
STREAMS = ("console", "ctl", "out", "err")


# --- the choice of a processor


def test_guests_at_the_same_time_take_different_processors(tmp_path: Path) -> None:
    with processor([3, 5], tmp_path) as first, processor([3, 5], tmp_path) as second:
        assert (first, second) == (3, 5)


def test_a_processor_is_free_again_when_its_guest_is_gone(tmp_path: Path) -> None:
    for _ in range(3):
        with processor([3, 5], tmp_path) as cpu:
            assert cpu == 3


def test_with_none_free_it_is_the_one_with_the_fewest_guests(tmp_path: Path) -> None:
    with ExitStack() as stack:
        guests = [ExitStack() for _ in range(6)]
        cpus = [stack.enter_context(guest).enter_context(processor([0, 1, 2], tmp_path)) for guest in guests]
        assert cpus == [0, 1, 2, 0, 1, 2]
        for number in (1, 2, 5):  # leaves two on 0, one on 1, none on 2
            guests[number].close()
        later = [stack.enter_context(processor([0, 1, 2], tmp_path)) for _ in range(4)]
        assert later == [2, 1, 2, 0]


def test_a_guest_may_only_use_the_processors_that_it_is_given(tmp_path: Path) -> None:
    with processor([0], tmp_path), processor([0, 1], tmp_path) as second, processor([0], tmp_path) as third:
        assert (second, third) == (1, 0)


def test_labs_in_other_processes_count_and_those_that_were_killed_do_not(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys, time, lab_uml\n"
        "with lab_uml.processor([0, 1], pathlib.Path(sys.argv[1])) as cpu: print(cpu, flush=True); time.sleep(60)"
    )
    command = (sys.executable, "-c", script, tmp_path)
    with subprocess.Popen(command, cwd=TOOLS, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "0\n"
        with processor([0, 1], tmp_path) as mine:
            assert mine == 1
        other.kill()
    with processor([0, 1], tmp_path) as mine:
        assert mine == 0


# --- what a guest sends


class Guest:
    """The other ends of a relay's pipes, as a machine holds them."""

    def __init__(self) -> None:
        pipes = {name: os.pipe() for name in STREAMS}
        self.readers = {name: reader for name, (reader, _) in pipes.items()}
        self._writers = {name: writer for name, (_, writer) in pipes.items()}

    def send(self, name: str, text: bytes) -> None:
        os.write(self._writers[name], text)

    def off(self) -> None:
        for writer in self._writers.values():
            with contextlib.suppress(OSError):
                os.close(writer)


@pytest.fixture
def guest() -> Iterator[Guest]:
    guest = Guest()
    yield guest
    guest.off()
    for reader in guest.readers.values():
        os.close(reader)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "release").write_text("9.9-test\n")
    return Job(BuiltKernel("uml", tmp_path), ("true",), timeout=1)


def test_the_exit_code_is_the_one_that_the_guest_reports(guest: Guest, job: Job) -> None:
    guest.send("ctl", b"booted\n")
    guest.send("ctl", b"exit 77\n")
    guest.off()
    assert Relay(job, guest.readers).run() == 77


def test_output_is_passed_on_byte_by_byte_and_kept_apart(
    guest: Guest, job: Job, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    guest.send("ctl", b"booted\n")
    guest.send("out", bytes(range(256)))
    guest.send("err", b"\xff\r\n")
    guest.send("console", b"never shown")
    guest.send("ctl", b"exit 0\n")
    guest.off()
    assert Relay(job, guest.readers).run() == 0
    shown = capfdbinary.readouterr()
    assert (shown.out, shown.err) == (bytes(range(256)), b"\xff\r\n")


def test_output_comes_before_the_guest_is_off(guest: Guest, job: Job, capfd: pytest.CaptureFixture[str]) -> None:
    results: list[int] = []
    relay = threading.Thread(target=lambda: results.append(Relay(job, guest.readers).run()))
    relay.start()
    guest.send("out", b"early\n")
    shown = ""
    while not shown:
        shown = capfd.readouterr().out
    assert (shown, relay.is_alive()) == ("early\n", True)
    guest.send("ctl", b"booted\nexit 0\n")
    guest.off()
    relay.join()
    assert results == [0]


@pytest.mark.parametrize(("control", "what"), [(b"", "did not boot"), (b"booted\n", "died"), (b"booted\nexi", "died")])
def test_a_guest_that_dies_is_an_error_with_the_end_of_its_console(
    guest: Guest, job: Job, control: bytes, what: str
) -> None:
    guest.send("console", b"".join(b"line %d\r\n" % number for number in range(100)) + b"Kernel panic\r\n")
    guest.send("ctl", control)
    guest.off()
    with pytest.raises(GuestError) as error:
        Relay(job, guest.readers).run()
    first, *rest = str(error.value).splitlines()
    assert first == f"the guest with Linux 9.9-test {what}. The end of its console:"
    assert rest == [*(f"line {number}" for number in range(41, 100)), "Kernel panic"]
    assert error.value.exit_code == 124


@pytest.mark.parametrize(("control", "what"), [(b"", "did not boot"), (b"booted\n", "did not finish")])
def test_a_guest_that_takes_too_long_is_an_error(guest: Guest, job: Job, control: bytes, what: str) -> None:
    guest.send("ctl", control)
    with pytest.raises(GuestError, match=f"{what} within 1 seconds"):
        Relay(job, guest.readers).run()


def test_a_guest_that_boots_again_is_an_error(guest: Guest, job: Job) -> None:
    """Else it would run the command a second time."""
    guest.send("ctl", b"booted\nbooted\n")
    with pytest.raises(GuestError, match="was rebooted"):
        Relay(job, guest.readers).run()


def test_the_archive_is_one_that_cpio_reads(tmp_path: Path) -> None:
    files: dict[str, bytes | int] = {"job": 0o750, "job/command": b"exec true\n", "job/empty": b"", "init": b"x" * 4097}
    unpack = ("busybox", "cpio", "-idm")
    subprocess.run(unpack, input=cpio(files), cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "job").stat().st_mode & 0o777 == 0o750
    for name, content in files.items():
        if isinstance(content, bytes):
            assert (tmp_path / name).read_bytes() == content
            assert (tmp_path / name).stat().st_mode & 0o777 == 0o755
