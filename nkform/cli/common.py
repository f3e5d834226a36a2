"""What several commands share: a session whose listener is the terminal, reading the spec, showing plans, asking."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nkform.kernel import clock
from nkform.kernel.standard_streams import never_wait_while
from nkform.problem import NkformError, Problem, fail
from nkform.session.listener import timed
from nkform.session.prepared import PlanOptions
from nkform.session.session import Session

if TYPE_CHECKING:
    from nkform.bpf.programs import Programs
    from nkform.plan.changes import Plan
    from nkform.plan.drift import Difference
    from nkform.session.session import Planned
    from nkform.spec import Spec

PROGRESS_SECONDS = 1.0
LONGEST_SECONDS = 10 * 365 * 24 * 3600.0
"""The longest time that an option can have."""

UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}
SECONDS_UNTOLD = "60s"
"""How long commands without --lock-timeout wait for another run to end."""


class Terminal:
    """What a session tells, on stderr. With NKFORM_TIMINGS=1, how many milliseconds each phase took, too."""

    def __init__(self, *, no_color: bool) -> None:
        self._no_color = no_color
        self._told = clock.monotonic()
        self._is_slow = False
        self._times = os.environ.get("NKFORM_TIMINGS") == "1"

    def warn(self, problems: Sequence[Problem]) -> None:
        if problems:
            from nkform.report.colour import wanted
            from nkform.report.problems import render

            print(render(problems, wanted(sys.stderr, self._no_color)), file=sys.stderr)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def progress(self, done: int, total: int) -> None:
        """At most once a second, and once at the end of a run of which something was told."""
        now = clock.monotonic()
        if now - self._told >= PROGRESS_SECONDS or (self._is_slow and done == total):
            self._told, self._is_slow = now, done < total
            print(f"{done} of {total} actions done", file=sys.stderr)

    def phase(self, name: str, seconds: float) -> None:
        if self._times:
            print(f"timing: {name} {seconds * 1000:.1f}", file=sys.stderr)


def session(options: argparse.Namespace) -> Session:
    """The session of a command line. Raises NkformError."""
    from nkform.kernel import rundir

    never_wait_while(rundir.has_lock)
    timeout = seconds(getattr(options, "lock_timeout", SECONDS_UNTOLD), "--lock-timeout")
    return Session(
        Terminal(no_color=options.no_color), lock_timeout=timeout, expedite=not getattr(options, "no_expedite", False)
    )  # fmt: skip


def seconds(text: str, option: str) -> float:
    """A duration as `90`, `90s`, `5m` or `1h`, in seconds. Raises NkformError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise fail("NK0602", f"{option} {text}: expected a number of seconds, or 90s, 5m, 1h")
    number = float(found[1]) * UNITS[found[2]]
    if number > LONGEST_SECONDS:
        raise fail("NK0602", f"{option} {text}: longer than ten years", hint="try 60s, or 5m")
    return number


def read_spec(options: argparse.Namespace) -> Spec:
    """The spec that the command line names. Raises NkformError."""
    from nkform.spec import load

    variables = {}
    for word in options.var:
        name, equals, value = word.partition("=")
        if not equals:
            raise NkformError(Problem("NK0602", f"--var {word}: expected NAME=VALUE"))
        variables[name] = value
    terminal = Terminal(no_color=options.no_color)
    with timed(terminal, "load"):
        spec = load(
            options.spec, variables=variables, var_files=options.var_file, twice=getattr(options, "strict", False)
        )
    terminal.warn(spec.warnings)
    return spec


def plan_options(options: argparse.Namespace) -> PlanOptions:
    """How the command line wants a spec to be planned."""
    return PlanOptions(
        adopt=getattr(options, "adopt", False),
        targets=tuple(getattr(options, "target", ())),
        engine=options.engine,
        objects=options.objects,
        keep_going=getattr(options, "keep_going", False),
    )


@contextmanager
def programs_of(spec: Spec, options: argparse.Namespace) -> Iterator[Programs | None]:
    """The programs of a spec; problems that leave the block know where in the spec they are. Raises NkformError."""
    from nkform.session.prepared import placed
    from nkform.session.prepared import programs_of as checked

    with placed(spec), checked(spec, getattr(options, "engine", None)) as programs:
        yield programs


def show_plan(
    plan: Plan, options: argparse.Namespace, drift: Mapping[Difference, float | None] | None = None, *,
    aside: bool = False, about: str = "",
) -> None:  # fmt: skip
    """Prints a plan; `aside`: on stderr. `about`: the part of the spec that it is about, in words."""
    from nkform.report.colour import Paint, wanted
    from nkform.report.plan_text import lines

    stream = sys.stderr if aside else sys.stdout
    paint = Paint(wanted(stream, options.no_color))
    shown = lines(
        plan, paint, summary_only=options.summary, verbose=options.verbose, drift=drift or {}, about=about
    )  # fmt: skip
    stream.writelines(shown)
    stream.flush()


def part_of(planned: Planned) -> str:
    """The part of its spec that a plan is about, in words; empty where it is about all of it."""
    if planned.problems:
        return "what can be planned"
    return "the targets" if planned.prepared.options.targets else ""


def agreed(verb: str) -> bool:
    """Asks, where somebody can answer. The machine's lock is not held meanwhile. Raises NkformError."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise fail("NK0603", f"there is no terminal to ask on: run `nkform {verb} -y` to go ahead without a question")
    try:
        answer = input(f"\nDo you want nkform to {verb} this? Only 'yes' goes ahead: ")
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        answer = ""
    if answer.strip() != "yes":
        print(f"{verb.capitalize()} cancelled, nothing was changed.", file=sys.stderr)
        return False
    return True
