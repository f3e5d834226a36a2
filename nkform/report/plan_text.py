"""A plan as people read it, in the manner of Terraform: `+`, `~`, `-` and `-/+`, old -> new, and a line that sums
up."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from nkform.attributes import BY_NAME, Attribute
from nkform.model import Device, Endpoint, Namespace, Program, Value
from nkform.plan.chains import DEFAULT
from nkform.plan.changes import Change, Plan
from nkform.plan.compare import FieldChange
from nkform.plan.drift import Difference, Notes, told
from nkform.report.colour import Paint
from nkform.report.drift_text import note, value
from nkform.report.drift_text import summary as drift_summary

SIGN = {"create": "+", "update": "~", "destroy": "-", "replace": "-/+"}
TONE = {"create": "green", "update": "yellow", "destroy": "red", "replace": "red"}
LEGEND = {
    "create": "create",
    "update": "update in place",
    "replace": "replace by a new one, built beside the old one or after it",
    "destroy": "destroy",
}
SAID = {
    "create": "will be created",
    "update": "will be updated in place",
    "replace": "must be replaced",
    "destroy": "will be destroyed",
}
NO_DRIFT: Notes = MappingProxyType({})


def render(
    plan: Plan, paint: Paint, *, summary_only: bool = False, verbose: bool = False, drift: Notes = NO_DRIFT
) -> str:
    """The text of `lines`."""
    return "".join(lines(plan, paint, summary_only=summary_only, verbose=verbose, drift=drift))


def lines(
    plan: Plan,
    paint: Paint,
    *,
    summary_only: bool = False,
    verbose: bool = False,
    drift: Notes = NO_DRIFT,
    about: str = "",
) -> Iterator[str]:
    """The whole plan, or only the lines that sum it up; `drift` says which of it is the node's change. `verbose`: with
    the order in which programs are attached. `about`: the part of the spec that it is about, in
    words; all of it by default.

    Line by line, each with its end: taken as they come, those of ten thousand devices take no memory.
    """
    if plan.empty:
        yield f"{_nothing(plan, about)}\n"
        return
    if not summary_only:
        used = [operation for operation in LEGEND if any(c.operation == operation for c in plan.changes)]
        yield f"nkform will perform these actions on {plan.node}:\n"
        yield from (f"  {paint(f'{SIGN[operation]:>3}', TONE[operation])} {LEGEND[operation]}\n" for operation in used)
        steps: dict[str, list[str]] = {}
        if verbose:
            from nkform.report.steps_text import by_device

            steps = by_device(plan)
        for change in plan.changes:
            yield "\n"
            yield from (f"{line}\n" for line in _change(change, paint, drift))
            if change.kind == "device" and change.name in steps:
                yield "      in this order:\n"
                yield from (f"        {line}\n" for line in steps[change.name])
        yield "\n"
    yield f"{summary(plan)}\n"
    if drifted := sum(each in drift for change in plan.changes for each in told(change)):
        yield f"{drift_summary(drifted)}\n"


def _nothing(plan: Plan, about: str) -> str:
    """What to say of a plan without changes."""
    match plan.aim:
        case "spec" if about:
            return f"No changes to {about} of the spec of {plan.node}."
        case "spec":
            return f"No changes. The node matches the spec of {plan.node}."
        case "before":
            return f"No changes. {plan.node} is as it was before."
    rest = " but what is left in place" if plan.warnings else f": nothing here belongs to {plan.node}"
    return f"Nothing to destroy{rest}."


def summary(plan: Plan) -> str:
    added, changed, destroyed = plan.count()
    return f"Plan: {added} to add, {changed} to change, {destroyed} to destroy."


def _change(change: Change, paint: Paint, drift: Notes) -> Iterator[str]:
    because = f" (because {change.reason})" if change.reason else ""
    differing = list(told(change))
    whole = "".join(_drift(each, drift, paint) for each in differing if each.field is None)
    yield f"  # {change.kind}.{change.name} {_said(change)}{because}{whole}"
    yield f"{paint(f'{SIGN[change.operation]:>3}', TONE[change.operation])} {change.kind} {change.name}"
    if change.operation == "create" and isinstance(change.after, Device):
        rows = list(_device(change.after))
        width = max(len(key) for key, _ in rows)
        for key, text in rows:
            yield f"      {paint('+', 'green')} {key:<{width}} = {text}"
    elif change.operation == "create" and isinstance(change.after, Namespace):
        yield f"      {paint('+', 'green')} create = true"
    for each in differing:
        if each.field is not None:
            yield f"      {_field(each.field, paint)}{_drift(each, drift, paint)}"


def _said(change: Change) -> str:
    match change.fields:
        case (FieldChange(("owner",), None, _), *more):
            return "will be adopted, and updated in place" if more else "will be adopted"
    return SAID[change.operation]


def _drift(difference: Difference, drift: Notes, paint: Paint) -> str:
    """The remark at a line that is drift."""
    if difference not in drift:
        return ""
    return paint(f"  # drift: {note(difference, drift[difference])}", "cyan")


def _field(field: FieldChange, paint: Paint) -> str:
    key = ".".join(field.path)
    forced = paint("  # forces replacement", "red") if field.forces_replacement else ""
    before, after = (_spelled(field, each) for each in (field.before, field.after))
    if field.before is None:
        return f"{paint('+', 'green')} {key} = {after}{forced}"
    if field.after is None:
        return f"{paint('-', 'red')} {key} = {before}{forced}"
    return f"{paint('~', 'yellow')} {key} = {before} -> {after}{forced}"


def _spelled(field: FieldChange, what: object) -> str:
    """One side of a difference as a spec would have it."""
    match field.path:
        case ("programs", _, "default") if None in (field.before, field.after):
            return "drop"
        case (*_, "namespace"):
            return _place(str(what))
    return value(what)


def _place(namespace: str) -> str:
    return namespace or "(this one)"


def _device(device: Device) -> Iterator[tuple[str, str]]:
    yield "kind", device.kind
    yield from _values("", {**device.attrs})
    yield from _end("", device.primary)
    if device.peer is not None:
        yield "peer.name", device.peer.name
        yield "peer.namespace", _place(device.peer.namespace)
        shared = {key for key, one in device.peer.attrs.items() if device.primary.attrs.get(key) == one}
        yield from _end("peer.", device.peer, frozenset(key for key in shared if _is_said_once(BY_NAME[key])))
    for hook, chain in device.chains.items():
        yield f"programs.{hook}", ", ".join(map(_program, chain.programs))


def _program(program: Program) -> str:
    """A program of a new device; the one that ends a chain with `default: drop`, or stands in for a policy, as such."""
    return "default: drop" if program.name == DEFAULT else f"{program.name} ({program.digest})"


def _is_said_once(row: Attribute) -> bool:
    """Whether what both ends have is told of the primary alone: one value of both, or what the peer takes from it."""
    return row.place == "pair" or (row.inherit and row.default is None)


def _end(prefix: str, end: Endpoint, left_out: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    yield from _values(prefix, {key: one for key, one in end.attrs.items() if key not in left_out})
    for address in end.addresses:
        yield f"{prefix}addresses", address.text
    for route in end.routes:
        yield f"{prefix}routes", route.text
    for key, text in end.sysctl.items():
        yield f"{prefix}sysctl.{key}", text


def _values(prefix: str, values: dict[str, Value]) -> Iterator[tuple[str, str]]:
    for key, one in values.items():
        yield f"{prefix}{key}", value(one)
