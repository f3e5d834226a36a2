"""What goes with a device that is deleted, or moved to another namespace, and that no spec need name: its sysctls.

They are read before it goes, so that taking it back brings them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from nkform.kernel import devconf
from nkform.kernel.netlink import Socket
from nkform.kernel.netns import Namespaces
from nkform.model import Device, Endpoint, Node
from nkform.observe.namespaces import whole
from nkform.plan.actions import Action, DeletePair, MoveEnd
from nkform.plan.plan import Plan

Values = Mapping[str, Mapping[str, Mapping[str, str]]]
"""By namespace and interface."""


def noted(plan: Plan, live: Node, namespaces: Namespaces) -> tuple[Plan, Node]:
    """The plan and the live node, with all sysctls of what the plan takes away. Raises KernelError."""
    going = [end for action in plan.actions for end in _taken(action, live)]
    if not going:
        return plan, live
    values = _read(namespaces, going)
    devices = {
        name: _with_sysctls(device, values, going) if any(end in going for end in device.ends) else device
        for name, device in live.devices.items()
    }
    by_index = {device.index: device for device in devices.values() if device.index}
    actions = tuple(_completed(action, by_index, values) for action in plan.actions)
    return replace(plan, actions=actions), live.with_devices(devices)


def _taken(action: Action, live: Node) -> Iterable[Endpoint]:
    """The ends that an action takes away, as they are called before the plan begins."""
    match action:
        case DeletePair(device):
            return next((d.ends for d in live.devices.values() if d.index == device.index), device.ends)
        case MoveEnd(before, after) if before.namespace != after.namespace:
            return (before,)
        case _:
            return ()


def _read(namespaces: Namespaces, ends: Iterable[Endpoint]) -> Values:
    found = {}
    for key in dict.fromkeys(end.namespace for end in ends):
        if not key.startswith("nsid:"):
            with namespaces.open(key) as fd, namespaces.entered(fd, key), Socket() as socket:
                found[key] = dict(whole(devconf.dump, socket))
    return found


def _with_sysctls(device: Device, values: Values, going: Iterable[Endpoint]) -> Device:
    def known(end: Endpoint) -> Endpoint:
        return _known(end, values) if end in going else end

    return replace(device, primary=known(device.primary), peer=known(device.peer) if device.peer else None)


def _known(end: Endpoint, values: Values) -> Endpoint:
    return replace(end, sysctl={**values.get(end.namespace, {}).get(end.name, {}), **end.sysctl})


def _completed(action: Action, devices: Mapping[int, Device], values: Values) -> Action:
    match action:
        case DeletePair(device) if known := devices.get(device.index):
            primary = replace(device.primary, sysctl=known.primary.sysctl)
            peer = replace(device.peer, sysctl=known.peer.sysctl) if device.peer and known.peer else device.peer
            return DeletePair(replace(device, primary=primary, peer=peer))
        case MoveEnd(before, after, name) if before.namespace != after.namespace:
            return MoveEnd(_known(before, values), after, name)
        case _:
            return action
