"""Drift: what differs from the spec because the node was changed, and not the spec. Pure.

There are two plans for a node: what the spec asks for, and what was asked for when it was last applied. A change that
both would make is drift; what only the first would make came with the spec. No plan depends on the second: it explains.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nkform.dataclass import dataclass, replace
from nkform.model import Attached, Device, Hook, Node
from nkform.plan.changes import Change, Operation, Plan
from nkform.plan.compare import FieldChange
from nkform.plan.plan import build, fields
from nkform.problem import NkformError, Problem

Since = Mapping[str, Mapping[str, float]]
"""When each value was first applied, in seconds since 1970.

By object (`device.NAME`, `namespace.NAME`), and there by field; what is not named has been so since the object's
first apply, which stands under the empty name.
"""

WHOLE = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which the node is not as declared.

    `create`: the object is gone; `destroy`: it is there and should not be; else `field` says what differs, or `problem`
    what stands in the way of comparing.
    """

    kind: str
    name: str
    operation: Operation
    field: FieldChange | None = None
    problem: str = ""

    @property
    def place(self) -> tuple[str, str, str]:
        """Where the difference is: an object's kind and name, and its field or WHOLE."""
        return self.kind, self.name, _key(self.field) if self.field else WHOLE


Notes = Mapping[Difference, float | None]
"""Differences that are drift, and since when the value was applied that the node has lost; None: nobody applied any."""


def differences(plan: Plan, problems: Collection[Problem] = ()) -> list[Difference]:
    """All that a plan would change, and what stood in the way of planning, one by one, in the plan's order."""
    found = [difference for change in plan.changes for difference in told(change)]
    for problem in problems:
        kind, name = problem.path[:2] if problem.path and len(problem.path) > 1 else ("nodes", plan.node)
        found.append(Difference(str(kind).removesuffix("s"), str(name), "update", problem=problem.message))
    return found


def told(change: Change) -> Iterator[Difference]:
    """The differences of one object as people are told: a size that both ends have alike is one, not two."""
    both = {(field.path, field.before, field.after) for field in change.fields if isinstance(field.before, int)}
    for each in every(change):
        field = each.field
        if not field or field.path[0] != "peer" or (field.path[1:], field.before, field.after) not in both:
            yield each


def every(change: Change) -> Iterator[Difference]:
    """The differences of one object: that it comes or goes, or field by field."""
    if change.operation in ("create", "destroy"):
        yield Difference(change.kind, change.name, change.operation)
    for field in change.fields:
        yield Difference(change.kind, change.name, "update", field)


def against(
    desired: Node, devices: Mapping[str, Device], live: Node, features: Collection[str]
) -> tuple[Plan, tuple[Problem, ...]]:
    """The plan that leads back to devices as they were resolved, and what stands in its way.

    Unlike a plan that is to be carried out it goes on past objects that cannot be had, without these objects.
    """
    problems: list[Problem] = []
    there = dict(devices)
    while True:
        try:
            plan = build(desired, live, features=features, adopt=True, resolved=there)
            return plan, tuple(problems)
        except NkformError as error:
            errors = [problem for problem in error.problems if problem.severity == "error"]
        problems += errors
        stuck = {problem.path[:2] for problem in errors if problem.path}
        if not any(path[0] in ("devices", "namespaces") for path in stuck):
            return Plan(desired.name), tuple(problems)
        there = {name: device for name, device in there.items() if ("devices", name) not in stuck}
        spaces = {name: space for name, space in desired.namespaces.items() if ("namespaces", name) not in stuck}
        desired = replace(desired, namespaces=spaces)


def notes(plan: Plan, back: Plan, since: Since) -> Notes:
    """Which of a plan's differences are drift: those that the plan back to what was applied has too."""
    drifted = {each for change in back.changes for each in every(change)}
    found = [each for change in plan.changes for each in every(change)]
    return {each: applied_since(each, since) for each in found if each in drifted}


def applied_since(difference: Difference, since: Since) -> float | None:
    """When what a difference lacks was first applied; None where it never was."""
    known = since.get(f"{difference.kind}.{difference.name}", {})
    if difference.operation == "destroy":
        return None
    return known.get(_key(difference.field) if difference.field else WHOLE, known.get(WHOLE))


def by_object(found: list[Difference], since: Since) -> dict[tuple[str, str], list[tuple[Difference, float | None]]]:
    """Differences with their times, by kind and name of their object."""
    grouped: dict[tuple[str, str], list[tuple[Difference, float | None]]] = {}
    for each in found:
        grouped.setdefault((each.kind, each.name), []).append((each, applied_since(each, since)))
    return grouped


def _key(field: FieldChange) -> str:
    """What a field is called in a `Since`; addresses and routes are many under one path."""
    key = ".".join(field.path)
    many = field.path[-1] in ("addresses", "routes")
    return f"{key} {field.before if field.after is None else field.after}" if many else key


def brought_forward(before: Node, known: Since, after: Node, now: float) -> dict[str, dict[str, float]]:
    """Since when each value of `after` is applied, which follows `before`: what stays the same keeps its time."""
    found: dict[str, dict[str, float]] = {}
    for name in after.namespaces:
        space = f"namespace.{name}"
        found[space] = dict(known.get(space, {WHOLE: now}))
    for name, device in after.devices.items():
        key, old = f"device.{name}", before.devices.get(name)
        if old is None or key not in known:
            found[key] = {WHOLE: now}
        else:
            changed = () if old == device else _changed(old, device)
            found[key] = {**known[key], **dict.fromkeys(changed, now)}
    return found


def _changed(before: Device, after: Device) -> Iterator[str]:
    """The fields that differ between two declared devices: what one asks of a node that is as the other says."""
    hooks = {
        hook: Hook(tuple(Attached(0, place, p.name, p.digest, True) for place, p in enumerate(chain.programs)))
        for hook, chain in before.chains.items()
    }
    yield from (_key(field) for field in fields(after, replace(before, hooks=hooks), legacy=False))
    for hook, chain in after.chains.items():
        if hook in before.chains and before.chains[hook].position != chain.position:
            yield f"programs.{hook}.position"
