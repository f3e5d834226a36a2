"""Carries out what can be carried out, where something stands in the way of the rest.

First all of it together, which is whole or not at all. Where that fails, one half of the objects and then the other,
and so on: each part is a run of its own, whole or not at all, and what fails in the end are single objects with those
that depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol, TypeVar

from nkform.dataclass import dataclass
from nkform.kernel.error import KernelError
from nkform.model import Node
from nkform.plan.changes import Plan
from nkform.plan.parts import NOTHING, Name, Without, possible
from nkform.plan.parts import parts as parts_of
from nkform.problem import NkformError, Problem

STOPPED = "NK0507"
"""The code of a run that somebody stopped: no further part is tried then."""


class Planned(Protocol):
    """What was planned in one look at the kernel, and what was left alone, and why."""

    @property
    def desired(self) -> Node: ...

    @property
    def live(self) -> Node: ...

    @property
    def plan(self) -> Plan: ...

    @property
    def without(self) -> Without: ...

    @property
    def problems(self) -> tuple[Problem, ...]: ...


L = TypeVar("L", bound=Planned)


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the kernel: what shall be, what is, and the plan of all that nothing stands in the way of.

    `without` is what the plan leaves alone, `problems` say why.
    """

    desired: Node
    live: Node
    plan: Plan
    without: Without
    problems: tuple[Problem, ...]


class Work(Protocol[L]):
    """What is to be done, and how."""

    def look(self, without: Without) -> L:
        """Looks at the kernel, and plans. Raises NkformError where nothing can be planned, KernelError."""

    def carry_out(self, look: L, *, whole: bool) -> None:
        """Carries a plan out. `whole`: it is all that there is to do. Raises NkformError, KernelError."""


def planned(desired: Node, live: Node, build: Callable[[Without], Plan], without: Without = NOTHING) -> Look:
    """What can be planned of it. Raises NkformError."""
    plan, alone, problems = possible(build, (desired, live), without)
    return Look(desired, live, plan, alone, problems)


def carry_out(work: Work[L], look: L) -> tuple[Problem, ...]:
    """Carries out what can be, and returns why the rest could not. Raises NkformError if somebody stopped it."""
    problems = list(look.problems)
    try:
        work.carry_out(look, whole=not look.without)
    except (NkformError, KernelError) as error:
        failed = _problems(error)
        parts = parts_of(look.plan, (look.desired, look.live))
        if len(parts) < 2:
            return tuple(dict.fromkeys([*problems, *failed]))
        problems += _parts(work, look.without, parts)
    return tuple(dict.fromkeys(problems))


def _parts(work: Work[L], without: Without, parts: Sequence[frozenset[Name]]) -> list[Problem]:
    """Carries out parts until none of those that are left can be; what was in the way of one may have gone by then."""
    left = list(parts)
    while True:
        failed: dict[frozenset[Name], tuple[Problem, ...]] = {}
        _halves(work, without, left, left, failed)
        if not failed or len(failed) == len(left):
            return [problem for problems in failed.values() for problem in problems]
        left = list(failed)


def _halves(
    work: Work[L],
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
            look = work.look(without | others)
            if look.problems:
                raise NkformError(*look.problems)
            work.carry_out(look, whole=False)
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
