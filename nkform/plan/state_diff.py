"""Whether a node is as it was, after a run was undone or taken back. Pure.

What is ours must be the same. Things of others come and go as they like: pods get their links, a tracer attaches its
program. Those that came count never; those that went do where we may have taken them away, which is right after a run.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator

from nkform.attributes import BY_NAME
from nkform.dataclass import replace
from nkform.device_sysctls import FORCE_FORWARDING, STABLE_SECRET
from nkform.model import Attached, Device, Endpoint, Hook, Namespace, Node, Route
from nkform.plan.addresses import by_subnet, of_others, taken_places
from nkform.plan.compare import is_raised
from nkform.plan.saved import differences
from nkform.problem import Problem

_PARTLY_READ = frozenset({STABLE_SECRET, FORCE_FORWARDING})
"""Sysctls that count only where both sides have them. The secret, once set, cannot be unset, and is nothing where
addresses are made in another way; the other is read only of what forwards."""


def state_diff(before: Node, after: Node, *, losses: bool = True, newcomers: bool = False) -> list[str]:
    """What is not the same in both, as paths; numbers that the kernel gives anew do not count.

    `losses`: what others had counts too. `newcomers`: so do devices and namespaces without a mark that have names of
    the spec, which may be ours where something could not be undone.
    """
    node = before.name
    was = {n: d for n, d in before.devices.items() if losses or d.owner == node or n in after.devices}
    now = {n: d for n, d in after.devices.items() if newcomers or n in was or d.owner == node}
    spaces = {n: s for n, s in before.namespaces.items() if losses or s.owner == node or n in after.namespaces}
    there = {n: s for n, s in after.namespaces.items() if newcomers or n in spaces or s.owner == node}
    pairs: list[tuple[str, str, object, object]] = []
    for name in sorted({*was, *now}):
        pairs.append(("device", name, *_devices(was.get(name), now.get(name), losses)))
    for name in sorted({*spaces, *there}):
        pairs.append(("namespace", name, _space(spaces.get(name)), _space(there.get(name))))
    found = [
        f"{kind} {name or 'root'}{''.join(f' {part}' for part in path[-2:])}"
        for kind, name, some, others in pairs
        for path, _, _ in differences(some, others)
    ]
    return list(dict.fromkeys(found))


def sent_from_others(before: Node, after: Node) -> Iterator[Problem]:
    """Warnings of IPv4 addresses of ours that the kernel sent from to their subnet, and does no more, since one of
    others has taken their place: where others have an address is not ours to say."""
    for name in sorted(before.devices.keys() & after.devices.keys()):
        for was, now in zip(before.devices[name].ends, after.devices[name].ends, strict=False):
            for ours, theirs in taken_places(was.addresses, now.addresses):
                where = f"{now.name} in {now.namespace}" if now.namespace else now.name
                said = (
                    f"{ours.text} of {where} is back, but the kernel sends to its subnet from {theirs.text} of others"
                )
                hint = f"it took that place when {ours.text} went: if it matters, remove theirs and add it again"
                yield Problem("NK0523", said, hint=hint, severity="warning")


def _space(found: Namespace | None) -> Namespace | None:
    """A namespace with the links in it that are ours."""
    ours = {link: True for link, ours in found.links.items() if ours} if found else {}
    return found and replace(found, links=ours, cookie=0, marked=True)


def _devices(was: Device | None, now: Device | None, losses: bool) -> tuple[Device | None, Device | None]:
    """Both, without what does not count."""
    if was is None or now is None:
        return was, now
    was, now = _without_raised(was, now)
    if now.enslaved != was.enslaved and not (losses and was.enslaved):
        was, now = replace(was, enslaved=False), replace(now, enslaved=False)
    return _known(was, now, losses), _known(now, was, False)


def _without_raised(was: Device, now: Device) -> tuple[Device, Device]:
    """Both, without what a bridge has raised of the one that is, or was, its port."""
    if was.attrs == now.attrs:
        return was, now
    bridged = was.enslaved or now.enslaved
    raised = {
        name
        for name in was.attrs.keys() & now.attrs.keys()
        if is_raised(BY_NAME[name], was.attrs[name], now.attrs[name], enslaved=bridged)
        or (bridged and is_raised(BY_NAME[name], now.attrs[name], was.attrs[name], enslaved=True))
    }
    some = ({name: v for name, v in each.attrs.items() if name not in raised} for each in (was, now))
    return replace(was, attrs=next(some)), replace(now, attrs=next(some))


def _known(device: Device, other: Device, losses: bool) -> Device:
    """A device without what others have on it and not on the other one, but where that is a loss."""
    hooks = {
        name: _renumbered(hook, losses, other.hooks.get(name, Hook()))
        for name, hook in device.hooks.items()
        if hook.ours
    }
    primary = _ordered(device.primary, losses, other.primary)
    peer = device.peer and _ordered(device.peer, losses, other.peer or device.peer)
    return replace(device, index=0, primary=primary, peer=peer, hooks=hooks)


def _ordered(end: Endpoint, losses: bool, other: Endpoint) -> Endpoint:
    """An end whose addresses and routes compare whatever their order, but for what of that of addresses is ours to say
    (addresses.py)."""
    counting = [address for address in end.addresses if address.ours or losses or address in other.addresses]
    subnets = by_subnet(counting)
    listed = set(itertools.chain(*subnets.values()))
    shared = of_others((*end.addresses, *other.addresses))
    places = sorted(subnets.keys() & shared) + [subnet for subnet in subnets if subnet not in shared]
    rest = sorted((address for address in counting if address not in listed), key=lambda address: address.text)
    addresses = (*itertools.chain(*(subnets[subnet] for subnet in places)), *rest)
    routes = tuple(sorted(_told(end.routes, other.routes), key=repr))
    sysctls = end.sysctl
    if not _PARTLY_READ.isdisjoint(sysctls.keys() - other.sysctl.keys()):
        unknown = _PARTLY_READ - other.sysctl.keys()
        sysctls = {key: value for key, value in sysctls.items() if key not in unknown}
    return replace(end, addresses=addresses, routes=routes, sysctl=sysctls)


def _told(routes: Collection[Route], others: Collection[Route]) -> Iterator[Route]:
    """Our routes. What is known of a next hop only on one side is left out on both, if the hop is there."""
    doubtful = {(route.key, route.via): route.ours for route in others}
    for route in routes:
        known = doubtful.get((route.key, route.via))
        if known is not None and known != route.ours:
            yield Route(route.to, route.via, metric=route.metric, table=route.table)
        elif route.ours:
            yield route


def _renumbered(hook: Hook, losses: bool, other: Hook) -> Hook:
    """A hook without the numbers that attaching something again changes."""
    there = {entry.program_id for entry in (*other.linked, *other.filters)}

    def counting(entries: Collection[Attached]) -> tuple[Attached, ...]:
        return tuple(
            replace(entry, place=0, program_id=0, digest=entry.identity, loaded=0)
            if entry.ours
            else replace(entry, place=0)
            for entry in entries
            if entry.ours or losses or entry.program_id in there
        )

    return Hook(counting(hook.linked), counting(hook.filters))
