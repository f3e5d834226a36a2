"""What a node's devices and programs are doing, and how they drift from what was applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from nkform.dataclass import dataclass, replace
from nkform.model import Attached, Device, Explanation, Hook, MapsByParam, Node
from nkform.observe.explanations import Known
from nkform.observe.record import Record
from nkform.results import DeviceStatus, Drifted, LastApplied, ProgramStatus, Status

if TYPE_CHECKING:
    from nkform.kernel.netns import Namespaces


@dataclass(frozen=True, slots=True)
class Observed:
    """A node as it is: sysctls and the contents of filled maps with it, and what is known of its programs."""

    node: Node
    known: Known


def status(namespaces: Namespaces, node: str) -> Status:
    """Raises KernelError."""
    from nkform.observe import explanations, record
    from nkform.observe.node import observe

    applied = record.read(node)
    live = observe(namespaces, node, applied.node if applied else None)
    known = explanations.Known(explanations.read(node))
    drift = _drift(applied, live) if applied else {}
    devices = [_device(device, known, drift.pop(("device", device.name), ())) for device in live.devices.values()]
    last = LastApplied(applied.when, [each for some in drift.values() for each in some]) if applied else None
    return Status(node, devices, last)


def observed(namespaces: Namespaces, live: Node) -> Observed:
    """A live node (session/node.py, `observed`) with all that a spec says of such a node. Raises KernelError."""
    from nkform.observe import explanations
    from nkform.observe.nameless import by_processes

    live = by_processes(namespaces, live)
    known = explanations.Known(explanations.read(live.name))
    return Observed(_with_contents(live, known), known)


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
    return [_program(entry, way, known.of(device, name, entry)) if entry.ours else entry.name for entry, way in entries]


def _program(entry: Attached, way: str, explanation: Explanation | None) -> ProgramStatus:
    from nkform.observe.runs import read

    found = read(entry, _numbers(explanation) if explanation else {})
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


def _with_contents(live: Node, known: Known) -> Node:
    """The node with what those maps of its programs hold now that a spec fills."""
    from nkform.observe.contents import filled_hook

    maps = _FilledMaps()
    devices = {}
    for name, device in live.devices.items():
        hooks = {}
        for key, hook in device.hooks.items():
            hooks[key] = filled_hook(hook, partial(_of, maps, known, name, key))
        devices[name] = replace(device, hooks=hooks)
    return live.with_devices(devices)


def _of(maps: _FilledMaps, known: Known, device: str, hook: str, entry: Attached) -> MapsByParam:
    return maps.of(known.of(device, hook, entry))


class _FilledMaps:
    """The maps that a spec fills, of templates, each of which is read once."""

    def __init__(self) -> None:
        self._by_template: dict[tuple[str, str], MapsByParam] = {}

    def of(self, explanation: Explanation | None) -> MapsByParam:
        """Those of a program that was made so; none where its template is not there any more, or not as it was."""
        from nkform.bpf import contents
        from nkform.bpf.catalogue import kept
        from nkform.problem import NkformError

        if explanation is None:
            return {}
        key = (explanation.template, explanation.folder)
        if key not in self._by_template:
            try:
                self._by_template[key] = contents.of_all(kept(explanation).parameters, {})
            except NkformError:
                self._by_template[key] = {}
        return self._by_template[key]
