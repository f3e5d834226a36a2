"""What others lose by a plan: with pairs made anew, peers that move, ends that get too small for IPv6. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType

from nkform.dataclass import replace
from nkform.listing import MANY, enumerated
from nkform.model import IPV6_MIN_MTU, Device, Endpoint
from nkform.namespace_key import described
from nkform.plan import replacement
from nkform.plan.changes import Change, Plan
from nkform.problem import Problem

LOSSES = "NK0426"
NONE: Mapping[str, Collection[str]] = MappingProxyType({})


def replaced(plan: Plan) -> list[Device]:
    """The pairs that a plan makes anew, as they are."""
    return [c.before for c in plan.changes if c.operation == "replace" and isinstance(c.before, Device)]


def remade(plan: Plan) -> list[Device]:
    """The same, as they shall be."""
    return [c.after for c in plan.changes if c.operation == "replace" and isinstance(c.after, Device)]


def leaving(plan: Plan) -> list[Device]:
    """The pairs whose peers go to another namespace, as they are."""
    return [
        c.before
        for c in plan.changes
        if isinstance(c.before, Device) and isinstance(c.after, Device) and _leaves(c.before, c.after)
    ]


def without_ipv6(plan: Plan) -> dict[str, tuple[Device, list[Endpoint]]]:
    """The devices, as they are, with their ends that get an MTU too small for IPv6: the kernel ends it there."""
    ends: dict[str, tuple[Device, list[Endpoint]]] = {}
    for change in plan.changes:
        before = change.before
        if change.operation != "update" or not isinstance(before, Device):
            continue
        for field in change.fields:
            if field.path[-1] == "mtu" and _ends_ipv6(field.before, field.after):
                end = before.peer if field.path[0] == "peer" else before.primary
                if end is not None:
                    ends.setdefault(change.name, (before, []))[1].append(end)
    return ends


def _ends_ipv6(before: object, after: object) -> bool:
    return isinstance(before, int) and isinstance(after, int) and after < IPV6_MIN_MTU <= before


def _leaves(before: Device, after: Device) -> bool:
    return bool(before.peer and after.peer and before.peer.namespace != after.peer.namespace)


def with_losses(plan: Plan, more: Mapping[str, Collection[str]]) -> Plan:
    """A plan whose warnings say what others lose, with what was found out of the pairs that it makes anew or moves."""
    kept = [problem for problem in plan.warnings if problem.code != LOSSES]
    return replace(plan, warnings=(*kept, *losses(plan.changes, more)))


def losses(changes: Collection[Change], more: Mapping[str, Collection[str]] = NONE) -> Iterator[Problem]:
    """What others lose with the pairs that are made anew, and where a peer goes to another namespace; `more` in words,
    by the device's name."""
    for change in changes:
        before, after = change.before, change.after
        if not isinstance(before, Device) or not isinstance(after, Device):
            continue
        if change.operation == "replace":
            some, what = replacement.lost(before, after), f"with the old {before.traits.noun} of {change.name} goes"
        elif before.peer and after.peer and _leaves(before, after):
            some = replacement.left_behind(before, after)
            way = f"from {described(before.peer.namespace)} to {described(after.peer.namespace)}"
            what = f"as {before.peer.name} goes {way}, it loses or leaves behind"
        elif change.name in more:
            some, what = [], f"with the MTU of {change.name} IPv6 ends, and with it goes"
        else:
            continue
        if gone := [*some, *more.get(change.name, ())]:
            yield Problem(
                LOSSES,
                f"{what} what is not nkform's: {enumerated(gone, MANY)}",
                path=("devices", change.name),
                hint="put it back afterwards",
                severity="warning",
            )
