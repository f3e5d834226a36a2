"""What others have on ends that a run works on, and the kernel takes away as it does: addresses, routes, and the like.

A route goes with the link that it leads through, when that is taken down, and with the address that it names as its
source; an IPv6 address goes with `down` and with a small MTU, a neighbour that somebody entered with `down`; a qdisc
with its link. The MTU of a VLAN or macvlan falls with that of the link below, and does not rise with it. None of them
is in any spec, so none is in a plan: they are noted before anything is done, as the kernel reports them, and given
again after it.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from socket import AF_INET6
from typing import Literal

from nkform.apply import mtus_again
from nkform.dataclass import dataclass, replace
from nkform.kernel import clock, inet, inet_foreign, link_requests, links, neighbours, qdiscs
from nkform.kernel.error import KernelError
from nkform.kernel.links import Link
from nkform.kernel.netlink import U32, Request, Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.listing import MANY, enumerated
from nkform.model import Device, host
from nkform.plan.actions import (
    Action,
    AddAddress,
    DeleteRoute,
)
from nkform.plan.changes import Change
from nkform.problem import Problem

FOLLOW_SECONDS, FOLLOW_PAUSE, UNSEEN_SECONDS = 1.0, 0.02, 0.3
"""How long all VLANs may take to go down or up with their links, between two looks, and where there is nothing to look
at. Seconds."""
FOLLOWING = ("vlan", "macvlan", "macvtap")
"""Links that have no larger MTU than the one below."""


@dataclass(frozen=True, slots=True)
class ForeignItem:
    """An address, a route, a neighbour or a root qdisc of others, and the end that has it or that it leads through; or
    the MTU of a link of others upon one, or that it is down; or the MTU for IPv6 that they chose for a link.

    `message`: the body of the netlink message that the kernel reported it with, or the four bytes of an MTU, in
    hexadecimal digits. `place`: of a route, the one that it has among all of others with its prefix, tos, table and
    metric.
    """

    namespace: str
    name: str
    kind: Literal["address", "route", "neighbour", "qdisc", "mtu", "ipv6 mtu", "down"]
    message: str
    place: Literal["alone", "first", "further"] = "alone"

    def __str__(self) -> str:
        where = f"{self.name} in {self.namespace}" if self.namespace else self.name
        match self.kind:
            case "route":
                return f"a route of others through {where}"
            case "neighbour":
                return f"a neighbour of others at {where}"
            case "qdisc":
                return f"the qdisc of others at {where}"
            case "address":
                return f"an address of others on {where}"
            case "mtu":
                return f"the MTU of {where}"
            case "ipv6 mtu":
                return f"the IPv6 MTU of {where}"
            case "down":
                return f"{where} being down"

    @property
    def text(self) -> str:
        """What it is, by its name, and where, as a message shows it."""
        where = f"{self.name} in {self.namespace}" if self.namespace else self.name
        match self.kind:
            case "route":
                return f"route {inet_foreign.route_text(self.body)} through {where}"
            case "neighbour":
                return f"neighbour {neighbours.text(self.body)} of {where}"
            case "address":
                return f"address {inet_foreign.decode_address(self.body)[0]} of {where}"
            case "qdisc":
                return f"the root qdisc of {where}"
            case "mtu":
                return f"MTU {self.mtu} of {where}"
            case "ipv6 mtu":
                return f"IPv6 MTU {self.mtu} of {where}"
            case "down":
                return f"{where} being down"

    @property
    def body(self) -> bytes:
        return bytes.fromhex(self.message)

    @property
    def mtu(self) -> int:
        """Bytes."""
        number: int = U32.unpack(self.body)[0]
        return number


Lost = tuple[ForeignItem, Request]
"""What is to be had again, and what asks the kernel for it."""


def left_alone(others: Iterable[ForeignItem], actions: Iterable[Action]) -> list[ForeignItem]:
    """What others had, without the routes that a plan takes over."""
    over = {
        (action.end.namespace, inet.through(bytes.fromhex(action.route.message), 0))
        for action in actions
        if isinstance(action, DeleteRoute) and action.route.message
    }
    if not over:
        return list(others)
    return [each for each in others if each.kind != "route" or (each.namespace, inet.through(each.body, 0)) not in over]


def renamed(others: Iterable[ForeignItem], changes: Iterable[Change]) -> list[ForeignItem]:
    """What others had, by the names that its ends have after the changes; without that of ends that have gone, whose
    names may be those of other ends by then."""
    return [now for _, now in as_named_now(others, changes)]


def as_named_now(others: Iterable[ForeignItem], changes: Iterable[Change]) -> Iterator[tuple[ForeignItem, ForeignItem]]:
    """The same, each with what it was."""
    names: dict[tuple[str, str], str] = {}
    for change in changes:
        if isinstance(change.before, Device):
            after = change.after.ends if isinstance(change.after, Device) else ()
            for old, new in zip_longest(change.before.ends, after[: len(change.before.ends)]):
                stays = new is not None and new.namespace == old.namespace
                names[old.namespace, old.name] = new.name if stays else ""
    for each in others:
        name = names.get((each.namespace, each.name), each.name)
        if name:
            yield each, each if name == each.name else replace(each, name=name)


def give_again(items: Sequence[ForeignItem], namespaces: Namespaces, *, beside: bool) -> list[str]:
    """Gives others again what they have lost; returns what could not be. What has lost its link, or namespace, is not
    looked for.

    `beside`: a route comes back even where there is one of the same prefix and metric by now; without it, only one that
    was not alone before.
    """
    failed: list[str] = []
    by_namespace: dict[str, list[ForeignItem]] = {}
    for item in items:
        by_namespace.setdefault(item.namespace, []).append(item)
    deadline = clock.monotonic() + FOLLOW_SECONDS
    for key, some in by_namespace.items():
        try:
            with namespaces.open(key) as fd, namespaces.entered(fd, key), Socket() as socket:
                indexes = _indexes(some, socket, deadline)
                for lost in _lost(some, socket, indexes, beside):
                    wanted = list(lost)
                    outcomes, _ = socket.ask([request for _, request in wanted])
                    failed += (f"{each}: {o.strerror}" for (each, _), o in zip(wanted, outcomes, strict=True) if o)
                failed += mtus_again.give_links(some, socket)
        except KernelError as error:
            if error.errno != errno.ENOENT:
                failed.append(str(error))
    return failed


def losses(texts: Sequence[str]) -> Iterator[Problem]:
    """The warning of what others had and have no more; none where that is nothing."""
    if texts:
        said = f"what others had could not be had again: {enumerated(texts, MANY)}"
        yield Problem("NK0521", said, hint="put it back if it is needed; `rollback` does", severity="warning")


def still_there(
    items: Sequence[ForeignItem], actions: Collection[Action], changes: Collection[Change], namespaces: Namespaces
) -> list[int]:
    """The places in the list of what others have after a run, as they had it before: what of it goes later, they let
    go themselves. What the plan has taken over is theirs no more, and not among them."""
    places_of = {item: place for place, item in enumerate(items)}
    by_namespace: dict[str, dict[ForeignItem, int]] = {}
    for item, now in as_named_now(left_alone(items, actions), changes):
        by_namespace.setdefault(now.namespace, {})[now] = places_of[item]
    present: list[int] = []
    deadline = clock.monotonic() + FOLLOW_SECONDS
    for key, places in by_namespace.items():
        with suppress(KernelError):  # the namespace has gone, or cannot be looked into: nothing is known to be there
            present += _still_there(places, key, namespaces, deadline)
    return sorted(present)


def lost(
    items: Sequence[ForeignItem], kept: Collection[int], actions: Collection[Action], changes: Collection[Change]
) -> list[str]:
    """What others had before a run on ends that stay, and have no more, by its name; `kept` are the places of what they
    have. What the plan has taken over is none of it, nor is a link that is up by now."""
    over, have = set(_taken_over(actions)), set(kept)
    gone = [item for place, item in enumerate(items) if place not in have and item.kind != "down"]
    some = renamed(left_alone(gone, actions), changes)
    texts = (now.text for now in some if now.kind != "address" or (now.namespace, _host(now)) not in over)
    return list(dict.fromkeys(texts))


def _taken_over(actions: Iterable[Action]) -> Iterator[tuple[str, str]]:
    """The addresses that are ours by now, whatever their prefix length was, with their namespaces."""
    for action in actions:
        if isinstance(action, AddAddress) and action.address.ours:
            yield action.end.namespace, host(action.address)


def _host(item: ForeignItem) -> str:
    return inet_foreign.decode_address(item.body)[0].partition("/")[0]


def _still_there(places: Mapping[ForeignItem, int], key: str, namespaces: Namespaces, deadline: float) -> list[int]:
    with namespaces.open(key) as fd, namespaces.entered(fd, key), Socket() as socket:
        indexes = _indexes(places, socket, deadline)
        some = _lost(list(places), socket, indexes, beside=True, onlink=True)
        gone = {item for lost in some for item, _ in lost}
        gone.update(item for item, _ in mtus_again.links_lost(list(places), socket))
    there = [(item, place) for item, place in places.items() if item.name in indexes and item not in gone]
    return [place for item, place in there if item.kind != "down"]  # it comes up with the link below: look again then


def _indexes(some: Collection[ForeignItem], socket: Socket, deadline: float) -> dict[str, int]:
    """The ifindexes of all links by name. Since Linux 7 the VLANs upon a link go down and up some moments after it
    (net/8021q/vlan.c): those that others have something on are waited for until the deadline, which all namespaces
    share: a workload can take its VLAN down at any time. What stands upon a link of another namespace, which cannot be
    seen from there, is given some time once."""
    names = {each.name for each in some}
    is_first = True
    while True:
        present = {link.index: link for link in consistent_dump(links.dump, socket)}
        vlans = [link for link in present.values() if link.kind == "vlan" and link.name in names]
        if is_first and any(link.nsid is not None for link in vlans):
            is_first = False
            clock.pause(min(UNSEEN_SECONDS, max(0.0, deadline - clock.monotonic())))
            continue
        below = ((link, present.get(link.link)) for link in vlans if link.nsid is None)
        followed = all(lower is None or lower.values.get("up") == link.values.get("up") for link, lower in below)
        if followed or clock.monotonic() > deadline:  # else somebody has it down
            return {link.name: index for index, link in present.items()}
        clock.pause(FOLLOW_PAUSE)


def _lost(
    some: Sequence[ForeignItem], socket: Socket, indexes: Mapping[str, int], beside: bool, onlink: bool = False
) -> Iterator[Iterator[Lost]]:
    """What is not there any more, kind by kind: each is to be had again before the next one is looked at. `onlink`: a
    route whose gateway is taken for reachable by now is there."""
    yield _mtus_lost(some, socket, indexes)
    yield _addresses_lost(some, socket, indexes)
    yield _neighbours_lost(some, socket, indexes)
    yield _qdiscs_lost(some, socket, indexes)
    yield _downs_lost(some, socket, indexes)
    yield _routes_lost(some, socket, indexes, beside, onlink)
    yield mtus_again.routes_lost(some, socket, indexes, room=not onlink)


def _mtus_lost(some: Sequence[ForeignItem], socket: Socket, indexes: Mapping[str, int]) -> Iterator[Lost]:
    """A bridge that goes by its ports has its own again by itself; one that somebody raised meanwhile stays."""
    had = [each for each in some if each.kind == "mtu" and each.name in indexes]
    present = {link.index: link for link in consistent_dump(links.dump, socket)} if had else {}
    for each in had:
        link = present.get(indexes[each.name])
        if link is not None and (_is_below(link, each.mtu) or _falls(link, each.mtu, present)):
            yield each, link_requests.change(each.name, {"mtu": each.mtu}, link.index)


def _downs_lost(some: Sequence[ForeignItem], socket: Socket, indexes: Mapping[str, int]) -> Iterator[Lost]:
    had = [each for each in some if each.kind == "down" and each.name in indexes]
    present = {link.index: link for link in consistent_dump(links.dump, socket)} if had else {}
    for each in had:
        if (link := present.get(indexes[each.name])) is not None and link.values.get("up"):
            yield each, link_requests.change(each.name, {"up": False}, link.index)


def _falls(link: Link, mtu: int, present: Mapping[int, Link]) -> bool:
    """Whether a link is about to have a smaller MTU than that, as one below it has: the kernel may see to it later
    (since Linux 7; net/8021q/vlan.c)."""
    while link.kind in FOLLOWING and link.nsid is None and link.link in present:
        link = present[link.link]
        if _is_below(link, mtu):
            return True
    return False


def _is_below(link: Link, mtu: int) -> bool:
    own = link.values.get("mtu")
    return isinstance(own, int) and own < mtu


def _addresses_lost(some: Sequence[ForeignItem], socket: Socket, indexes: Mapping[str, int]) -> Iterator[Lost]:
    had = [each for each in some if each.kind == "address"]
    ends = {indexes[each.name] for each in had if each.name in indexes}
    dumped = inet_foreign.of_links(inet_foreign.dump_foreign_addresses, socket, ends) if ends else ()
    there = {(index, inet_foreign.address_key(address)) for index, address in dumped}
    for each in had:
        index = indexes.get(each.name, 0)
        if not index or (index, inet_foreign.address_key(each.body)) in there:
            continue
        # A run that follows one that was killed may have it twice.
        there.add((index, inet_foreign.address_key(each.body)))
        yield each, inet_foreign.add_foreign_address(each.body, index, each.name)


def _neighbours_lost(some: Sequence[ForeignItem], socket: Socket, indexes: Mapping[str, int]) -> Iterator[Lost]:
    had = [(indexes[each.name], each) for each in some if each.kind == "neighbour" and each.name in indexes]
    ends = {index for index, _ in had}
    present = {(index, neighbours.key(entry)) for index, entry in (neighbours.made(socket, ends) if ends else ())}
    for index, each in had:
        if (index, neighbours.key(each.body)) not in present:
            yield each, neighbours.add(each.body, index, each.name)


def _qdiscs_lost(some: Sequence[ForeignItem], socket: Socket, indexes: Mapping[str, int]) -> Iterator[Lost]:
    """What somebody has given a link since then stays."""
    had = {indexes[each.name]: each for each in some if each.kind == "qdisc" and each.name in indexes}
    present = qdiscs.at_root(socket, had) if had else {}
    for index, each in had.items():
        if index not in present:
            yield each, qdiscs.add(each.body, index, each.name)


def _routes_lost(
    some: Sequence[ForeignItem], socket: Socket, indexes: Mapping[str, int], beside: bool, onlink: bool
) -> Iterator[Lost]:
    had = [each for each in some if each.kind == "route"]
    routes = consistent_dump(partial(inet_foreign.dump_foreign_routes, wide=True), socket) if had else []
    same = set(routes)  # as nearly all are, of which there may be many
    had = [each for each in had if each.body not in same or indexes.get(each.name) != inet_foreign.leads(each.body)[0]]
    if not had:
        return
    far = inet_foreign.reached(each.body for each in had)
    made = consistent_dump(partial(inet_foreign.dump_far_end_routes, far=far), socket)
    there = {inet.through(route, inet_foreign.leads(route)[0]) for route in (*routes, *made)}
    sourceless = {
        inet.through(route, inet_foreign.leads(route)[0], sourceless=True) for route in routes if route[0] == AF_INET6
    }
    taken = {inet_foreign.route_key(route) for route in routes}
    alike = mtus_again.alike(socket) if any(inet_foreign.mtu_of(each.body) for each in had) else {}
    for each in sorted(had, key=lambda each: inet_foreign.has_gateway(each.body) or inet_foreign.is_bound(each.body)):
        index = indexes.get(each.name, 0)
        if not index:
            continue
        route = inet.through(each.body, index)
        if route in there or (onlink and inet_foreign.with_onlink(route) in there):
            continue
        if route in sourceless:  # it had lost its source address to a run that was killed, and has it again by now
            continue
        if alike and inet_foreign.without_mtu(route) in alike:  # with another MTU, which it gets back by itself
            continue
        # An IPv6 route loses its source address alone, and cannot stand beside what is left of it.
        robbed = each.body[0] == AF_INET6 and inet.through(each.body, index, sourceless=True) in there
        there.add(route)
        if robbed or beside or each.place != "alone" or inet_foreign.route_key(each.body) not in taken:
            first = each.place == "first"
            yield each, inet_foreign.add_foreign_route(each.body, index, each.name, instead=robbed, first=first)
