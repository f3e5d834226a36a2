"""What others have where a spec wants an address or a route: asked of the kernel only where one of ours is missing.

The dumps of every look are of ours alone (kernel/inet.py). Reads the namespace of the socket, changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from operator import attrgetter
from typing import TypeVar, cast

from nkform.dataclass import dataclass, field, replace
from nkform.gateways import Around, Holder, may_be_ruled_out
from nkform.kernel import inet, inet_foreign, sysctl
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.listing import enumerated
from nkform.model import OURS, Address, Device, Endpoint, Route, RouteKey, Taken, host
from nkform.namespace_key import is_unnamed

T = TypeVar("T")

DISABLE_IPV6 = "ipv6.disable_ipv6"

Slot = tuple[str, int]
"""A device's name, and which of its ends: 0 is the primary."""


@dataclass(frozen=True, slots=True)
class Place:
    """A declared end that has its place in a namespace. `index`: the link that it is there, 0 where it is to come."""

    slot: Slot
    index: int
    end: Endpoint

    @property
    def link(self) -> object:
        """What tells the link from all others there, be it there or to come."""
        return self.index or self.slot


@dataclass(frozen=True, slots=True)
class Seen:
    """What others have, by the place that it is taken from; next hops of shared IPv6 routes, by ifindex."""

    taken: dict[Slot, list[Taken]] = field(default_factory=dict)
    hops: dict[int, list[Route]] = field(default_factory=dict)


NOTHING = Seen()
"""It is not to be added to."""


def look(
    socket: Socket,
    places: Collection[Place],
    addresses: Mapping[int, tuple[Address, ...]],
    routes: Mapping[int, tuple[Route, ...]],
    names: Mapping[int, str],
) -> Seen:
    """What stands where something of ours is missing; `names` are those of the links there. Raises KernelError."""
    going = addresses.keys() - {place.index for place in places}
    if not going and all(_is_there(place, addresses, routes) for place in places):
        return NOTHING
    seen = Seen()
    _look_at_switches(places, addresses, routes, names, seen)
    if lacking := _missing_addresses(places, addresses):
        for index, body in inet_foreign.of_links(inet_foreign.dump_any_addresses, socket, lacking):
            for place, address in lacking.get(index, ()):
                if (found := _in_place(address, body)) is not None:
                    seen.taken.setdefault(place.slot, []).append(found)
    if wanted := _missing_routes(places, routes):
        _look_at_routes(socket, wanted, routes.keys(), addresses, names, seen)
        _look_at_gateways(socket, wanted.values(), names, seen)
    _look_at_sources(socket, places, addresses, names, seen)
    return seen


def _is_there(
    place: Place, addresses: Mapping[int, tuple[Address, ...]], routes: Mapping[int, tuple[Route, ...]]
) -> bool:
    """Whether an end has all that it shall have, as it shall have it: so it is with nearly all."""
    end = place.end
    return addresses.get(place.index, ()) == end.addresses and routes.get(place.index, ()) == end.routes


def _look_at_gateways(
    socket: Socket, wanted: Collection[tuple[Place, Route]], names: Mapping[int, str], seen: Seen
) -> None:
    """Notes routes with a gateway that the addresses of others in the namespace rule out."""
    doubtful = [(place, route) for place, route in wanted if may_be_ruled_out(route.via, route.onlink)]
    if not doubtful:
        return
    holders = []
    for index, body in inet_foreign.of_links(inet_foreign.dump_any_addresses, socket, names):
        text, protocol, _ = inet_foreign.decode_address(body)
        if protocol != inet.PROTOCOL:  # ours are as the spec says, or go
            holders.append(Holder(index, text))
    around = Around([*holders, *_declared(doubtful)])
    for place, route in doubtful:
        if (ruled_out := around.rules_out(route.via or "", route.onlink, place.link)) is not None:
            why, holder = ruled_out
            told = f"{why} {names.get(cast(int, holder.link), 'another device')}, {holder.text}"
            seen.taken.setdefault(place.slot, []).append(Taken(told, route=route, blocking=True, why="gateway"))


def _declared(some: Iterable[tuple[Place, Route]]) -> Iterator[Holder]:
    """What the ends of routes shall have themselves."""
    for place in {place.slot: place for place, _ in some}.values():
        yield from (Holder(place.link, address.text) for address in place.end.addresses)


