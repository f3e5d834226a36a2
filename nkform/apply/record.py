"""Keeps on record what was applied, so that a changed node can be told from a changed spec (plan/drift.py)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from nkform.kernel import clock
from nkform.kernel.place import place
from nkform.model import Device, Namespace, Node
from nkform.observe import record
from nkform.observe.record import Record
from nkform.plan.changes import Plan
from nkform.plan.drift import brought_forward


def note(
    plan: Plan, desired: Node, *, features: Collection[str], files: Sequence[str], targets: Collection[str] = ()
) -> None:
    """Notes that a plan was carried out, or that there was nothing to do. Raises KernelError.

    With targets all other devices stay on record as they are. What is on record already is not written again, and
    keeps its time.
    """
    before = record.read(plan.node)
    was = before.node if before else Node(plan.node)
    namespaces, devices = dict(desired.namespaces), dict(plan.devices)
    if targets:
        namespaces = {**was.namespaces, **_needed(desired, devices)}
        devices = {**{name: device for name, device in was.devices.items() if name not in targets}, **devices}
    after = Node(plan.node, namespaces, devices)
    if before and (before.node, set(before.features), before.files) == (after, set(features), tuple(files)):
        return
    now = clock.now()
    since = brought_forward(was, before.since if before else {}, after, now)
    record.note(Record(now, tuple(files), after, tuple(sorted(features)), place(), since))


def _needed(desired: Node, devices: Mapping[str, Device]) -> dict[str, Namespace]:
    """The declared namespaces that some devices lead to."""
    keys = {end.namespace for device in devices.values() for end in device.ends}
    return {name: space for name, space in desired.namespaces.items() if name in keys}
