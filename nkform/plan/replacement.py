"""A pair that is made anew is built beside the old one, which goes when the new one carries its packets. Pure.

The new pair is made under spare names and becomes complete, programs, addresses and all, while the old one works. Then
the names are exchanged, which no packet notices, and the new ends get the routes of the old ones as well. Now every
address is at both and every route leads through both, and the kernel takes those that came first: the old pair goes on
carrying the packets (IPv6 routes with a gateway become a multipath of both, which reach the same workload). So nothing
has to be moved. The switch takes away what the old ends have, one route after the other: without the first of two equal
routes the kernel takes the second, and no look-up ever finds neither. The old pair goes last, when no packet finds it
any more; deleting it takes the kernel some grace periods, which no packet waits for.

Each direction of the traffic changes over by itself, and the order of the two does not matter as long as both pairs
lead from one end to the other. Only a strict rp_filter minds: it drops what comes in through another device than the
answer would leave by. So the two ends of a pair change over right after one another, the workload's first: in mode l2
its questions for addresses tell the node's new end its own, before that has to ask.

What a packet passes is at each moment all of the old pair's programs or all of the new one's. Rules of others that go
by a device's name do not match between the exchange of the names and the last route that goes.

Routes and all IPv4 addresses but the first wait for the exchange of names, since a new name makes the kernel label the
others `NAME:2` and so on (net/ipv4/devinet.c, inetdev_changename). The old pair gets such labels, which stay if all is
undone later than that; nothing but what is shown depends on them.

A bridge gets the new end right after it has let the old one go, both within one visit: with both in it, a pair between
two bridges would be a loop. A VRF takes the new end while that is still down.

It is not done where names or routes are wanted by another device of the same plan, or where what the old pair alone has
keeps a route out (given_up.py): then the old pair goes first, as it does where it cannot be reached.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from itertools import count

from nkform.dataclass import dataclass, replace
from nkform.listing import few
from nkform.model import Device, Endpoint, Node
from nkform.namespace_key import is_unnamed
from nkform.plan.actions import (
    Action,
    AddAddress,
    AddRoute,
    CarryNeighbours,
    CarryRoutes,
    DeleteAddress,
    DeletePair,
    DeleteRoute,
    MoveEnd,
    SetMaster,
    WaitForCarrier,
    create,
    end_of,
)
from nkform.plan.given_up import in_the_way

NAME_BYTES = 15
"""IFNAMSIZ less the closing NUL (include/uapi/linux/if.h)."""

BRIDGE = "bridge"
MASTERS = (BRIDGE, "vrf")
"""The kinds of devices that take a new port or member as they had the old one. A bond wants it down and changes its
address, Open vSwitch has it from its own daemon."""

BESIDE = "the new pair is built beside the old one"

Place = tuple[str, str]
"""A namespace's key and a name in it."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """A replacement: `new` and `old` are the two pairs under the names that they have while both are there.

    `found` and `wanted` are the same pairs under the device's own names, before and after.
    """

    found: Device
    wanted: Device
    old: Device
    new: Device


class Names:
    """Gives out names that nobody has: not in the kernel, not in the spec, not given out before."""

    def __init__(self, devices: Mapping[str, Device], live: Node) -> None:
        self._devices = devices
        self._live = live

    @cached_property
    def _taken(self) -> set[Place]:
        """Needed only where a pair is made anew."""
        there = {
            (key, name) for key, space in self._live.namespaces.items() for name in (*space.links, *space.altnames)
        }
        return there | {(end.namespace, end.name) for device in self._devices.values() for end in device.ends}

    def spare(self, end: Endpoint, role: str) -> Endpoint:
        """The end under a name that begins as its own does, so that rules for `lxc*` and the like go on matching.

        It follows from the name and the role (one letter) alone, unless that one is taken.
        """
        for turn in count():
            number = zlib.crc32(f"{role}{turn}{end.name}".encode()) & 0xFFFF
            tail = f"~{role}{number:04x}"
            head = end.name.encode()[: NAME_BYTES - len(tail)].decode(errors="ignore")
            place = (end.namespace, head + tail)
            if place not in self._taken:
                self._taken.add(place)
                return replace(end, name=place[1])
        raise AssertionError("unreachable")


def obstacles(
    names: Collection[str], devices: Mapping[str, Device], live: Node, going: Collection[str]
) -> dict[str, str]:
    """Why new pairs cannot be built beside the old ones, by the names of those that cannot; `going` are devices that go
    before in any case. The same whatever the order of the devices is: what gives its peer's name up does not depend on
    who else goes."""
    kept_out = in_the_way(names, devices, live)
    found = {name: _gives_up(devices[name], live.devices[name], devices) or kept_out.get(name, "") for name in names}
    away = {*going, *(name for name, why in found.items() if why)}
    return {name: why or _must_wait(devices[name], live.devices[name], live, away) for name, why in found.items()}


def _gives_up(device: Device, found: Device, devices: Mapping[str, Device]) -> str:
    """What another device is to have of an old pair; or that it has no peer, or that its peer is out of reach."""
    if single := next((each for each in (device, found) if not each.traits.has_peer), None):
        return f"{single.traits.said} has no peer"
    if device.peer is None or found.peer is None or is_unnamed(found.peer.namespace):
        return "its peer cannot be reached"
    new, old = _place(device.peer), _place(found.peer)
    given_up = _keys(found) - _keys(device)
    for name in sorted(devices) if given_up or old != new else ():  # most pairs keep both: nobody can want them
        other = devices[name]
        if name == device.name or other.peer is None:
            continue
        if _place(other.peer) == old != new:
            return f"{name} shall have its peer's name"
        if routes := given_up & _keys(other):
            return f"its route to {min(routes)[2]} shall be that of {name}"
    return ""


def _must_wait(device: Device, found: Device, live: Node, going: Collection[str]) -> str:
    """What has the name that a new peer shall have, and does not go before."""
    if device.peer is None or found.peer is None or _place(device.peer) == _place(found.peer):
        return ""
    for name in sorted(live.devices):
        other = live.devices[name]
        if name != device.name and name not in going and other.peer and _place(other.peer) == _place(device.peer):
            return f"{name} has the name that its peer shall have"
    return ""


def _place(end: Endpoint) -> Place:
    return end.namespace, end.name


def beside(device: Device, found: Device, names: Names) -> Replacement:
    """Names both pairs for the time that both are there: an old end gives way only where it is in the way.

    Addresses of others on the old ends go over to the new ones.
    """
    assert device.peer is not None
    assert found.peer is not None
    wanted = with_masters(device, found)
    wanted = replace(
        wanted,
        primary=_with_foreign(wanted.primary, found.primary),
        peer=wanted.peer and _with_foreign(wanted.peer, found.peer),
    )
    old = replace(found, primary=names.spare(found.primary, "o"))
    new = replace(wanted, primary=names.spare(wanted.primary, "n"))
    if _place(device.peer) == _place(found.peer):
        old = replace(old, peer=names.spare(found.peer, "o"))
        new = replace(new, peer=wanted.peer and names.spare(wanted.peer, "n"))
    new = replace(new, primary=_unbridged(new.primary), peer=new.peer and _unbridged(new.peer))
    return Replacement(found, wanted, old, new)


def with_masters(device: Device, found: Device) -> Device:
    """A pair that is made anew, its ends in the bridges and VRFs that those of the old one are in."""
    if device.peer is None or found.peer is None:
        return device
    primary, peer = (
        replace(new, master=old.master if _is_kept(old, device) else None) if new.namespace == old.namespace else new
        for new, old in zip(device.ends, found.ends, strict=True)
    )
    return replace(device, primary=primary, peer=peer)


def _is_kept(old: Endpoint, device: Device) -> bool:
    """Whether the new end can be where the old one is; a bridge takes no port without a hardware address
    (net/bridge/br_if.c, br_add_if)."""
    if old.master is None or old.master.kind not in MASTERS:
        return False
    return old.master.kind != BRIDGE or device.attrs.get("mode") != "l3"


def _unbridged(end: Endpoint) -> Endpoint:
    return replace(end, master=None) if end.master and end.master.kind == BRIDGE else end


def _with_foreign(end: Endpoint, old: Endpoint) -> Endpoint:
    if end.namespace != old.namespace:
        return end
    there = set(end.addresses)
    foreign = tuple(a for a in old.addresses if not a.ours and a not in there)
    return replace(end, addresses=(*end.addresses, *foreign))


def build(change: Replacement) -> Iterator[Action]:
    """Makes the new pair, complete but for what waits for its names."""
    there, later = _keys(change.found), set(_later(change))
    for action in create(change.new):
        step = replace(action, beside=_key(action) in there) if isinstance(action, AddRoute) else action
        if not isinstance(step, AddAddress | AddRoute) or step not in later:
            yield step


def _later(change: Replacement) -> Iterator[AddAddress | AddRoute]:
    """What the new ends that are still to get their names have to wait for, as `build` would have it."""
    there = _keys(change.found)
    for new, wanted in zip(change.new.ends, change.wanted.ends, strict=True):
        if new.name == wanted.name:
            continue
        end = end_of(change.new.name, new)
        yield from (AddAddress(end, a) for a in [a for a in new.addresses if ":" not in a.text][1:])
        if new.attrs.get("up"):
            # Those to a gateway come after those that may lead to it, as with any other end.
            routes = (AddRoute(end, route) for route in sorted(new.routes, key=lambda route: route.via is not None))
            yield from (replace(route, beside=_key(route) in there) for route in routes)


def _key(action: AddRoute) -> tuple[str, int, str, int]:
    return (action.end.namespace, *action.route.key)


def _keys(device: Device) -> set[tuple[str, int, str, int]]:
    """What tells the routes of both ends from others, with their namespaces."""
    return {(end.namespace, *route.key) for end in device.ends for route in end.routes}


def wait_for_carrier(change: Replacement) -> Iterator[Action]:
    """Waits until the new pair can carry packets; one that shall be down never will."""
    if all(end.attrs.get("up") for end in change.new.ends):
        for end in reversed(change.new.ends):
            yield WaitForCarrier(end_of(change.new.name, end))


def switch(change: Replacement) -> Iterator[Action]:
    """Hands over to the new pair: names and routes of both ends, then what the old ends have goes; the workload's end
    before the node's."""
    name = change.found.name
    later = tuple(_later(change))
    sides = [
        _Side(*ends)
        for ends in zip(change.found.ends, change.old.ends, change.new.ends, change.wanted.ends, strict=True)
    ][::-1]
    for side in sides:
        if side.old.name != side.found.name:
            yield MoveEnd(_bare(side.found), _bare(side.old), name)
        if side.new.name != side.wanted.name:
            yield MoveEnd(_bare(side.new), _bare(side.wanted), name)
        end = end_of(name, side.wanted)
        yield from (replace(action, end=end) for action in later if action.end == end_of(name, side.new))
        if side.stays:
            yield CarryNeighbours(end_of(name, side.old), end)
            if side.wanted.attrs.get("up"):
                yield CarryRoutes(end_of(name, side.old), end)
            if side.wanted.master != side.new.master:
                yield SetMaster(end_of(name, side.old), side.wanted.master, None)
                yield SetMaster(end, None, side.wanted.master)
    for side in sides:
        if side.stays:
            end = end_of(name, side.old)
            yield from (DeleteRoute(end, route, beside=True) for route in side.found.routes)
            yield from (DeleteAddress(end, address) for address in side.found.addresses)


