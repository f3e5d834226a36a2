#!/usr/bin/python3
"""Runs the checks side by side and sums them up: `make test`, `make check`, and each of their parts.

    tools/test.py [STAGE…] [-- PYTEST ARGUMENTS]

All stages but `touched` by default; `lab` is those on other kernels, `check` what `make check` runs. As many stages run
at a time as there are processors, the longest first; each shows its output when it is done. What needs root is left out
for others, and said to be. Works with the standard library alone: it makes the virtual environment first.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
PYTHON = ".venv/bin/python"
# What ruff and mypy do not find by themselves, for want of a ".py".
SCRIPTS = ("tools/lab",)
LAB_CANNOT_RUN = 125  # exit code of tools/lab: no kernel, no network, no QEMU
UML_WORKERS = "5"
"""Processes in a guest with one processor: much of a test is waiting."""

ELSEWHERE = (
    *("adoption", "bytes", "chains_ahead", "chains_maps", "chains_maps_undone", "chains_moved", "chains_problems"),
    *("cli", "collisions", "computed", "confirm", "crowded", "cut_records", "damaged_records", "drift", "expedite"),
    *("full_run", "goes_meanwhile", "going_back", "going_back_in_part", "going_back_programs", "guardian_start"),
    *("hardships", "held_namespaces", "identity", "inputs", "keep_going", "lacking", "lasting", "marks"),
    *("peers_by_process", "pins_exchanged", "programs_engines", "programs_templates", "rollback", "runs"),
    *("safety_net", "saved_plans", "several_nodes", "show_left_out", "stuck", "syslog", "too_large", "trust", "undo"),
    *("unexpected", "unread_output", "watch"),
)
"""Files of tests about which an older kernel shows nothing that the newest and the machine's own do not: what is read,
said, kept on record, undone and taken back is the same on each."""
ATTACKS_ELSEWHERE = (
    *("test_attacks.py::test_an_example_comes_and_goes_whole", "test_attacks.py::test_lists_change_whole"),
    "test_dummy.py::test_it_is_changed_whole_or_not_at_all",
)
"""And attacks: the random changes are attacked on an older kernel too."""

GRACE = 10.0
"""Seconds after the start of what builds a kernel until the others begin: a kernel that is there already is found by
then, and the longest stages can be the first."""

GROUPS = {
    "lab": ("lab-uml", "lab-uml-6.12", "lab-newest", "lab-6.12", "lab-6.1"),
    "check": ("setup", "lint", "type", "unit", "touched"),
}


@dataclass(frozen=True)
class Stage:
    """One check: what to run, and what it needs."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    seconds: int
    """Roughly how long it keeps a processor busy: the longest begins first."""
    needs_root: bool = False
    witness: bool = False  # wants an `ip` that knows netkit
    expensive: bool = False  # not worth starting once a cheap one has failed
    beside: bool = False  # runs whatever else does, at a low priority
    after: str = ""  # the stage that has to be done before
    instead: tuple[str, ...] = ()
    """A command that shows the same where the lab cannot run the kernel."""

    @property
    def lab(self) -> bool:
        return self.name.startswith("lab-")


def pytest(*arguments: str) -> tuple[str, ...]:
    return (PYTHON, "-m", "pytest", *arguments)


def in_lab(kernel: str, timeout: int, *arguments: str) -> tuple[str, ...]:
    """Pytest in the lab. The guests share the checkout, so none of them writes pytest's cache."""
    run = ("tools/lab", "run", "--timeout", str(timeout), kernel, "--")
    return (*run, *pytest("-p", "no:cacheprovider", *arguments))


