#!/usr/bin/python3
"""Runs the checks one after the other and sums them up: `make test`, and each of its parts.

    tools/test.py [STAGE…] [-- PYTEST ARGUMENTS]

Stages: setup, lint, type, unit, live, lab (on every kernel) or lab-KERNEL; all of them by default. What needs root is
left out for others, and said to be. Works with the standard library alone: it makes the virtual environment first.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON = ".venv/bin/python"
# What ruff and mypy do not find by themselves, for want of a ".py".
SCRIPTS = ("tools/lab",)
LAB_SECONDS = "5000"
"""After so long a guest is given up."""

LAB_CANNOT_RUN = 125  # exit code of tools/lab: no kernel, no network, no QEMU
LAB_KERNELS = ("newest", "6.12", "6.1")
EXPENSIVE = ("lab-newest", "live", "lab-6.12", "lab-6.1")
"""In the order in which they begin."""


# What an older kernel need not show again: the newest one and the machine's own do. Emulated, it takes half an hour.
ELSEWHERE = {
    "6.12": ("confirm", "drift", "saved_plans", "watch", "programs_templates"),
    "6.1": ("watch",),
}


@dataclass(frozen=True)
class Stage:
    """One check: what to run, and what it needs."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    needs_root: bool = False
    witness: bool = False  # wants an `ip` that knows netkit
    expensive: bool = False  # not worth starting once a cheap one has failed
    lab: bool = False


def pytest(*arguments: str) -> tuple[str, ...]:
    return (PYTHON, "-m", "pytest", *arguments)


def left(kernel: str) -> list[str]:
    """Options that leave out what the kernel need not show."""
    return [f"--ignore=tests/live/test_{name}.py" for name in ELSEWHERE.get(kernel, ())]


def stages(pytest_arguments: Sequence[str]) -> list[Stage]:
    ruff = (PYTHON, "-m", "ruff")
    live = ("tests/live", *pytest_arguments)
    return [
        Stage("setup", (("tools/setup.sh",),)),
        Stage("lint", ((*ruff, "check", ".", *SCRIPTS), (*ruff, "format", "--check", ".", *SCRIPTS))),
        Stage(
            "type",
            (
                (PYTHON, "-m", "mypy", "--strict", "nkform"),
                (PYTHON, "-m", "mypy", "--strict", "--scripts-are-modules", *SCRIPTS, *python_tools()),
            ),
        ),
        Stage("unit", (pytest("tests/unit", *pytest_arguments),)),
        Stage(
            "live",
            # As many at a time as there are processors: each has namespaces of its own, and much of a test is waiting.
            (pytest("-n", "auto", "--dist", "worksteal", *live),),
            needs_root=True,
            witness=True,
            expensive=True,
        ),
        *(
            Stage(
                f"lab-{kernel}",
                # The guests share the checkout, so none of them writes pytest's cache.
                (
                    (
                        "tools/lab",
                        "run",
                        "--timeout",
                        LAB_SECONDS,
                        kernel,
                        "--",
                        *pytest("-p", "no:cacheprovider", "-p", "no:xdist", *live, *left(kernel)),
                    ),
                ),
                needs_root=True,
                expensive=True,
                lab=True,
            )
            for kernel in LAB_KERNELS
        ),
    ]


def python_tools() -> list[str]:
    return sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "tools").glob("*.py"))


@dataclass
class Result:
    """How a stage went."""

    stage: Stage
    verdict: str = "ok"  # or "FAILED", or why it was left out
    seconds: float = 0
    counts: dict[str, int] = field(default_factory=dict)  # of pytest: passed, failed, skipped …

    @property
    def failed(self) -> bool:
        return self.verdict == "FAILED"


