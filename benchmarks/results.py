"""The figures of one run of the benchmark, and what the project has promised about them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.bare import MADE, UNMADE
from benchmarks.baseline_ip import DEVICES as IP_DEVICES
from benchmarks.baseline_ip import DEVICES_READ
from benchmarks.cycles import IFSTATE, IPROUTE2, IPROUTE2_DEVICES, KERNEL, NKFORM, NKFORM_DEVICES, STARTUP
from benchmarks.measure import DONE, Measurement
from benchmarks.subject import (
    APPLY,
    BARE_READER,
    DESTROY,
    DEVICES,
    PLAN_EMPTY,
    PLAN_NOOP,
    PLAN_ONE,
    PYTHON,
    SHOW,
    VERSION,
)

ORDER = (NKFORM, KERNEL, IPROUTE2, NKFORM_DEVICES, IPROUTE2_DEVICES, IFSTATE)
SCALED = (PLAN_EMPTY, APPLY, PLAN_NOOP, PLAN_ONE, SHOW, DESTROY)
ALONE = {APPLY: MADE, DESTROY: UNMADE, **dict.fromkeys((PLAN_NOOP, PLAN_ONE, SHOW), BARE_READER)}
"""What the kernel alone does for a phase."""
"""Phases that the kernel's part of is measured alone."""
SMALL, USUAL, LARGE = 10, 1000, 9000


@dataclass(frozen=True)
class Figure:
    """A phase over all runs: medians of seconds, CPU seconds and peak MB; the seconds of each run.

    `timings` are the milliseconds of the parts of the program.
    """

    wall: float
    cpu: float
    peak: float
    runs: Sequence[float]
    outcome: str = DONE
    timings: Mapping[str, float] = field(default_factory=dict)


def _figure(measurements: Sequence[Measurement]) -> Figure:
    """The medians; a phase that did not end in one run did not end."""
    names = dict.fromkeys(name for each in measurements for name in each.timings)
    return Figure(
        wall=round(statistics.median(each.wall for each in measurements), 4),
        cpu=round(statistics.median(each.cpu for each in measurements), 4),
        peak=round(statistics.median(each.peak for each in measurements), 1),
        runs=tuple(round(each.wall, 4) for each in measurements),
        outcome=next((each.outcome for each in measurements if each.outcome != DONE), DONE),
        timings={
            name: round(statistics.median(each.timings.get(name, 0.0) for each in measurements), 2) for name in names
        },
    )


@dataclass(frozen=True)
class Figures:
    """Figures by side, size and phase, in the order in which they were measured."""

    by_side: Mapping[str, Mapping[int, Mapping[str, Figure]]]

    def get(self, side: str, size: int, phase: str) -> Figure | None:
        return self.by_side.get(side, {}).get(size, {}).get(phase)

    def sizes(self) -> list[int]:
        return sorted({size for side in ORDER for size in self.by_side.get(side, {})})

    def compared(self) -> int:
        """The largest size that nkform has somebody beside it at."""
        return max(self.by_side.get(IPROUTE2, self.by_side.get(NKFORM, {})), default=0)

    def phases(self, side: str) -> list[str]:
        return list(dict.fromkeys(phase for phases in self.by_side.get(side, {}).values() for phase in phases))

    def as_json(self) -> dict[str, Any]:
        return {
            side: {
                str(size): {phase: asdict(figure) for phase, figure in phases.items()} for size, phases in sizes.items()
            }
            for side, sizes in self.by_side.items()
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Figures:
        return cls(
            {
                side: {
                    int(size): {phase: Figure(**fields) for phase, fields in phases.items()}
                    for size, phases in sizes.items()
                }
                for side, sizes in data.items()
            }
        )


@dataclass
class Results:
    """What is measured, as it comes in; and what went wrong.

    `other_work` is the share of the processor time that other work took before each cycle.
    """

    measurements: dict[str, dict[int, dict[str, list[Measurement]]]] = field(default_factory=dict)
    other_work: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, side: str, size: int, measurement: Measurement) -> None:
        phases = self.measurements.setdefault(side, {}).setdefault(size, {})
        phases.setdefault(measurement.phase, []).append(measurement)

    def figures(self) -> Figures:
        return Figures(
            {
                side: {
                    size: {phase: _figure(measured) for phase, measured in phases.items()}
                    for size, phases in sizes.items()
                }
                for side, sizes in self.measurements.items()
            }
        )

    def busy(self) -> float:
        """The share of the processor time that other work took before the cycles."""
        return round(statistics.median(self.other_work), 3)


