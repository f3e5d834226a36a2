"""MTUs for IPv6 that others chose, and that the kernel sets anew with a link's own.

`ipv6.mtu` of a link becomes the link's when that changes, and also when the link comes up or is made anew. The `mtu` of
a route through the link, unless it is locked, falls with the link's, and rises with it where it was the link's for IPv6
(net/ipv6/addrconf.c, addrconf_notify; net/ipv6/route.c, rt6_mtu_change_route). They are noted and given again like all
that others have (foreign_state.py), as far as the link's MTU leaves room for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial

from nkform.apply import mtus_again
from nkform.apply.foreign_state import ForeignItem
from nkform.kernel import devconf, inet_foreign
from nkform.kernel.netlink import U32, Socket, consistent_dump
from nkform.model import Device, Node
from nkform.plan.actions import Action, DeletePair, MoveEnd, SetLink, SetUp


def resized(actions: Iterable[Action], live: Node) -> dict[str, dict[str, bool]]:
    """By namespace, the ends whose MTUs for IPv6 the kernel sets anew, as they are called before the actions, and
    whether `ipv6.mtu` is declared for them, which is no choice of others."""
    if not live.devices:
        return {}
    devices = {device.index: device for device in live.devices.values() if device.index}
    ends = {(end.namespace, end.index): end for device in devices.values() for end in device.ends if end.index}
    found: dict[str, dict[str, bool]] = {}
    for action in actions:
        for namespace, index in _resized(action, devices):
            if end := ends.get((namespace, index)):
                found.setdefault(namespace, {})[end.name] = mtus_again.SYSCTL in end.sysctl
    return found


def _resized(action: Action, devices: Mapping[int, Device]) -> Iterator[tuple[str, int]]:
    match action:
        case SetLink(end) if "mtu" in action.after:
            yield end.namespace, end.index
        case SetUp(end):
            yield end.namespace, end.index
        case MoveEnd(before, after) if before.namespace != after.namespace:
            yield before.namespace, before.index
        case DeletePair(device):
            yield from ((end.namespace, end.index) for end in devices.get(device.index, device).ends)
        case _:
            return


def read(
    socket: Socket,
    key: str,
    names: Mapping[str, bool],
    known: Mapping[int, str],
    noted: Collection[str],
    mtus: Mapping[str, devconf.Mtus | None],
) -> Iterator[ForeignItem]:
    """What others chose at some links of the socket's namespace: names, and whether `ipv6.mtu` is declared for them.

    `known` are the names of all its links by their ifindex, `noted` those whose routes are noted all the same, `mtus`
    those of links that have been read already. Raises KernelError.
    """
    unread = names.keys() - mtus.keys()
    more = dict(consistent_dump(partial(devconf.dump_mtus, names=unread), socket)) if unread else {}
    for name, both in {**mtus, **more}.items():
        if both is not None and both[0] != both[1] and not names[name]:
            yield ForeignItem(key, name, "ipv6 mtu", U32.pack(both[1]).hex())
    if names.keys() <= set(noted):
        return
    for route in consistent_dump(inet_foreign.dump_foreign_routes, socket):
        index, _ = inet_foreign.leads(route)
        if known.get(index) in names and inet_foreign.mtu_of(route):
            yield ForeignItem(key, known[index], "route", route.hex())