def main(arguments: Sequence[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    wanted, pytest_arguments = arguments[:split], arguments[split + 1 :]
    known = stages(pytest_arguments)
    chosen = [stage for stage in known if not wanted or stage.name in wanted or (stage.lab and "lab" in wanted)]
    if unknown := set(wanted) - {stage.name for stage in known} - {"lab"}:
        print(f"no stage {', '.join(sorted(unknown))}; there are: {' '.join(s.name for s in known)}", file=sys.stderr)
        return 2
    os.chdir(CHECKOUT)
    results: list[Result] = []
    for stage in chosen:
        if not stage.expensive:
            results.append(left_out(stage, results) or run(stage))
    left = [stage for stage in chosen if stage.expensive]
    # Side by side, the longest first: an emulated machine keeps one processor busy, and the live tests wait a lot.
    left.sort(key=lambda stage: EXPENSIVE.index(stage.name))
    with ThreadPoolExecutor(max(1, min(os.cpu_count() or 1, len(left)))) as pool:
        labs = [stage.name for stage in left if stage.lab and not left_out(stage, results)]
        if labs:
            print(f"\n== {' '.join(labs)}: each shows its output when it is done", flush=True)
        before = list(results)
        for result in pool.map(lambda stage: left_out(stage, before) or run(stage, aloud=not stage.lab), left):
            results.append(result)
    print_summary(results)
    return int(any(result.failed for result in results))


def left_out(stage: Stage, before: Sequence[Result]) -> Result | None:
    """The result of a stage that is not to be run."""
    if any(result.failed and result.stage.name == "setup" for result in before):
        return Result(stage, "not run: setup failed")
    if stage.expensive and any(result.failed and not result.stage.expensive for result in before):
        return Result(stage, "not run: mend the stages above first")
    if stage.needs_root and os.geteuid() != 0:
        return Result(stage, "left out: needs root")
    return None


def run(stage: Stage, *, aloud: bool = True) -> Result:
    """Run a stage; its output comes as it is made, or, so that stages side by side do not mix, as one piece."""
    result = Result(stage)
    start = time.monotonic()
    header = f"\n== {stage.name}\n"
    if aloud:
        print(header, end="", flush=True)
    output = ""
    for command in stage.commands:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | (witness() if stage.witness else {}),
        )
        assert process.stdout is not None
        for line in process.stdout:
            output += line
            if aloud:
                print(line, end="", flush=True)
        if code := process.wait():
            result.verdict = "FAILED"
            if stage.lab and code == LAB_CANNOT_RUN and own_kernel_has_netkit():
                result.verdict = "left out: the lab cannot run here (see above), and this kernel has netkit itself"
            line = f"({shlex.join(command)}: exit code {code})\n"
            output += line
            if aloud:
                print(line, end="", flush=True)
    result.seconds = time.monotonic() - start
    result.counts = pytest_counts(output)
    if not aloud:
        print(header + output, end="", flush=True)
    return result


def witness() -> dict[str, str]:
    """Variables that name newer `ip` and `bpftool` than the installed ones, where Debian's archive can be reached."""
    done = subprocess.run(("tools/lab", "witness"), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return {}
    folder = done.stdout.strip()
    return {"NKFORM_IP": f"{folder}/ip", "NKFORM_BPFTOOL": f"{folder}/bpftool"}


def own_kernel_has_netkit() -> bool:
    """Whether the running kernel makes a netkit device, tried in a network namespace that goes away at once."""
    probe = ("unshare", "--net", "ip", "link", "add", "nkprobe", "type", "netkit")
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def pytest_counts(output: str) -> dict[str, int]:
    """The numbers in pytest's closing line, as in "== 3 passed, 1 skipped in 0.5s ==" """
    closing = re.findall(r"^=* ?(\d+ [a-z]+.*?) in [\d.]+s.*$", output, re.MULTILINE)
    return {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", closing[-1])} if closing else {}


def print_summary(results: Sequence[Result]) -> None:
    print("\n== summary")
    for result in results:
        counts = ", ".join(f"{number} {word}" for word, number in result.counts.items())
        print(f"{result.stage.name:12} {result.seconds:7.1f} s  {result.verdict:8} {counts}".rstrip())
    total = {word: sum(result.counts.get(word, 0) for result in results) for word in ("passed", "failed", "skipped")}
    # An error in a fixture, or a run that broke off, is a failure too.
    total["failed"] += sum(r.counts.get("error", 0) + r.counts.get("errors", 0) for r in results)
    if any(result.counts for result in results):
        print(f"total: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
