"""Which of a plan is drift: what was applied before and the node has lost, as far as it is on record."""

from __future__ import annotations

from nkform.model import Node
from nkform.observe import record
from nkform.plan.changes import Plan
from nkform.plan.drift import Difference, Notes, against, notes


def drift_of(plan: Plan, live: Node) -> Notes:
    """The differences of a plan that are drift, and since when what they lack was applied. Raises KernelError."""
    changed = {change.name for change in plan.changes if change.kind == "device"}
    known = record.read(plan.node, only=changed)
    if known is None:
        return {}
    live = live.with_devices({name: live.devices[name] for name in live.devices if name in changed})
    back, _ = against(known.node, known.node.devices, live, known.features)
    return notes(plan, back, known.since)


def was_applied(node: str, difference: Difference) -> bool:
    """Whether the object of a difference is one that was applied before. Raises KernelError."""
    known = record.read(node, only=(difference.name,))
    if known is None:
        return False
    objects = known.node.devices if difference.kind == "device" else known.node.namespaces
    return difference.name in objects
