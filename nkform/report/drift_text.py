"""Drift in words: what a node has and what it should have, and since when."""

from __future__ import annotations

from datetime import UTC, datetime

from nkform.plan.compare import FieldChange
from nkform.plan.drift import Difference


def moment(when: float) -> str:
    """A time of the local clock to the minute."""
    return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d %H:%M")


def clock(when: float) -> str:
    """A time of the local clock to the second."""
    return datetime.fromtimestamp(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(when: float) -> str:
    """A time as programs read it: ISO 8601, UTC, to the millisecond."""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds")


def value(what: object) -> str:
    """A value as the spec would have it."""
    if isinstance(what, bool):
        return "true" if what else "false"
    return '""' if what == "" else str(what)


def note(difference: Difference, since: float | None) -> str:
    """What is wrong, without the name of what it is wrong with."""
    ever = f" since {moment(since)}" if since is not None else ""
    match difference:
        case Difference(operation="create"):
            return f"not on the node, in the spec{ever}"
        case Difference(operation="destroy"):
            return "on the node, not in the spec"
        case Difference(field=FieldChange(before=None)):
            return f"not on the node, in the spec{ever}"
        case Difference(field=FieldChange(after=None)):
            return f"on the node, not in the spec{ever}"
        case Difference(field=FieldChange(before=before, after=after)):
            return f"{value(before)} on the node, {value(after)} in the spec{ever}"
    return difference.problem


def subject(difference: Difference) -> str:
    """What of an object differs; empty for all of it."""
    field = difference.field
    if field is None:
        return ""
    key = ".".join(field.path)
    if field.before is None or field.after is None:
        return f"{key} {value(field.after if field.before is None else field.before)}"
    return key


def said(difference: Difference, since: float | None = None) -> str:
    """A difference in one line, without its object's name."""
    return f"{subject(difference)} {note(difference, since)}".strip()


def summary(count: int) -> str:
    """How much of a plan is drift."""
    return f"{count} of these differences {'is' if count == 1 else 'are'} drift: the node was changed, not the spec."


def as_dict(difference: Difference, since: float | None) -> dict[str, object]:
    """A difference for programs: `node` is what is there, `spec` what should be."""
    field = difference.field
    return {
        "kind": difference.kind,
        "name": difference.name,
        "operation": difference.operation,
        "path": list(field.path) if field else [],
        "node": field.before if field else None,
        "spec": field.after if field else None,
        "since": iso(since) if since is not None else None,
        "text": said(difference, since),
    }
