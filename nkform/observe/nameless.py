"""Peers in namespaces without a name, by a process that is in there: by it a spec can say where they are.

Looks through /proc, which nothing but `show` needs. Reads, changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from nkform.dataclass import replace
from nkform.kernel.netns import Namespaces, processes
from nkform.model import Device, Node
from nkform.namespace_key import Unnamed, is_unnamed, key_of
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


def is_nameless(device: Device) -> bool:
    """Whether the namespace of a device's peer is known by no more than its id."""
    return device.peer is not None and is_unnamed(device.peer.namespace)


def _reached(device: Device, keys: Mapping[str, str]) -> Device | None:
    if device.peer is None or device.peer.namespace not in keys:
        return None
    return replace(device, peer=replace(device.peer, namespace=keys[device.peer.namespace]))
