"""Carries out what can be carried out, where something stands in the way of the rest.

First all of it together, which is whole or not at all. Where that fails, one half of the objects and then the other,
and so on: each part is a run of its own, whole or not at all, and what fails in the end are single objects with those
that depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from nkform.dataclass import dataclass
from nkform.kernel.error import KernelError
from nkform.model import Node
from nkform.plan.changes import Plan
from nkform.plan.parts import NOTHING, Name, Without, possible
from nkform.plan.parts import parts as parts_of
from nkform.problem import NkformError, Problem

STOPPED = "NK0507"
"""The code of a run that somebody stopped: no further part is tried then."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the kernel: what shall be, what is, what the kernel can do, and the plan that came of it.

    `without` is what the plan leaves alone, `problems` say why. `desired` says what to look for in maps of programs.
    `given`: what was in the objects of programs that were built elsewhere (Programs.given).
    """

    desired: Node
    live: Node
    features: frozenset[str]
    plan: Plan
    without: Without = NOTHING
    problems: tuple[Problem, ...] = ()
    given: str = ""


class Work(Protocol):
    """What is to be done, and how."""

    def observe(self, without: Without) -> Observation:
        """Looks at the kernel, and plans. Raises NkformError where nothing can be planned, KernelError."""

    def carry_out(self, observation: Observation, *, whole: bool) -> None:
        """Carries a plan out. `whole`: it is all that there is to do. Raises NkformError, KernelError."""


def observation(
    desired: Node,
    live: Node,
    features: frozenset[str],
    build: Callable[[Without], Plan],
    without: Without | None = NOTHING,
) -> Observation:
    """What can be planned, but for what is to be left alone; None: all of it is planned. Raises NkformError."""
    if without is None:
        return Observation(desired, live, features, build(NOTHING))
    plan, alone, problems = possible(build, (desired, live), without)
    return Observation(desired, live, features, plan, alone, problems)


def carry_out(work: Work, observation: Observation) -> tuple[Problem, ...]:
    """Carries out what can be, and returns why the rest could not. Raises NkformError if somebody stopped it."""
    problems = list(observation.problems)
    try:
        work.carry_out(observation, whole=not observation.without)
    except (NkformError, KernelError) as error:
        failed = _problems(error)
        parts = parts_of(observation.plan, (observation.desired, observation.live))
        if len(parts) < 2:
            return tuple(dict.fromkeys([*problems, *failed]))
        problems += _parts(work, observation.without, parts)
    return tuple(dict.fromkeys(problems))


def _parts(work: Work, without: Without, parts: Sequence[frozenset[Name]]) -> list[Problem]:
    """Carries out parts until none of those that are left can be; what was in the way of one may have gone by then."""
    left = list(parts)
    while True:
        failed: dict[frozenset[Name], tuple[Problem, ...]] = {}
        _halves(work, without, left, left, failed)
        if not failed or len(failed) == len(left):
            return [problem for problems in failed.values() for problem in problems]
        left = list(failed)


def _halves(
    work: Work,
    without: Without,
    all_parts: Collection[frozenset[Name]],
    parts: Sequence[frozenset[Name]],
    failed: dict[frozenset[Name], tuple[Problem, ...]],
) -> None:
    middle = (len(parts) + 1) // 2
    for half in (parts[:middle], parts[middle:]):
        if not half:
            continue
        others = frozenset[Name]().union(*(part for part in all_parts if part not in half)).difference(*half)
        try:
            part = work.observe(without | others)
            if part.problems:
                raise NkformError(*part.problems)
            work.carry_out(part, whole=False)
        except (NkformError, KernelError) as error:
            if len(half) > 1:
                _halves(work, without, all_parts, half, failed)
            else:
                failed[half[0]] = _problems(error)


def _problems(error: NkformError | KernelError) -> tuple[Problem, ...]:
    """Raises the error where somebody stopped the run."""
    if isinstance(error, KernelError):
        return (Problem("NK0501", f"could not {error}"),)
    if any(problem.code == STOPPED for problem in error.problems):
        raise error
    return tuple(problem for problem in error.problems if problem.severity == "error")