@dataclass(frozen=True, slots=True)
class _Side:
    """The ends of one side: as it was, out of the way, under its first name, as it shall be."""

    found: Endpoint
    old: Endpoint
    new: Endpoint
    wanted: Endpoint

    @property
    def stays(self) -> bool:
        """Whether the new end is in the namespace of the old one, and takes over from it there."""
        return self.found.namespace == self.wanted.namespace


def retire(change: Replacement) -> DeletePair:
    """Removes the old pair, which has neither addresses nor routes any more where it had those of the new one."""
    ends = [
        replace(_unbridged(old) if new.master else old, addresses=(), routes=())
        if old.namespace == new.namespace
        else old
        for old, new in zip(change.old.ends, change.wanted.ends, strict=True)
    ]
    return DeletePair(replace(change.old, primary=ends[0], peer=ends[1]))


def _bare(end: Endpoint) -> Endpoint:
    """An end by its name alone: a new name leaves all the rest as it is."""
    return Endpoint(end.name, end.namespace)


def lost(found: Device, wanted: Device) -> list[str]:
    """What others have at a pair, and what goes with it whichever way it is made anew."""
    programs = [
        f"program {entry.name or entry.program_id} at {hook}"
        for hook, there in found.hooks.items()
        for entry in (*there.linked, *there.filters)
        if not entry.ours
    ]
    new = with_masters(wanted, found)
    places = [place for old, end in zip(found.ends, new.ends, strict=False) for place in _places(old, end)]
    return [
        *programs,
        *places,
        *(text for end in found.ends for text in (*few([*map(str, end.leaning)]), *_with_the_link(end))),
    ]


def left_behind(found: Device, wanted: Device) -> list[str]:
    """What others have at a peer, and what it leaves when it goes to another namespace."""
    if found.peer is None or wanted.peer is None:
        return []
    return [*_places(found.peer, wanted.peer), *few([*map(str, found.peer.leaning)])]


def _with_the_link(end: Endpoint) -> Iterator[str]:
    """What goes only where the link itself does."""
    where = f" in {end.namespace}" if end.namespace else ""
    yield from (f"XDP program {number} of {end.name}" for number in end.xdp)
    yield from few([f"name {name} of {end.name}{where}" for name in end.altnames])


def _places(old: Endpoint, new: Endpoint) -> Iterator[str]:
    """What an end loses of its place in a bridge or the like."""
    if old.master is None:
        return
    name = f"{old.master.kind} {old.master.name}" + (f" in {old.namespace}" if old.namespace else "")
    if new.master != old.master or new.namespace != old.namespace:
        yield f"the place of {old.name} in {name}"
    elif old.master.kind == BRIDGE:
        yield f"the VLANs and the static entries (FDB, MDB) of {old.name} in {name}"