def _look_at_sources(
    socket: Socket,
    places: Iterable[Place],
    addresses: Mapping[int, tuple[Address, ...]],
    names: Mapping[int, str],
    seen: Seen,
) -> None:
    """Notes routes with a source that nobody has there, nor shall have, or that only devices of ours have, which go or
    lose it. With its source a route goes that is there already."""
    sourced = [(place, route) for place in places for route in place.end.routes if route.src]
    sources = {route.src for _, route in sourced}
    if sources:
        sources -= {host(address) for place in places for address in place.end.addresses}
    if not sources:
        return
    ours: set[str] = set()
    for index, body in inet_foreign.of_links(inet_foreign.dump_any_addresses, socket, names):
        text, protocol, _ = inet_foreign.decode_address(body)
        if protocol == inet.PROTOCOL and index in addresses:
            ours.add(text.partition("/")[0])
        else:
            sources.discard(text.partition("/")[0])
    for place, route in sourced:
        if route.src in sources:
            holder = OURS if route.src in ours else ""
            lacking = Taken(holder, route=route, blocking=True, why="source")
            seen.taken.setdefault(place.slot, []).append(lacking)


def _look_at_switches(
    places: Iterable[Place],
    addresses: Mapping[int, tuple[Address, ...]],
    routes: Mapping[int, tuple[Route, ...]],
    names: Mapping[int, str],
    seen: Seen,
) -> None:
    """Notes where IPv6 is switched off that shall have IPv6 and says nothing of it. `default` is for links to come."""
    switches: dict[str, bool] = {}
    for place in places:
        address = _first_missing(place.end.addresses, addresses.get(place.index, ()), lambda each: ":" in each.text)
        route = None
        if not address:
            route = _first_missing(place.end.routes, routes.get(place.index, ()), attrgetter("needs_ipv6"))
        if (address or route) and place.end.sysctl.get(DISABLE_IPV6) != "0":
            name = names.get(place.index, "default")
            if name not in switches:
                switches[name] = _is_off(name)
            if switches[name]:
                off = Taken("", address=address, route=route, blocking=True, why="off")
                seen.taken.setdefault(place.slot, []).append(off)


def switched_off(namespaces: Namespaces, devices: Iterable[Device]) -> dict[str, tuple[Taken, ...]]:
    """By device, the ends that are to be made anew without the IPv6 that they shall have: they say nothing of it, and
    links to come get none. Raises KernelError."""
    wanted: dict[str, list[tuple[str, Taken]]] = {}
    for device in devices:
        for side, end in enumerate(device.ends):
            address = _first_missing(end.addresses, (), lambda each: ":" in each.text)
            route = None if address else _first_missing(end.routes, (), attrgetter("needs_ipv6"))
            if (address or route) and end.sysctl.get(DISABLE_IPV6) != "0" and not is_unnamed(end.namespace):
                off = Taken("", address=address, route=route, blocking=True, side=side, why="off")
                wanted.setdefault(end.namespace, []).append((device.name, off))
    found: dict[str, tuple[Taken, ...]] = {}
    with namespaces.away() as enter:
        for key, some in wanted.items():
            try:
                with namespaces.open(key) as fd:
                    enter(fd, key)
            except KernelError as error:
                if error.errno != errno.ENOENT:  # it is to be made
                    raise
                continue
            for name, off in some if _is_off("default") else ():
                found[name] = (*found.get(name, ()), off)
    return found


def _first_missing(wanted: tuple[T, ...], present: tuple[T, ...], needs_ipv6: Callable[[T], bool]) -> T | None:
    """The first one that needs IPv6 and is not there."""
    if wanted == present:
        return None
    known = set(present)
    return next((each for each in wanted if each not in known and needs_ipv6(each)), None)


def _is_off(interface: str) -> bool:
    """Whether IPv6 is switched off on a link, or on those to come (`default`), of the thread's namespace."""
    with suppress(KernelError):  # the link has gone since, or this kernel has no IPv6: the run will say so
        return sysctl.read(interface, DISABLE_IPV6) != "0"
    return False


def _missing_addresses(
    places: Iterable[Place], addresses: Mapping[int, tuple[Address, ...]]
) -> dict[int, list[tuple[Place, Address]]]:
    """The declared addresses that are not there as nkform's, by the ifindex of their link."""
    lacking: dict[int, list[tuple[Place, Address]]] = {}
    for place in places:
        if place.index and place.end.addresses:
            present = {address.text for address in addresses.get(place.index, ()) if address.ours}
            if some := [(place, each) for each in place.end.addresses if each.ours and each.text not in present]:
                lacking[place.index] = some
    return lacking


def _missing_routes(
    places: Iterable[Place], routes: Mapping[int, tuple[Route, ...]]
) -> dict[RouteKey, tuple[Place, Route]]:
    """The declared routes that are not there as nkform's, by their keys."""
    wanted: dict[RouteKey, tuple[Place, Route]] = {}
    for place in places:
        if place.end.routes and place.end.routes != (have := routes.get(place.index, ())):
            known = set(have)
            wanted.update((route.key, (place, route)) for route in place.end.routes if route not in known)
    return wanted


