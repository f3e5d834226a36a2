"""Sysctls that undoing needs and no spec need name: of ends that are deleted, or moved to another namespace, where they
lose them, of ends that are renamed, which nobody has looked at under their new names, and of ends whose MTU becomes too
small for IPv6: the kernel forgets their IPv6 sysctls. Pure: apply/before.py reads.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from nkform.apply.foreign_before import is_small
from nkform.dataclass import replace
from nkform.kernel.inet_foreign import is_bound, is_passing
from nkform.model import Device, Endpoint, Node, Route
from nkform.plan.actions import Action, DeletePair, DeleteRoute, MoveEnd, SetLink
from nkform.plan.changes import Plan

Interfaces = Mapping[str, Mapping[str, str]]
"""Sysctls by interface."""
Values = Mapping[str, Interfaces]
"""The same by namespace."""


def going(plan: Plan, live: Node) -> dict[str, set[str]]:
    """By namespace, the ends that the plan takes away, as they are called before it begins."""
    ends: dict[str, set[str]] = {}
    by_index = _by_index(live.devices)
    for action in plan.actions:
        for end in _taken(action, by_index):
            ends.setdefault(end.namespace, set()).add(end.name)
    return ends


def noted(plan: Plan, live: Node, ends: Mapping[str, Collection[str]], values: Values) -> Node:
    """The live node, with all sysctls of those ends."""
    live = _with_doubtful(plan, live)
    if not ends:
        return live
    return live.with_devices({name: _with_sysctls(device, values, ends) for name, device in live.devices.items()})


def _with_doubtful(plan: Plan, live: Node) -> Node:
    """The live node as going back shall find it: of next hops that may be others', those that the plan may remove.

    And of routes that nobody declared, those that can be had again when a pair has gone.
    """
    ends = [end for device in live.devices.values() for end in device.ends]
    if all(route.ours and not route.message for end in ends for route in end.routes):
        return live
    gone = any(isinstance(action, DeletePair) for action in plan.actions)
    firsts = {(end.namespace, route.key): end for end in ends for route in end.routes if route.ours}
    removed = {(a.end.device, a.end.name, a.route) for a in plan.actions if isinstance(a, DeleteRoute)}

    def kept(device: Device, end: Endpoint) -> Endpoint:
        routes = (
            route
            for route in end.routes
            if route.ours
            or ((device.name, end.name, route) in removed and firsts.get((end.namespace, route.key), end) is end)
        )
        routes = (route for route in routes if not route.message or _can_be_had_again(route, gone))
        return replace(end, routes=tuple(routes))

    devices = {
        name: replace(device, primary=kept(device, device.primary), peer=device.peer and kept(device, device.peer))
        for name, device in live.devices.items()
    }
    return live.with_devices(devices)


def with_every_hop(plan: Plan, live: Node, now: Node) -> Node:
    """The node as a run that fails shall leave it: also with next hops beside those of other ends, which the plan may
    remove. A later way back does not look for them: by then the kernel may not take them any more."""
    removed = {(a.end.device, a.end.name, a.route) for a in plan.actions if isinstance(a, DeleteRoute)}
    if not removed or any(isinstance(action, DeletePair) for action in plan.actions):
        return now

    def complete(device: Device, end: Endpoint, known: Endpoint) -> Endpoint:
        kept = [r for r in end.routes if r in known.routes or (device.name, end.name, r) in removed]
        return known if len(kept) == len(known.routes) else replace(known, routes=tuple(kept))

    devices = dict(now.devices)
    for name, device in live.devices.items():
        known = devices[name]
        ends = [complete(device, *pair) for pair in zip(device.ends, known.ends, strict=True)]
        if ends != [*known.ends]:
            devices[name] = replace(known, primary=ends[0], peer=ends[1] if len(ends) > 1 else None)
    return now.with_devices(devices)


def with_sysctls_of(origin: Node, now: Node) -> Node:
    """The node as it was before a run that did not end, with sysctls that only the one after it takes away.

    The first run noted those that it was about to take; what it set is on record as it was before.
    """
    present = _by_index(now.devices)
    devices: dict[str, Device] = {}
    for name, device in origin.devices.items():
        ends = (_with_more(*pair) for pair in zip(device.ends, present.get(device.index, device).ends, strict=False))
        primary, peer = next(ends), next(ends, device.peer)
        devices[name] = replace(device, primary=primary, peer=peer)
    return origin.with_devices(devices)


def _with_more(end: Endpoint, now: Endpoint) -> Endpoint:
    missing = now.sysctl.keys() - end.sysctl.keys()
    return replace(end, sysctl={**now.sysctl, **end.sysctl}) if missing else end


def _can_be_had_again(route: Route, gone: bool) -> bool:
    message = bytes.fromhex(route.message)
    return not is_passing(message) and not (gone and is_bound(message))


def _by_index(devices: Mapping[str, Device]) -> dict[int, Device]:
    return {device.index: device for device in devices.values() if device.index}


def _taken(action: Action, devices: Mapping[int, Device]) -> Iterable[Endpoint]:
    match action:
        case DeletePair(device):
            return devices.get(device.index, device).ends
        case MoveEnd(before):
            return (before,)
        case SetLink(end, before, after) if is_small(after.get("mtu")) and not is_small(before.get("mtu")):
            return (Endpoint(end.name, end.namespace),)
        case _:
            return ()


def _with_sysctls(device: Device, values: Values, ends: Mapping[str, Collection[str]]) -> Device:
    if not any(end.name in ends.get(end.namespace, ()) for end in device.ends):
        return device

    def known(end: Endpoint) -> Endpoint:
        return _known(end, values) if end.name in ends.get(end.namespace, ()) else end

    return replace(device, primary=known(device.primary), peer=known(device.peer) if device.peer else None)


def _known(end: Endpoint, values: Values) -> Endpoint:
    """An end with all its sysctls: what the interface has, which is one object for many, unless more is known."""
    sysctls = values.get(end.namespace, {}).get(end.name, {})
    if any(sysctls.get(key) != value for key, value in end.sysctl.items()):
        sysctls = {**sysctls, **end.sysctl}
    return replace(end, sysctl=sysctls)