def stages(extra: Sequence[str]) -> list[Stage]:
    """All stages. `extra` are arguments for pytest."""
    ruff = (PYTHON, "-m", "ruff")
    mypy = (PYTHON, "-m", "mypy", "--strict")
    live = ("tests/live", *extra)
    # More at a time than there are processors: each test has namespaces of its own, and much of it is waiting.
    live_workers = str(len(os.sched_getaffinity(0)) + 2)
    side_by_side = ("-n", UML_WORKERS, "--dist", "worksteal")
    elsewhere = tuple(f"--ignore=tests/live/test_{name}.py" for name in ELSEWHERE)
    elsewhere += tuple(f"--deselect=tests/live/{name}" for name in ATTACKS_ELSEWHERE)
    smoke = ("-p", "no:xdist", "-m", "smoke", *smoke_files(), *extra)
    return [
        Stage("setup", (("tools/setup.sh",),), 0),
        Stage("lint", ((*ruff, "check", ".", *SCRIPTS), (*ruff, "format", "--check", ".", *SCRIPTS)), 5),
        Stage("type", ((*mypy, "nkform"), (*mypy, "--scripts-are-modules", *SCRIPTS, *python_tools())), 40),
        Stage("unit", (pytest("-n", live_workers, "--dist", "worksteal", "tests/unit", *extra),), 60),
        Stage("covered", ((PYTHON, "tools/covered.py"),), 90, expensive=True),
        Stage(
            "live",
            (pytest("-n", live_workers, "--dist", "worksteal", *live),),
            240,
            needs_root=True,
            witness=True,
            expensive=True,
        ),
        *(
            Stage(
                f"build-{kernel}",
                (("nice", "tools/lab", "fetch", kernel),),
                0,
                needs_root=True,
                beside=True,
                after=after,
            )
            for kernel, after in (("uml", ""), ("uml-6.12", "build-uml"))
        ),
        Stage(
            "lab-uml",
            (in_lab("uml", 3600, *side_by_side, *live),),
            450,
            needs_root=True,
            expensive=True,
            after="build-uml",
            instead=in_lab("newest", 4500, "-p", "no:xdist", *live),
        ),
        Stage(
            "lab-uml-6.12",
            (in_lab("uml-6.12", 3600, *side_by_side, *live, *elsewhere),),
            400,
            needs_root=True,
            expensive=True,
            after="build-uml-6.12",
            instead=in_lab("6.12", 4500, "-p", "no:xdist", *live, *elsewhere),
        ),
        *(
            Stage(f"lab-{kernel}", (in_lab(kernel, 1800, *smoke),), seconds, needs_root=True, expensive=True)
            for kernel, seconds in (("newest", 200), ("6.12", 190), ("6.1", 130))
        ),
        Stage("touched", (("tools/touched.py",),), 60, needs_root=True, witness=True, expensive=False),
    ]


def smoke_files() -> list[str]:
    """The files with tests of the smoke set: an emulated kernel takes long to read the others."""
    files = sorted((CHECKOUT / "tests/live").glob("test_*.py"))
    return [str(path.relative_to(CHECKOUT)) for path in files if "mark.smoke" in path.read_text()]


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
    known = stages(arguments[split + 1 :])
    names = {name for word in arguments[:split] for name in GROUPS.get(word, (word,))}
    if unknown := names - {stage.name for stage in known}:
        there = " ".join([*(stage.name for stage in known), *GROUPS])
        print(f"no stage {', '.join(sorted(unknown))}; there are: {there}", file=sys.stderr)
        return 2
    chosen = [stage for stage in known if stage.name in names or (not names and stage.name != "touched")]
    os.chdir(CHECKOUT)
    results = Schedule(chosen, len(os.sched_getaffinity(0))).run()
    results.sort(key=lambda result: known.index(result.stage))
    print_summary(results)
    return int(any(result.failed for result in results))


