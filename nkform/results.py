"""What is told of a node and of a machine: typed, for programs and for the texts of report/. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from nkform.dataclass import dataclass
from nkform.plan.drift import Difference

State = Literal["ok", "missing", "unknown"]

Numbers = Mapping[str, Mapping[str, Mapping[str, int]]]
"""By map, key and field."""

Drifted = tuple[Difference, float | None]
"""A difference, and since when what it lacks is applied (seconds since 1970; None: not known)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that `doctor` looked at: whether it is there, and what to do if it is not."""

    name: str
    state: State
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """A program at a hook; `place` is its link's id, or with `way` tc its filter's priority. `time` in ns.

    `digest` is empty where somebody put another program in its place; `kernel_name` is what the kernel calls what runs.
    """

    name: str
    template: str
    way: str
    place: int
    program_id: int
    digest: str
    kernel_name: str
    count: int
    time: int
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """A device: its kind, whether both ends are up, and the programs of its hooks, foreign ones by name.

    `drift`: in what it is not as it was applied.
    """

    name: str
    kind: str
    peer: str
    up: bool
    hooks: Mapping[str, Sequence[ProgramStatus | str]]
    drift: Sequence[Drifted] = ()


@dataclass(frozen=True, slots=True)
class LastApplied:
    """What is on record: when the last apply was (seconds since 1970), and drift of what is no device here now."""

    when: float
    elsewhere: Sequence[Drifted] = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """An apply of a node that waits to be confirmed: when it was (seconds since 1970), and how many seconds are left.

    `problems`: nobody confirmed it, and that is why not all of it could go back.
    """

    node: str
    when: float
    left: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Status:
    """A node's devices and programs at work; `applied` is None where nothing is on record here. `pending`: what waits
    to be confirmed on this machine, of any node."""

    node: str
    devices: Sequence[DeviceStatus]
    applied: LastApplied | None
    pending: Sequence[Pending] = ()
