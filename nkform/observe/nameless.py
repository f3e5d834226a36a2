"""Peers in namespaces without a name, and the keys that lead there all the same: those by which they were applied, and
for `show`, which looks through /proc, those of processes. Reads, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from nkform.dataclass import replace
from nkform.kernel.netns import Namespaces, processes
from nkform.model import Device, Node
from nkform.namespace_key import OfPath, OfPid, Unnamed, is_unnamed, key_of, meant_by
from nkform.observe import record
from nkform.observe.namespaces import identify
from nkform.observe.node import observe


def by_processes(namespaces: Namespaces, live: Node) -> Node:
    """The live node; peers whose namespace is known by its id alone are looked at by a process there, if there is one.
    With sysctls that no spec names.

    Raises KernelError.
    """
    lost = {name: device for name, device in live.devices.items() if is_nameless(device)}
    if not lost:
        return live
    ids = identify(namespaces, processes())
    keys = {key_of(Unnamed(nsid)): key for key, nsid in reversed(ids.items()) if nsid is not None}
    found = {name: moved for name, device in lost.items() if (moved := _reached(device, keys)) is not None}
    if not found:
        return live
    return observe(namespaces, live.name, live.with_devices({**live.devices, **found}), all_sysctls=True)


def on_record(namespaces: Namespaces, live: Node) -> set[str]:
    """The keys (of a process, a path) by which the last apply reached peers that the spec does not name any more, those
    that still lead there: going back needs them. Raises KernelError."""
    peers = {name: device.peer for name, device in live.devices.items() if is_nameless(device)}
    lost = {name: peer.namespace for name, peer in peers.items() if peer}
    known = record.read(live.name, only=lost) if lost else None
    keys = {
        name: device.peer.namespace
        for name, device in (known.node.devices if known else {}).items()
        if device.peer and isinstance(meant_by(device.peer.namespace), OfPid | OfPath)
    }
    ids = identify(namespaces, set(keys.values())) if keys else {}
    return {
        key for name, key in keys.items() if (nsid := ids.get(key)) is not None and key_of(Unnamed(nsid)) == lost[name]
    }


def is_nameless(device: Device) -> bool:
    """Whether the namespace of a device's peer is known by no more than its id."""
    return device.peer is not None and is_unnamed(device.peer.namespace)


def _reached(device: Device, keys: Mapping[str, str]) -> Device | None:
    if device.peer is None or device.peer.namespace not in keys:
        return None
    return replace(device, peer=replace(device.peer, namespace=keys[device.peer.namespace]))
