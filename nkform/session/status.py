"""What a node's devices and programs are doing, and how they drift from what was applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nkform.model import Attached, Device, Explanation, Hook, Node
from nkform.observe.explanations import Known
from nkform.observe.record import Record
from nkform.results import DeviceStatus, Drifted, LastApplied, ProgramStatus, Status

if TYPE_CHECKING:
    from nkform.kernel.netns import Namespaces


def status(namespaces: Namespaces, node: str) -> Status:
    """Raises KernelError."""
    from nkform.observe import explanations, record
    from nkform.observe.node import observe
    from nkform.session.node import pending

    applied = record.read(node)
    live = observe(namespaces, node, applied.node if applied else None)
    known = explanations.Known(explanations.read(node))
    drift = _drift(applied, live) if applied else {}
    devices = [_device(device, known, drift.pop(("device", device.name), ())) for device in live.devices.values()]
    last = LastApplied(applied.when, [each for some in drift.values() for each in some]) if applied else None
    return Status(node, devices, last, pending())


def _drift(applied: Record, live: Node) -> dict[tuple[str, str], Sequence[Drifted]]:
    """In what the node is not as it was applied, by kind and name of the object."""
    from nkform.plan.drift import against, by_object, differences

    back, problems = against(applied.node, applied.node.devices, live, applied.features)
    return {**by_object(differences(back, problems), applied.since)}


def _device(device: Device, known: Known, drift: Sequence[Drifted]) -> DeviceStatus:
    peer = device.peer
    return DeviceStatus(
        device.name,
        device.kind,
        f"{peer.name} in {peer.namespace}" if peer and peer.namespace else peer.name if peer else "",
        all(bool(end.attrs.get("up", True)) for end in device.ends),
        {name: _hook(device.name, name, hook, known) for name, hook in device.hooks.items()},
        drift,
    )


def _hook(device: str, name: str, hook: Hook, known: Known) -> list[ProgramStatus | str]:
    entries = [(entry, "link") for entry in hook.linked] + [(entry, "tc") for entry in hook.filters]
    found = (
        _program(entry, way, known.of(device, name, entry)) if entry.ours else entry.name for entry, way in entries
    )
    return [each for each in found if each is not None]


def _program(entry: Attached, way: str, explanation: Explanation | None) -> ProgramStatus | None:
    """What a program does; None if it has gone since the hook was looked at."""
    from nkform.observe.runs import read

    found = read(entry, _numbers(explanation) if explanation else {})
    if found is None:
        return None
    template = explanation.template if explanation else ""
    digest = "" if entry.strange else entry.digest
    return ProgramStatus(
        entry.name,
        template,
        way,
        entry.place,
        entry.program_id,
        digest,
        found.name,
        found.count,
        found.time,
        found.maps,
    )


def _numbers(explanation: Explanation) -> Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Which maps of a template hold numbers for people."""
    from nkform.bpf.catalogue import kept
    from nkform.problem import NkformError

    try:
        found = kept(explanation)
    except NkformError:
        return {}
    return {name: (numbers.keys, numbers.fields) for name, numbers in found.maps.items()}