class Schedule:
    """Runs stages: set-up alone, then as many at a time as there are processors."""

    def __init__(self, chosen: Sequence[Stage], slots: int) -> None:
        self.waiting = list(chosen)
        self.slots = slots
        self.running: dict[Future[Result], Stage] = {}
        self.results: list[Result] = []
        self.held_until = 0.0
        self.aloud = sum(stage.name != "setup" for stage in chosen) <= 1

    def run(self) -> list[Result]:
        with ThreadPoolExecutor(len(self.waiting)) as pool:
            while self.waiting or self.running:
                self.leave_out()
                for stage in self.startable():
                    self.waiting.remove(stage)
                    if not self.aloud:
                        print(f"== {stage.name}: started", flush=True)
                    self.running[pool.submit(run, stage, aloud=self.aloud, without_lab=self.without_lab(stage))] = stage
                done, _ = wait(self.running, GRACE if self.is_held() else None, return_when=FIRST_COMPLETED)
                for future in done:
                    del self.running[future]
                    self.results.append(future.result())
        return self.results

    def startable(self) -> list[Stage]:
        """The stages to start now."""
        ahead = [stage.name for stage in (*self.waiting, *self.running.values())]
        cheap_ahead = any(not (s.expensive or s.beside) for s in (*self.waiting, *self.running.values()))
        ready = [
            stage
            for stage in sorted(self.waiting, key=lambda stage: stage.seconds, reverse=True)
            if (stage.name == "setup" or "setup" not in ahead)
            and stage.after not in ahead
            and not ((stage.expensive or stage.beside) and cheap_ahead)
        ]
        if beside := [stage for stage in ready if stage.beside]:
            self.held_until = time.monotonic() + GRACE
            return beside
        if self.is_held():
            return []
        free = self.slots - sum(not stage.beside for stage in self.running.values())
        return ready[: max(free, 0)]

    def is_held(self) -> bool:
        """Whether what waits for a kernel may be able to start in a moment, and be the longest."""
        return time.monotonic() < self.held_until and any(stage.beside for stage in self.running.values())

    def leave_out(self) -> None:
        """Takes out what is not to be run after what has failed, or by this user."""
        for stage in list(self.waiting):
            if reason := self.reason_against(stage):
                self.waiting.remove(stage)
                self.results.append(Result(stage, reason))

    def reason_against(self, stage: Stage) -> str:
        failed = [result.stage for result in self.results if result.failed]
        if any(other.name == "setup" for other in failed):
            return "not run: setup failed"
        if (stage.expensive or stage.beside) and any(not other.expensive for other in failed):
            return "not run: mend the stages above first"
        if stage.needs_root and os.geteuid() != 0:
            return "left out: needs root"
        return ""

    def without_lab(self, stage: Stage) -> bool:
        """Whether the kernel of a stage could not be built."""
        return any(result.stage.name == stage.after and result.verdict != "ok" for result in self.results)


def run(stage: Stage, *, aloud: bool, without_lab: bool = False) -> Result:
    """Runs a stage; its output comes as it is made, or, so that stages side by side do not mix, as one piece."""
    result = Result(stage)
    start = time.monotonic()
    output = Output(f"\n== {stage.name}\n", aloud)
    commands = (stage.instead,) if without_lab and stage.instead else stage.commands
    for command in commands:
        code = call(command, stage, output)
        if code == LAB_CANNOT_RUN and stage.instead and command != stage.instead:
            output.add("(the lab cannot run this kernel here, see above: the same tests in QEMU instead)\n")
            code = call(stage.instead, stage, output)
        if code:
            result.verdict = "FAILED"
            if stage.beside:
                result.verdict = "left out: it cannot be built here (see above), and QEMU stands in"
            elif stage.lab and code == LAB_CANNOT_RUN and own_kernel_has_netkit():
                result.verdict = "left out: the lab cannot run here (see above), and this kernel has netkit itself"
            output.add(f"({shlex.join(command)}: exit code {code})\n")
    result.seconds = time.monotonic() - start
    result.counts = pytest_counts(output.text)
    output.end()
    return result


class Output:
    """What a stage prints."""

    def __init__(self, header: str, aloud: bool) -> None:
        self.text = ""
        self.aloud = aloud
        self.add(header)

    def add(self, text: str) -> None:
        self.text += text
        if self.aloud:
            print(text, end="", flush=True)

    def end(self) -> None:
        if not self.aloud:
            print(self.text, end="", flush=True)


def call(command: Sequence[str], stage: Stage, output: Output) -> int:
    """Runs a command, and returns its exit code."""
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
        output.add(line)
    return process.wait()


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
        print(f"{result.stage.name:14} {result.seconds:7.1f} s  {result.verdict:8} {counts}".rstrip())
    total = {word: sum(result.counts.get(word, 0) for result in results) for word in ("passed", "failed", "skipped")}
    # An error in a fixture, or a run that broke off, is a failure too.
    total["failed"] += sum(r.counts.get("error", 0) + r.counts.get("errors", 0) for r in results)
    if any(result.counts for result in results):
        print(f"total: {total['passed']} passed, {total['failed']} failed, {total['skipped']} skipped")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
