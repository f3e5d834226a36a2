"""The order of attachment at a hook, for people: what `plan --verbose` adds."""

from __future__ import annotations

from collections.abc import Iterator

from nkform.model import Attached, First, Last
from nkform.plan.actions import (
    AfterEntry,
    AfterNew,
    Attach,
    BeforeClosing,
    BeforeEntry,
    Close,
    Detach,
    Entry,
    Open,
    SetChain,
    SetMap,
    Step,
    Update,
    Where,
)
from nkform.plan.changes import Plan


def by_device(plan: Plan) -> dict[str, list[str]]:
    """The steps of each device's hooks, in the order in which they are taken."""
    found: dict[str, list[str]] = {}
    for action in plan.actions:
        if isinstance(action, SetChain):
            found.setdefault(action.device.name, []).extend(lines(action))
        elif isinstance(action, SetMap):
            text = f"{action.hook}: change entries of the map {action.after.map} of {action.program}"
            found.setdefault(action.device.name, []).append(text)
    return found


def lines(action: SetChain) -> Iterator[str]:
    """One line a step."""
    for step in action.steps:
        yield f"{action.hook}: {_said(step, action)}"


def _said(step: Step, action: SetChain) -> str:
    match step:
        case Attach(backend, name, _, where):
            return f"attach {name} {_place(where, action)}" + (" (tc)" if backend == "tc" else "")
        case Update(_, name, _, entry):
            return f"put the new {name} into the place of {_named(entry)}"
        case Detach(backend, entry):
            return f"detach {_named(entry)}" + (" (tc)" if backend == "tc" else "")
        case Close():
            return "attach a program that drops, last, until the chain is complete"
        case Open():
            return "detach the program that drops"


def _place(where: Where, action: SetChain) -> str:
    match where:
        case First():
            return "first"
        case Last():
            return "last"
        case AfterNew(number):
            return f"after {action.after.programs[number].name}"
        case AfterEntry(entry):
            return f"after {_entry(entry, action)}"
        case BeforeEntry(entry):
            return f"before {_entry(entry, action)}"
        case BeforeClosing():
            return "before the program that drops"


def _entry(entry: Entry, action: SetChain) -> str:
    for there in (*action.before.linked, *action.before.filters):
        if entry.place == there.place if entry.place else entry.program_id == there.program_id:
            return _named(there)
    return f"program {entry.program_id}"


def _named(entry: Attached) -> str:
    """A program that is there; one of others by its id, too."""
    return f"the old {entry.name}" if entry.ours else f"{entry.name} (id {entry.program_id})"
