"""Gives others the MTUs for IPv6 again that they chose, of links and of routes (new_mtus.py notes them)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from nkform.kernel import clock, devconf, inet, inet_foreign, links, sysctl
from nkform.kernel.error import KernelError
from nkform.kernel.inet_foreign import mtu_of, without_mtu
from nkform.kernel.netlink import Request, Socket, consistent_dump

if TYPE_CHECKING:
    from nkform.apply.foreign_state import ForeignItem

SYSCTL = "ipv6.mtu"
SETTLE_SECONDS = 2.0
"""How long a carrier is waited for: the kernel looks at most once a second (net/core/link_watch.c)."""
SETTLE_PAUSE = 0.01


def links_lost(some: Sequence[ForeignItem], socket: Socket) -> list[tuple[ForeignItem, bool]]:
    """Of the MTUs that links had for IPv6, those that are other ones by now, and whether there is room for them. Raises
    KernelError."""
    had = {each.name: each for each in some if each.kind == "ipv6 mtu"}
    dumped = consistent_dump(partial(devconf.dump_mtus, names=had), socket) if had else []
    found = {name: mtus for name, mtus in dumped if mtus is not None}
    without = had.keys() - found.keys()  # they are too small for IPv6 by now, or have gone
    changed = [(had[name], had[name].mtu <= own) for name, (own, mtu) in found.items() if mtu != had[name].mtu]
    return changed + [(had[name], False) for name in sorted(without)]


def give_links(some: Sequence[ForeignItem], socket: Socket) -> Iterator[str]:
    """Gives links of the namespace that the thread is in their MTUs for IPv6 again; what could not be had, although
    there is room for it. Raises KernelError."""
    _wait(sorted({each.name for each in some if each.kind == "ipv6 mtu"}), socket)
    for item, fits in links_lost(some, socket):
        try:
            if fits:
                sysctl.write(item.name, SYSCTL, str(item.mtu))
        except KernelError as error:
            yield f"{item}: {error.strerror}"


def _wait(names: Sequence[str], socket: Socket) -> None:
    """Waits for links that have just got a carrier: the kernel sets their MTU anew when it takes note of that.

    Raises KernelError.
    """
    deadline = clock.monotonic() + SETTLE_SECONDS
    while names and clock.monotonic() < deadline:
        _, answers = socket.ask([links.get(name) for name in names])
        if not any(links.is_about_to_run(message) for some in answers.values() for message in some):
            return
        clock.pause(SETTLE_PAUSE)


def routes_lost(
    some: Sequence[ForeignItem], socket: Socket, indexes: Mapping[str, int], *, room: bool
) -> Iterator[tuple[ForeignItem, Request]]:
    """Routes that are there, with another MTU, and what asks the kernel for theirs. `room`: only where the link leaves
    room for it: the kernel would take it all the same, and packets be lost. Raises KernelError."""
    had = [each for each in some if each.kind == "route" and each.name in indexes and mtu_of(each.body)]
    present = alike(socket) if had else {}
    sizes = {link.index: link.values.get("mtu") for link in consistent_dump(links.dump, socket)} if had else {}
    for each in had:
        index, mtu = indexes[each.name], mtu_of(each.body)
        own, now = sizes.get(index), present.get(without_mtu(inet.through(each.body, index)), mtu)
        if now != mtu and not (room and isinstance(own, int) and own < mtu):
            yield from ((each, request) for request in _exchanged(each, index, socket))


def _exchanged(item: ForeignItem, index: int, socket: Socket) -> Iterator[Request]:
    """Has a route of others in the place of the one that differs from it by its MTU alone.

    The kernel replaces the first of all that have its destination, table and metric, whosever they are. Where there are
    others, that one is removed, unless the kernel could take another one for it (net/ipv6/route.c, ip6_route_del).
    """
    dump = partial(inet_foreign.dump_any_routes, lengths={(True, item.body[1])})
    key = inet_foreign.route_key(item.body)
    same = [route for route in consistent_dump(dump, socket) if inet_foreign.route_key(route.body) == key]
    if len(same) > 1:
        if (
            not inet_foreign.has_gateway(item.body)
            and sum(route.hops[0][0] == index for route in same if route.hops) > 1
        ):
            return
        yield inet_foreign.delete_foreign_route(item.body, index, item.name)
    yield inet_foreign.add_foreign_route(item.body, index, item.name, instead=len(same) == 1)


def alike(socket: Socket) -> dict[bytes, int]:
    """The MTUs of the IPv6 routes of others that have one, by all else that tells them. Raises KernelError."""
    routes = consistent_dump(inet_foreign.dump_foreign_routes, socket)
    sized = [(inet.through(route, inet_foreign.leads(route)[0]), mtu_of(route)) for route in routes]
    return {without_mtu(route): mtu for route, mtu in sized if mtu}
