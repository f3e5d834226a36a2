"""What is on record of a run that must be confirmed: until when, who watches over it, and what came of it.

The guardian itself is in guardian.py, which takes longer to load and is needed only where such a run is.
"""

from __future__ import annotations

import json

from nkform.apply.journal import UNCONFIRMED, Found, look, read_outcome
from nkform.dataclass import dataclass
from nkform.kernel import clock, rundir
from nkform.kernel.rundir import GUARDIAN

OVERDUE = 5.0
"""Seconds after the time to confirm, by which a guardian has begun to go back, unless it is stopped (SIGSTOP)."""

PENDING = "`nkform confirm` keeps it, `nkform rollback` takes it back"
IN_THE_WAY = "`nkform recover` tells what is in the way, `nkform apply` takes its place"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run that was not confirmed; `problems`: why it could not be taken back, if it could not."""

    token: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Guarded:
    """The run of that token, until a time of CLOCK_BOOTTIME; None: the run is not done."""

    token: str
    until: float | None


def is_alive(node: str) -> bool:
    """Whether a guardian watches over a run of the node. Raises KernelError."""
    return rundir.is_held(node, GUARDIAN)


def has_tried(node: str) -> bool:
    """Whether what nobody confirmed has gone back as far as it could, which was not all. Raises KernelError."""
    found, guarded = look(node, UNCONFIRMED), guarded_by_last(node)
    token = found.entry.token if isinstance(found, Found) else guarded.token if guarded else ""
    done = outcome(node, token)
    return done is not None and bool(done.problems)


def should_go_back(until: float) -> bool:
    """Whether what was to be confirmed until then must be on its way back by now."""
    return clock.since_boot() >= until + OVERDUE


def is_overdue(node: str, token: str, until: float) -> bool:
    """Whether a guardian that lives should have begun to go back, and has not: it is stopped. Raises KernelError."""
    return (
        should_go_back(until)
        and outcome(node, token) is None
        and not rundir.is_held(rundir.MACHINE, rundir.GOING_BACK)
        and not rundir.is_locked()
    )


def outcome(node: str, token: str) -> Outcome | None:
    """What the guardian of a run came to, once it has. Raises KernelError."""
    noted = read_outcome(node)
    return Outcome(token, tuple(map(str, noted["problems"]))) if noted.get("token") == token else None


def guarded_by_last(node: str) -> Guarded | None:
    """What the last guardian of a node guards or guarded; None where there was none. Raises KernelError."""
    text = rundir.read(node, GUARDIAN)
    try:
        said = json.loads(text) if text else None
        return Guarded(str(said["token"]), said["until"]) if said else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return Guarded("", None)


def written(guarded: Guarded) -> str:
    return json.dumps({"token": guarded.token, "until": guarded.until})