def _in_place(address: Address, body: bytes) -> Taken | None:
    """What an address of the link is in the way of. IPv6 lets a link have an address with one prefix length alone."""
    text, protocol, passing = inet_foreign.decode_address(body)
    if text != address.text and (":" not in text or text.partition("/")[0] != address.text.partition("/")[0]):
        return None
    ours = protocol == inet.PROTOCOL
    gone = Address(text) if ours else inet.address_of_others(text, body)
    if gone.ours:  # it has our number, and is there for some time only: nobody stands in the way
        return Taken("", address=address, gone=gone) if text == address.text else None
    limited = ", for some time only" if passing else ""
    holder = f"{text} ({inet_foreign.address_protocol(protocol)}{limited})"
    return Taken(holder, address=address, gone=gone, blocking=True)


def _look_at_routes(
    socket: Socket,
    wanted: Mapping[RouteKey, tuple[Place, Route]],
    own: Collection[int],
    addresses: Mapping[int, tuple[Address, ...]],
    names: Mapping[int, str],
    seen: Seen,
) -> None:
    # A kernel's route with such a source goes with an address of ours.
    sources = {host(address) for some in addresses.values() for address in some if address.ours}
    lengths = {(":" in to, int(to.rpartition("/")[2])) for _, to, _ in wanted}
    ours: set[RouteKey] = set()
    found: dict[RouteKey, list[Taken]] = {}
    for route in consistent_dump(partial(inet_foreign.dump_any_routes, lengths=lengths), socket):
        if route.key not in wanted:
            continue
        place, _ = wanted[route.key]
        usual = route.kind == inet.RTN_UNICAST
        through = usual and bool(place.index) and any(index == place.index for index, _ in route.hops)
        if through and route.shared:
            unproven = [hop for index, hop in inet.decode_routes(route.body) if index == place.index and not hop.ours]
            seen.hops.setdefault(place.index, []).extend(unproven)
        if route.protocol == inet.PROTOCOL:
            if through:
                ours.add(route.key)
            if usual and any(index in own for index, _ in route.hops):
                continue  # it is ours, or it is another end's and moves
        kernel = route.protocol == inet.RTPROT_KERNEL
        if not (kernel and (route.source in sources or _comes_with_ours(socket, route, addresses))):
            taken = _held(route, wanted[route.key], through, names)
            found.setdefault(route.key, []).append(replace(taken, ahead=route.key not in ours))
    for key, some in found.items():
        place, _ = wanted[key]
        beside = [replace(each, blocking=False, gone=None) for each in some] if key in ours else some
        seen.taken.setdefault(place.slot, []).extend(beside)


def _comes_with_ours(socket: Socket, route: inet_foreign.AnyRoute, own: Collection[int]) -> bool:
    """Whether a route of the kernel is that of IPv6 to the network of addresses which all are ours: it names no source,
    and goes with the last of them."""
    index = route.hops[0][0] if route.alone else 0
    if index not in own or ":" not in route.key[1]:
        return False
    dump = partial(inet_foreign.dump_any_addresses, index=index)
    some = [body for _, body in consistent_dump(dump, socket) if inet_foreign.is_within(body, route.body)]
    return bool(some) and all(inet_foreign.decode_address(body)[1] == inet.PROTOCOL for body in some)


def _held(route: inet_foreign.AnyRoute, wanted: tuple[Place, Route], through: bool, names: Mapping[int, str]) -> Taken:
    """How a route of others stands in the way of a declared one. `through`: it leads through the declared end, too."""
    devices = enumerated([names.get(index, f"link {index}") for index, _ in route.hops]) or "no device"
    kernel = route.protocol == inet.RTPROT_KERNEL
    whose = "the kernel's own, which comes with an address" if kernel else inet_foreign.route_protocol(route.protocol)
    first = route.hops[0][1] if route.hops else Route(wanted[1].to, metric=wanted[1].metric, table=wanted[1].table)
    alone = through and route.alone and not kernel
    gone = replace(first, message=route.body.hex()) if alone else None
    # One of the next hops that it shares may be ours of an earlier day.
    beside = through and route.shared
    kind = f"{inet_foreign.ROUTE_KINDS.get(route.kind, '')} ".lstrip()
    return Taken(f"{kind}{first.text} dev {devices} ({whose})", None, wanted[1], gone, blocking=not beside)


def with_hops(routes: Mapping[int, tuple[Route, ...]], seen: Seen) -> Mapping[int, tuple[Route, ...]]:
    """The routes of each link with the next hops that are known only now."""
    return {**routes, **{index: _merged(routes.get(index, ()), hops) for index, hops in seen.hops.items()}}


def _merged(routes: tuple[Route, ...], hops: Iterable[Route]) -> tuple[Route, ...]:
    known = {(route.key, route.via) for route in routes}
    return (*routes, *(hop for hop in hops if (hop.key, hop.via) not in known))
