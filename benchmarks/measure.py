"""One program, run and measured: wall time, CPU time of it and its children, peak memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launcher.py")
TIMED_OUT = "timed out"
FAILED = "failed"
DONE = "done"


class BenchError(Exception):
    """A run that cannot go on; its text says why."""


@dataclass(frozen=True)
class Measurement:
    """What a phase cost: seconds of wall and CPU time, and MB (10^6 bytes) at the largest process's peak.

    `timings` are the milliseconds that the program itself accounts for, by name.
    """

    phase: str
    wall: float
    cpu: float
    peak: float
    outcome: str = DONE
    timings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Finished:
    """A measured program's end: its exit code (None: killed when its time was over) and what it printed."""

    measurement: Measurement
    code: int | None
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """The variables that measured programs see: the same on every machine."""
    kept = {name: os.environ[name] for name in ("HOME", "XDG_CACHE_HOME") if name in os.environ}
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "LANG": "C.UTF-8", "NO_COLOR": "1", **kept, **more}


def run(phase: str, command: Sequence[str], *, limit: float = 3600, env: Mapping[str, str] | None = None) -> Finished:
    """Runs a command to its end, or kills it and its process group after `limit` seconds."""
    variables = dict(env or environment())
    program = shutil.which(command[0], path=variables["PATH"])
    if program is None:
        raise BenchError(f"{command[0]} is not installed")
    reader, writer = os.pipe()
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
        os.fdopen(reader) as report,
    ):
        launcher = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(writer), program, *command[1:]],
            stdin=subprocess.DEVNULL, stdout=out, stderr=err, pass_fds=[writer], env=variables,
        )  # fmt: skip
        os.close(writer)
        child = int(report.readline() or 0)
        timed_out = not _wait(launcher, child, limit)
        line = report.readline().split()
        if not line:
            err.seek(0)
            raise BenchError(f"{command[0]} could not be measured: {err.read().strip()}")
        code, wall, cpu, peak = int(line[0]), float(line[1]), float(line[2]), int(line[3]) * 1024 / 1e6
        out.seek(0)
        err.seek(0)
        printed, complained = out.read(), err.read()
    outcome = TIMED_OUT if timed_out else FAILED if code else DONE
    measurement = Measurement(phase, wall, cpu, peak, outcome, _timings(complained))
    return Finished(measurement, None if timed_out else code, printed, complained)


def _wait(launcher: subprocess.Popen[bytes], child: int, limit: float) -> bool:
    """Whether it ended in time; it has ended in any case."""
    try:
        launcher.wait(limit)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        launcher.wait()
        return False
    return True


def _timings(text: str) -> dict[str, float]:
    """The lines `timing: NAME MILLISECONDS` of a program that accounts for its own time."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "timing:":
            found[words[1]] = found.get(words[1], 0) + float(words[2])
    return found


def expect(finished: Finished, *codes: int) -> Measurement:
    """The measurement of a run that must have ended with one of these exit codes (0 if none is named)."""
    if finished.code not in (codes or (0,)):
        tail = "\n".join((finished.err or finished.out).strip().splitlines()[-8:])
        raise BenchError(f"{finished.measurement.phase}: exit code {finished.code}\n{tail}")
    return finished.measurement


def call(*command: str, tolerant: bool = False) -> str:
    """Runs something that is not measured and returns its output."""
    done = subprocess.run(command, text=True, capture_output=True, env=environment(), check=False)
    if done.returncode and not tolerant:
        raise BenchError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def joined(phase: str, parts: Sequence[Measurement]) -> Measurement:
    """Several programs that make up one phase, run one after the other."""
    return Measurement(phase, sum(p.wall for p in parts), sum(p.cpu for p in parts), max(p.peak for p in parts))


def pause(seconds: float) -> None:
    time.sleep(seconds)
