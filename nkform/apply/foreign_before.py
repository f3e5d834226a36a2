"""What others have on ends that a plan works on, noted before anything is done (foreign_state.py gives it again)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Literal

from nkform.apply.foreign_state import ForeignItem
from nkform.kernel import inet, inet_foreign, links, neighbours, qdiscs
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.model import IPV6_MIN_MTU, Node
from nkform.namespace_key import ROOT, described
from nkform.observe.leaning import leans
from nkform.plan.actions import (
    Action,
    AddAddress,
    DeleteAddress,
    DeletePair,
    DeleteRoute,
    MoveEnd,
    SetLink,
    SetSysctl,
    SetUp,
)
from nkform.problem import Problem

MOST = 16_384
"""Of what there is in a workload's namespace so much is noted at most: it can have a million routes within seconds."""


def shaken(actions: Iterable[Action], live: Node) -> dict[str, set[str]]:
    """By namespace, the ends that the actions, or going back from them, may take something of others from, as they are
    called before them."""
    if not live.devices:
        return {}
    names = {device.index: device.name for device in live.devices.values() if device.index}
    devices = {name for action in actions for name in _shaken(action, names)}
    ends: dict[str, set[str]] = {}
    for name in devices & live.devices.keys():
        for end in live.devices[name].ends:
            ends.setdefault(end.namespace, set()).add(end.name)
    return ends


def _shaken(action: Action, names: Mapping[int, str]) -> Iterator[str]:
    """The devices that an action, or going back from it, may take addresses or routes from, as they are called before
    the run. To an end that is new it does not matter."""
    match action:
        case DeletePair(device):
            yield names.get(device.index, device.name)
        case MoveEnd(_, _, device):
            yield device
        case SetUp(end) | DeleteAddress(end) | AddAddress(end):
            yield end.device
        case DeleteRoute(end, route) if route.message:
            yield end.device
        case SetLink(end, before, after) if is_small(before.get("mtu")) or is_small(after.get("mtu")):
            yield end.device
        case SetSysctl(end, "ipv6.disable_ipv6", before, after) if after != "0" or before not in (None, "0"):
            yield end.device
        case _:
            return


def lowered(actions: Iterable[Action], live: Node) -> dict[str, dict[int, int]]:
    """By namespace, the ends whose MTU falls, or may fall, and which stay where they are: their new MTUs by ifindex."""
    present = {(end.namespace, end.index) for device in live.devices.values() for end in device.ends if end.index}
    ends: dict[str, dict[int, int]] = {}
    for action in actions:
        if not isinstance(action, SetLink) or (action.end.namespace, action.end.index) not in present:
            continue
        before, after = (each.get("mtu") for each in (action.before, action.after))
        if isinstance(after, int) and (not isinstance(before, int) or after < before):
            ends.setdefault(action.end.namespace, {})[action.end.index] = after
    return ends


def upon(socket: Socket, ends: Collection[int]) -> dict[str, int]:
    """The MTUs (bytes) of the links of the socket's namespace that stand upon some ends, whose ifindexes are given, by
    their names: VLANs and the like, bridges and other masters; what is below before what is above.

    Raises KernelError.
    """
    present = consistent_dump(links.dump, socket)
    found: list[links.Link] = []
    seen = below = set(ends)
    while below:
        masters = {link.master for link in present if link.index in below}
        some = [
            link
            for link in present
            if link.index not in seen
            and (link.index in masters or (leans(link) and link.nsid is None and link.link in below))
        ]
        found += some
        below = {link.index for link in some}
        seen = seen | below
    return {link.name: mtu for link in found if isinstance(mtu := link.values.get("mtu"), int)}


def is_small(mtu: object) -> bool:
    """Whether a link has too small an MTU for IPv6; one that nobody knows is not."""
    return isinstance(mtu, int) and mtu < IPV6_MIN_MTU


def read(socket: Socket, key: str, names: Collection[str], known: Mapping[int, str]) -> Iterator[ForeignItem]:
    """What others have on some ends of the socket's namespace: addresses first, which routes may need.

    `known` are the names of all its links by their ifindex. Raises KernelError.
    """
    indexes = [index for index, name in known.items() if name in names]
    addresses: dict[int, list[bytes]] = {}
    for index, address in inet_foreign.of_links(inet_foreign.dump_foreign_addresses, socket, indexes):
        if known.get(index) in names:
            addresses.setdefault(index, []).append(address)
            yield ForeignItem(key, known[index], "address", address.hex())
    for index, some in addresses.items():
        far = inet_foreign.far_ends(some)
        for route in consistent_dump(partial(inet_foreign.dump_far_end_routes, far=far, index=index), socket):
            yield ForeignItem(key, known[index], "route", route.hex())
    for index, entry in neighbours.made(socket, indexes):
        yield ForeignItem(key, known[index], "neighbour", entry.hex())
    for index, (kind, qdisc) in qdiscs.at_root(socket, indexes).items():
        if kind in qdiscs.REMADE:
            yield ForeignItem(key, known[index], "qdisc", qdisc.hex())
    most = None if key == ROOT else MOST + 1
    routes = consistent_dump(partial(inet_foreign.dump_foreign_routes, wide=True, most=most), socket)
    if len(routes) == most:  # there may be more, which nobody reads
        socket.reopen("list the routes of others")
    present = inet_foreign.of_links(inet.dump_addresses, socket, indexes) if routes else ()
    sources = {inet.packed(address.text) for index, address in present if known.get(index) in names}
    chosen: list[tuple[int, bytes]] = []
    for route in routes:
        index, source = inet_foreign.leads(route)
        # Through several links a route can be had again only as it was, so not where one of them has gone meanwhile.
        through_it = known.get(index) in names and not inet_foreign.is_bound(route)
        if index in known and (through_it or source in sources):
            chosen.append((index, route))
    places = _places(routes) if chosen else {}
    for index, route in chosen:
        yield ForeignItem(key, known[index], "route", route.hex(), places.get(route, "alone"))


def _places(routes: Iterable[bytes]) -> dict[bytes, Literal["first", "further"]]:
    """The places of routes that are not alone with their prefix, tos, table and metric; the kernel lists IPv4 routes
    in the order in which it would take them."""
    by_key: dict[tuple[object, ...], list[bytes]] = {}
    for route in routes:
        by_key.setdefault(inet_foreign.route_key(route), []).append(route)
    several = [some for some in by_key.values() if len(some) > 1]
    return {route: "further" if number else "first" for some in several for number, route in enumerate(some)}


def unnoted(keys: Iterable[str]) -> Iterator[Problem]:
    """The warnings of namespaces where others have more than is noted."""
    for key in keys:
        yield Problem(
            "NK0524",
            f"what others have in {described(key)} was not noted before this run: it is more than {MOST:,} addresses,"
            " routes and neighbours",
            hint="the run, or going back from it, may have taken some of it, which does not come back by itself",
            severity="warning",
        )
