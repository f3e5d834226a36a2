"""nkform itself, phase by phase, each a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.measure import BenchError, Finished, Measurement, call, environment, expect, run
from benchmarks.sandbox import WORK
from benchmarks.scenario import Scenario, nkform_spec

PLAN_EMPTY = "plan on empty"
APPLY = "apply"
PLAN_NOOP = "plan, nothing to do"
PLAN_ONE = "plan, one change"
SHOW = "show"
DESTROY = "destroy"
DEVICES = "apply, devices only"
VERSION = "version"
PYTHON = "python -c pass"
BARE_READER = "the same dumps, alone"
"""What a plan asks the kernel for, by bare_reader.py, beside the plans: not nkform's own phase."""

READER = Path(__file__).with_name("bare_reader.py")

CHANGES = 2
"""`plan --detailed-exitcode`: there is something to do."""


class Nkform:
    """One scenario, made and unmade by nkform. `program` is its command line so far."""

    def __init__(self, program: Sequence[str], scenario: Scenario) -> None:
        self.program = list(program)
        self.scenario = scenario
        self.spec = WORK / "bench.yaml"
        self.changed = WORK / "changed.yaml"
        self.spec.write_text(nkform_spec(scenario))
        self.changed.write_text(nkform_spec(scenario, changed=True))

    def make(self) -> Iterator[Measurement]:
        """From nothing to the state."""
        yield self._measure(PLAN_EMPTY, "plan", str(self.spec))
        yield self._measure(APPLY, "apply", "-y", str(self.spec))

    def look(self) -> Iterator[Measurement]:
        """What one does with a state that is there, after checking that it is the right one."""
        self._check(self.spec, 0)
        self._check(self.changed, CHANGES)
        yield self._measure(PLAN_NOOP, "plan", str(self.spec))
        yield expect(run(BARE_READER, [sys.executable, "-I", "-S", str(READER)]))
        yield self._measure(PLAN_ONE, "plan", str(self.changed))
        yield self._measure(SHOW, "show")

    def unmake(self) -> Iterator[Measurement]:
        yield self._measure(DESTROY, "destroy", "-y", str(self.spec))
        left = call("ip", "-o", "link", "show").splitlines()
        namespaces = list(Path("/run/netns").glob("*"))
        if len(left) > 1 or namespaces:
            raise BenchError(f"destroy left {len(left) - 1} devices and {len(namespaces)} namespaces behind")

    def devices(self) -> Measurement:
        """Makes the devices alone, in namespaces that exist."""
        measured = self._measure(DEVICES, "apply", "-y", str(self.spec))
        self._check(self.spec, 0)
        return measured

    def _measure(self, phase: str, *arguments: str) -> Measurement:
        return expect(self._run(phase, *arguments))

    def _check(self, spec: Path, code: int) -> None:
        expect(self._run("plan --detailed-exitcode", "plan", "--detailed-exitcode", str(spec)), code)

    def _run(self, phase: str, *arguments: str) -> Finished:
        return run(phase, [*self.program, *arguments], env=environment(NKFORM_TIMINGS="1"))


def startup(program: Sequence[str], python: str, times: int) -> Iterator[Measurement]:
    """`nkform --version` and the interpreter alone, in turns; after a plan that only warms the caches."""
    next(Nkform(program, Scenario(1)).make())
    for _ in range(times):
        yield expect(run(PYTHON, [python, "-c", "pass"]))
        yield expect(run(VERSION, [*program, "--version"]))
