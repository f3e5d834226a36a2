"""A plan as people read it, in the manner of Terraform: `+`, `~`, `-` and `-/+`, old -> new, and a line that sums
up."""

from __future__ import annotations

from collections.abc import Iterator

from nkform.model import Device, Endpoint, Namespace, Value
from nkform.plan.compare import FieldChange, describe_route
from nkform.plan.plan import Change, Plan
from nkform.report.colour import Paint

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


def render(plan: Plan, paint: Paint, *, summary_only: bool = False) -> str:
    """The whole plan, or only its last line."""
    if plan.empty:
        return f"No changes. The node matches the spec of {plan.node}.\n"
    lines: list[str] = []
    if not summary_only:
        used = [operation for operation in LEGEND if any(c.operation == operation for c in plan.changes)]
        lines.append(f"nkform will perform these actions on {plan.node}:")
        lines += [f"  {paint(f'{SIGN[operation]:>3}', TONE[operation])} {LEGEND[operation]}" for operation in used]
        for change in plan.changes:
            lines += ["", *_change(change, paint)]
        lines.append("")
    lines.append(summary(plan))
    return "\n".join(lines) + "\n"


def summary(plan: Plan) -> str:
    added, changed, destroyed = plan.count()
    return f"Plan: {added} to add, {changed} to change, {destroyed} to destroy."


def _change(change: Change, paint: Paint) -> Iterator[str]:
    because = f" (because {change.reason})" if change.reason else ""
    yield f"  # {change.kind}.{change.name} {SAID[change.operation]}{because}"
    yield f"{paint(f'{SIGN[change.operation]:>3}', TONE[change.operation])} {change.kind} {change.name}"
    if change.operation == "create" and isinstance(change.after, Device):
        rows = list(_device(change.after))
        width = max(len(key) for key, _ in rows)
        for key, value in rows:
            yield f"      {paint('+', 'green')} {key:<{width}} = {value}"
    elif change.operation == "create" and isinstance(change.after, Namespace):
        yield f"      {paint('+', 'green')} create = yes"
    both = {(field.path, field.before, field.after) for field in change.fields if isinstance(field.before, int)}
    for field in change.fields:
        if field.path[0] == "peer" and (field.path[1:], field.before, field.after) in both:
            continue  # a size that both ends have alike is said once
        yield f"      {_field(field, paint)}"


def _field(field: FieldChange, paint: Paint) -> str:
    key = ".".join(field.path)
    forced = paint("  # forces replacement", "red") if field.forces_replacement else ""
    if field.before is None:
        return f"{paint('+', 'green')} {key} = {said(field.after)}{forced}"
    if field.after is None:
        return f"{paint('-', 'red')} {key} = {said(field.before)}{forced}"
    return f"{paint('~', 'yellow')} {key} = {said(field.before)} -> {said(field.after)}{forced}"


def said(value: object) -> str:
    """A value as the spec would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return '""' if value == "" else str(value)


def _device(device: Device) -> Iterator[tuple[str, str]]:
    yield "kind", device.kind
    yield from _values("", {**device.attrs})
    yield from _end("", device.primary)
    if device.peer is not None:
        yield "peer.name", device.peer.name
        yield "peer.namespace", device.peer.namespace or "(this one)"
        shared = {key for key, value in device.peer.attrs.items() if device.primary.attrs.get(key) == value}
        yield from _end("peer.", device.peer, frozenset(shared - {"policy", "scrub", "up", "mac"}))
    for hook, chain in device.chains.items():
        yield f"programs.{hook}", ", ".join(f"{program.name} ({program.digest})" for program in chain.programs)


def _end(prefix: str, end: Endpoint, left_out: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    yield from _values(prefix, {key: value for key, value in end.attrs.items() if key not in left_out})
    if end.addresses:
        yield f"{prefix}addresses", ", ".join(address.text for address in end.addresses)
    for route in end.routes:
        yield f"{prefix}route", describe_route(route)
    for key, value in end.sysctl.items():
        yield f"{prefix}sysctl.{key}", value


def _values(prefix: str, values: dict[str, Value]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        yield f"{prefix}{key}", said(value)
