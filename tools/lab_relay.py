"""Passes a guest's output on, until it reports its exit code, dies, or takes too long."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping
from typing import NoReturn

from debian_archive import ToolError, note
from lab_job import Job

BOOT_TIMEOUT = 240  # seconds; emulated, 6 to 8 are usual


class GuestError(ToolError):
    """The guest died or took too long."""

    exit_code = 124  # as `timeout` does


@contextlib.contextmanager
def raw_terminal() -> Iterator[None]:
    if not sys.stdin.isatty():
        yield
        return
    saved = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, saved)


class Relay:
    """Reads what one guest sends: `out` and `err` of the command, `console` of the kernel, and `ctl`.

    `ctl` carries "booted" and "exit N", a line each.
    """

    def __init__(self, job: Job, readers: Mapping[str, int]) -> None:
        self.job = job
        self.readers = readers
        self.console = b""
        self.control = b""
        self.booted = 0.0

    def run(self) -> int:
        start = time.monotonic()
        with selectors.DefaultSelector() as selector:
            for name, reader in self.readers.items():
                selector.register(reader, selectors.EVENT_READ, name)
            # The machine holds the other ends: they close when the guest is off, with everything read.
            while selector.get_map():
                limit = self.job.timeout if self.booted else min(BOOT_TIMEOUT, self.job.timeout)
                left = start + limit - time.monotonic()
                if left <= 0:
                    self.fail(f"did not {'finish' if self.booted else 'boot'} within {limit:.0f} seconds")
                for key, _ in selector.select(left):
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fd)
                    self.take(key.data, data)
        match = re.search(rb"^exit (\d+)$", self.control, re.MULTILINE)
        if match is None:
            self.fail("died" if self.booted else "did not boot")
        if self.job.verbose:
            note(f"booted in {self.booted - start:.1f} s, took {time.monotonic() - start:.1f} s")
        return int(match[1])

    def take(self, name: str, data: bytes) -> None:
        if name == "console":
            self.console = (self.console + data)[-16384:]
        elif name == "ctl":
            self.control += data
            if b"booted" in self.control:
                self.booted = self.booted or time.monotonic()
            if self.control.count(b"booted\n") > 1:
                self.fail("was rebooted")  # and would run the command once more
        if name in ("out", "err") or (name == "console" and self.job.verbose):
            file = sys.stdout if name == "out" else sys.stderr
            file.buffer.write(data)
            file.buffer.flush()

    def fail(self, what: str) -> NoReturn:
        tail = "\n".join(self.console.decode(errors="replace").replace("\r", "").splitlines()[-60:])
        raise GuestError(f"the guest with Linux {self.job.kernel.release} {what}. The end of its console:\n{tail}")
