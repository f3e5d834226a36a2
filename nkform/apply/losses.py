"""Sysctls that undoing needs and no spec need name: of ends that are deleted, or moved to another namespace, where they
lose them, and of ends that are renamed, which nobody has looked at under their new names.

They are read before anything is done.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from nkform.dataclass import replace
from nkform.kernel import devconf
from nkform.kernel.netlink import Socket, whole
from nkform.kernel.netns import Namespaces
from nkform.model import Device, Endpoint, Node
from nkform.plan.actions import Action, DeletePair, MoveEnd, SetSysctl
from nkform.plan.plan import Plan

Values = Mapping[str, Mapping[str, Mapping[str, str]]]
"""By namespace and interface."""


def noted(plan: Plan, live: Node, namespaces: Namespaces) -> tuple[Plan, Node]:
    """The plan and the live node, with all sysctls of what the plan takes away. Raises KernelError."""
    by_index = {device.index: device for device in live.devices.values() if device.index}
    going = {(end.namespace, end.name) for action in plan.actions for end in _taken(action, by_index)}
    if not going:
        return plan, live
    values = _read(namespaces, {namespace for namespace, _ in going})
    devices = {name: _with_sysctls(device, values, going) for name, device in live.devices.items()}
    by_index = {device.index: device for device in devices.values() if device.index}
    renamed = {
        (action.device, action.after.namespace, action.after.name): action.before
        for action in plan.actions
        if isinstance(action, MoveEnd) and action.before.namespace == action.after.namespace
    }
    actions = tuple(_completed(action, by_index, values, renamed) for action in plan.actions)
    return replace(plan, actions=actions), live.with_devices(devices)


def _taken(action: Action, devices: Mapping[int, Device]) -> Iterable[Endpoint]:
    """The ends that an action takes away, as they are called before the plan begins."""
    match action:
        case DeletePair(device):
            return devices.get(device.index, device).ends
        case MoveEnd(before):
            return (before,)
        case _:
            return ()


def _read(namespaces: Namespaces, keys: Iterable[str]) -> Values:
    found = {}
    for key in keys:
        if not key.startswith("nsid:"):
            with namespaces.open(key) as fd, namespaces.entered(fd, key), Socket() as socket:
                found[key] = dict(whole(devconf.dump, socket))
    return found


def _with_sysctls(device: Device, values: Values, going: Collection[tuple[str, str]]) -> Device:
    def known(end: Endpoint) -> Endpoint:
        return _known(end, values) if (end.namespace, end.name) in going else end

    return replace(device, primary=known(device.primary), peer=known(device.peer) if device.peer else None)


def _known(end: Endpoint, values: Values) -> Endpoint:
    return replace(end, sysctl={**values.get(end.namespace, {}).get(end.name, {}), **end.sysctl})


def _completed(
    action: Action, devices: Mapping[int, Device], values: Values, renamed: Mapping[tuple[str, str, str], Endpoint]
) -> Action:
    match action:
        case DeletePair(device) if known := devices.get(device.index):
            primary = replace(device.primary, sysctl=known.primary.sysctl)
            peer = replace(device.peer, sysctl=known.peer.sysctl) if device.peer and known.peer else device.peer
            return DeletePair(replace(device, primary=primary, peer=peer))
        case MoveEnd(before, after, name) if before.namespace != after.namespace:
            return MoveEnd(_known(before, values), after, name)
        case SetSysctl(end, key, None, after) if old := renamed.get((end.device, end.namespace, end.name)):
            return SetSysctl(end, key, values.get(old.namespace, {}).get(old.name, {}).get(key), after)
        case _:
            return action