@dataclass(frozen=True)
class Target:
    """A promise and what came of it; `met` is None where it was not measured."""

    promise: str
    limit: str
    measured: str
    met: bool | None


def targets(figures: Figures) -> Iterator[Target]:
    """All promises; they hold for veth on a machine of the development kind."""

    def wall(side: str, size: int, phase: str) -> float | None:
        figure = figures.get(side, size, phase)
        return figure.wall if figure and figure.outcome == DONE else None

    def peak(size: int) -> float | None:
        known = [figure for phase in figures.phases(NKFORM) if (figure := figures.get(NKFORM, size, phase))]
        return max((figure.peak for figure in known), default=None)

    yield _ratio(
        f"apply of {USUAL:,} pairs, namespaces included, against iproute2",
        0.5,
        wall(NKFORM, USUAL, APPLY),
        wall(IPROUTE2, USUAL, "make"),
    )
    devices = wall(NKFORM_DEVICES, USUAL, DEVICES)
    apply = f"apply of {USUAL:,} devices in namespaces that exist, against `ip -batch`"
    yield _ratio(apply, 1.5, devices, wall(IPROUTE2_DEVICES, USUAL, IP_DEVICES))
    yield _ratio(f"{apply} with both ends read back", 0.3, devices, wall(IPROUTE2_DEVICES, USUAL, DEVICES_READ))
    yield _ratio(
        f"destroy of {USUAL:,} pairs, against `ip -batch`",
        0.2,
        wall(NKFORM, USUAL, DESTROY),
        wall(IPROUTE2, USUAL, "delete"),
    )
    for size, limit in ((USUAL, 0.30), (SMALL, 0.08)):
        yield _below(f"plan with nothing to do, {size:,} pairs", limit, wall(NKFORM, size, PLAN_NOOP), "s")
    for phase in SCALED:
        promise = f"{phase}: {USUAL:,} pairs against 100"
        yield _ratio(promise, 12, wall(NKFORM, USUAL, phase), wall(NKFORM, 100, phase))
    for phase in SCALED:
        ours, usual = wall(NKFORM, LARGE, phase), wall(NKFORM, USUAL, phase)
        grown = _ratio(f"{phase}: {LARGE:,} pairs against {USUAL:,}", 11, ours, usual)
        alone = wall(KERNEL, LARGE, ALONE[phase]) if phase in ALONE else None
        yield _either(grown, "the kernel alone", 1.3, ours, alone)
    for size, limit in ((USUAL, 60), (LARGE, 350)):
        yield _below(f"peak memory at {size:,} pairs, all phases", limit, peak(size), "MB")
    version, python = (figures.get(STARTUP, 0, phase) for phase in (VERSION, PYTHON))
    more = 1000 * (version.wall - python.wall) if version and python else None
    yield _below("`nkform --version` beyond `python -c pass`", 60, more, "ms")


def _either(target: Target, other: str, limit: float, ours: float | None, theirs: float | None) -> Target:
    """A promise that is kept as well where the time is at most so many times that of something else."""
    if ours is None or theirs is None:
        return target
    return Target(
        target.promise,
        f"{target.limit}, or ≤ {limit:g} × {other}",
        f"{target.measured}; {ours / theirs:.2f} × ({theirs:.3g} s)",
        target.met or ours / theirs <= limit,
    )


def _ratio(promise: str, limit: float, ours: float | None, theirs: float | None) -> Target:
    if ours is None or theirs is None:
        return Target(promise, f"≤ {limit:g} ×", "not measured", None)
    return Target(
        promise,
        f"≤ {limit:g} ×",
        f"{ours / theirs:.2f} × ({ours:.3g} s, {theirs:.3g} s)",
        ours / theirs <= limit,
    )


def _below(promise: str, limit: float, value: float | None, unit: str) -> Target:
    if value is None:
        return Target(promise, f"≤ {limit:g} {unit}", "not measured", None)
    return Target(promise, f"≤ {limit:g} {unit}", f"{value:.3g} {unit}", value <= limit)
