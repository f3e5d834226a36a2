"""Which cycles are run, in which order, and what their reports amount to."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import bare, baseline_ifstate, cycles, witness
from benchmarks.cycles import (
    IFSTATE,
    IPROUTE2,
    IPROUTE2_DEVICES,
    KERNEL,
    NKFORM,
    NKFORM_DEVICES,
    STARTUP,
    Programs,
    Report,
    Request,
)
from benchmarks.measure import DONE
from benchmarks.results import Results
from benchmarks.subject import BARE_READER

LONG = 30.0
"""Seconds: IfState is measured once where a cycle takes longer than that."""

QUIET = 0.1
"""The share of the processor time that other work may take without a word about it."""


def note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Campaign:
    """What is to be measured: IfState with `ifstate_sizes` only, the start of the interpreter `starts` times.

    `large`: so many pairs nkform makes once more, alone (0: not at all). Deleting them takes iproute2 minutes.
    """

    kind: str
    sizes: Sequence[int]
    runs: int
    programs: Programs
    nkform: bool = True
    starts: int = 10
    large: int = 0
    ifstate_sizes: frozenset[int] = frozenset()
    results: Results = field(default_factory=Results)
    references: dict[tuple[str, int], witness.Dump] = field(default_factory=dict)

    def run(self) -> Results:
        if self.nkform:
            self._cycle(STARTUP, self.starts)
        ifstate_ends = True
        for size in self.sizes:
            for number in range(self.runs):
                note(f"{size:,} pairs, run {number + 1} of {self.runs}")
                self._turn(size, first=number == 0)
            if ifstate_ends and size in self.ifstate_sizes:
                ifstate_ends = self._ifstate(size)
        if self.nkform and self.large:
            note(f"{self.large:,} pairs, {NKFORM} alone")
            self._cycle(NKFORM, self.large)
            note(f"{self.large:,} pairs, the kernel alone")
            for measurement in bare.floor(self.large, self.kind):
                note(f"  {measurement.phase} {measurement.wall:.2f} s")
                self.results.add(KERNEL, self.large, measurement)
        if self.kind != "veth":
            self.results.notes.append("IfState knows no netkit devices, so there is nothing to compare with.")
        return self.results

    def _turn(self, size: int, *, first: bool) -> None:
        """One run of one size: iproute2 and nkform in turns. In the first run, what they made is compared."""
        for ours, theirs in ((NKFORM, IPROUTE2), (NKFORM_DEVICES, IPROUTE2_DEVICES)):
            state = self._cycle(theirs, size, witness=first).state
            if first:
                self.references[theirs, size] = state
            if self.nkform:
                made = self._cycle(ours, size, witness=first)
                if first:
                    self._compare(ours, size, made.state, state)

    def _ifstate(self, size: int) -> bool:
        """IfState at one size; whether it ended in time. Where it is slow, one run must do."""
        for number in range(self.runs):
            note(f"{size:,} pairs, {IFSTATE}, run {number + 1} of {self.runs}")
            made = self._cycle(IFSTATE, size, witness=number == 0)
            if number == 0:
                self._compare(IFSTATE, size, made.state, self.references[IPROUTE2, size], baseline_ifstate.CANNOT)
            if made.error or any(each.outcome != DONE for each in made.measurements):
                return False
            if sum(each.wall for each in made.measurements) > LONG:
                break
        return True

    def _cycle(self, side: str, size: int, *, witness: bool = False) -> Report:
        made = cycles.perform(Request(side, size, self.kind, self.programs, witness=witness))
        self.results.other_work.append(made.other_work)
        for measurement in made.measurements:
            measured = KERNEL if measurement.phase == BARE_READER else side
            self.results.add(measured, 0 if side == STARTUP else size, measurement)
        if made.error:
            self._broken(f"{side}, {size} pairs: {made.error}")
        if side != STARTUP:
            busy = f" (other work: {made.other_work:.0%})" if made.other_work > QUIET else ""
            note(f"  {side}: " + ", ".join(f"{m.phase} {m.wall:.2f} s" for m in made.measurements) + busy)
        return made

    def _compare(
        self, side: str, size: int, made: witness.Dump, expected: witness.Dump, ignored: frozenset[str] = frozenset()
    ) -> None:
        """That a side did not make what iproute2 made breaks the run; that a cycle broke off has been said before."""
        if not made or not expected:
            return
        found = witness.differences(made, expected, ignored)
        note(f"  {side}: {'NOT the state' if found else 'the same state'} that iproute2 makes")
        for difference in found[:12]:
            self._broken(f"{side}, {size} pairs, differs from iproute2: {difference}")

    def _broken(self, error: str) -> None:
        self.results.errors.append(error)
        note(f"BROKEN: {error}")
