"""Addresses and routes whosever they are, as the kernel reports them: read, told apart, and given back as they were.

What is ours, and what the model knows of it, is in inet.py. Layouts: include/uapi/linux/if_addr.h,
include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from socket import AF_INET, AF_INET6, AF_UNSPEC, inet_ntop
from typing import NamedTuple

from nkform.kernel.error import KernelError
from nkform.kernel.inet import (
    IFA_ADDRESS,
    IFA_F_PERMANENT,
    IFA_LOCAL,
    IFA_PROTO,
    IFADDRMSG,
    KERNEL_ADDRESSES,
    PROTOCOL,
    RTA_DST,
    RTA_GATEWAY,
    RTA_METRICS,
    RTA_MULTIPATH,
    RTA_NH_ID,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_PRIORITY,
    RTA_SRC,
    RTA_TABLE,
    RTA_VIA,
    RTAX_LOCK,
    RTAX_MTU,
    RTM_DELROUTE,
    RTM_F_CLONED,
    RTM_GETADDR,
    RTM_GETROUTE,
    RTM_NEWADDR,
    RTM_NEWROUTE,
    RTMSG,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    RTPROT_KERNEL,
    RTPROT_RA,
    T,
    address_body,
    hops_of,
    passing,
    through,
)
from nkform.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    U32,
    Request,
    Socket,
    attribute,
    consistent_dump,
    nested,
    u32,
    walk,
)
from nkform.model import Route, RouteKey

IPV6_HOST = 128
"""The prefix length of a single IPv6 address."""
RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST = 2, 3, 4, 5
"""include/uapi/linux/rtnetlink.h"""
LEADING = (RTN_UNICAST, RTN_LOCAL, RTN_BROADCAST, RTN_ANYCAST, RTN_MULTICAST)
"""Kinds of routes that lead through a link."""
FEW = 2
"""Links that are asked for one by one."""


def dump_foreign_addresses(socket: Socket, index: int = 0) -> Iterator[tuple[int, bytes]]:
    """The addresses that others gave, as they are, with the index of their link; not those that the kernel makes.

    `index` asks for those of one link alone.
    """
    request = Request(RTM_GETADDR, 0, IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, index), "list the addresses of others")
    for message in socket.fetch(request):
        family, _, _, _, index = IFADDRMSG.unpack_from(message.buffer, message.start)
        found = walk(message.buffer, message.start + IFADDRMSG.size, message.end)
        protocol = found[IFA_PROTO][0] if IFA_PROTO in found else 0
        if family in (AF_INET, AF_INET6) and protocol != PROTOCOL and protocol not in KERNEL_ADDRESSES:
            yield index, bytes(message.buffer[message.start : message.end])


def dump_any_addresses(socket: Socket, index: int = 0) -> Iterator[tuple[int, bytes]]:
    """All addresses, as they are, whosever they are and however long they are there, with the index of their link."""
    request = Request(RTM_GETADDR, 0, IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, index), "list all addresses")
    for message in socket.fetch(request):
        family, _, _, _, index = IFADDRMSG.unpack_from(message.buffer, message.start)
        if family in (AF_INET, AF_INET6):
            yield index, bytes(message.buffer[message.start : message.end])


def decode_address(address: bytes) -> tuple[str, int, bool]:
    """A dumped address with its prefix length, its protocol, and whether it is there for some time only."""
    family, length, flags, _, _ = IFADDRMSG.unpack_from(address)
    found = walk(address, IFADDRMSG.size, len(address))
    text = f"{inet_ntop(family, bytes(found.get(IFA_LOCAL) or found[IFA_ADDRESS]))}/{length}"
    return text, found[IFA_PROTO][0] if IFA_PROTO in found else 0, not flags & IFA_F_PERMANENT


def address_protocol(number: int) -> str:
    """Whose an address is, as a message shows it."""
    known = {0: "without a protocol", 2: "of a router's advertisement"} | dict.fromkeys((1, 3), "the kernel's own")
    return known.get(number, f"protocol {number}")


def of_links(
    dump: Callable[..., Iterator[tuple[int, T]]], socket: Socket, indexes: Collection[int]
) -> list[tuple[int, T]]:
    """A dump of addresses, of some links at least. Raises KernelError.

    Links that came up a moment ago are still being given addresses by the kernel, which interrupts a dump of all of
    them again and again. That of one link fits into one message, and nothing can come between. A few are asked for link
    by link at once: in a workload's namespace there are the addresses of `lo` beside them.
    """
    try:
        if len(indexes) > FEW:
            return list(dump(socket))
    except KernelError as error:
        if error.errno != errno.EINTR:
            raise
    addresses: list[tuple[int, T]] = []
    for index in indexes:
        try:
            addresses += consistent_dump(partial(dump, index=index), socket)
        except KernelError as error:
            if error.errno != errno.ENODEV:  # it has gone since
                raise
    return addresses


def add_foreign_address(address: bytes, index: int, name: str, *, relabelled: bool = False) -> Request:
    """Adds an address as it was dumped, usable at once. `relabelled`: its link has got another name since."""
    body = address_body(address, index, name, relabelled=relabelled)
    return Request(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, body, f"give {name} an address of others")


def address_key(address: bytes) -> tuple[int, int, bytes, bytes]:
    """What tells an address of a link from all others of it: family, prefix length, the address, and the far end's."""
    family, length, _, _, _ = IFADDRMSG.unpack_from(address)
    found = walk(address, IFADDRMSG.size, len(address))
    other = bytes(found[IFA_ADDRESS])
    return family, length, bytes(found.get(IFA_LOCAL) or other), other


Asked = tuple[int, int]
"""A family and a protocol of routes; 0 is any."""


def _request(words: str, asked: Asked, index: int = 0) -> Request:
    """A dump of routes, through one link if that is said."""
    family, protocol = asked
    link = u32(RTA_OIF, index) if index else b""
    return Request(RTM_GETROUTE, 0, RTMSG.pack(family, 0, 0, 0, 0, protocol, 0, 0, 0) + link, words)


def _all_but_too_large(dump: Callable[[Asked], Iterator[T]], most: int | None = None) -> list[T]:
    """All routes, or so many of them; where one has more next hops than a message of the kernel holds, all but those of
    its family and protocol. Raises KernelError."""
    try:
        return list(islice(dump((AF_UNSPEC, 0)), most))
    except KernelError as error:
        if error.errno != errno.EMSGSIZE:
            raise
    found: list[T] = []
    for family in (AF_INET, AF_INET6):
        for protocol in range(1, 256):
            try:
                found += islice(dump((family, protocol)), most)
            except KernelError as error:
                if error.errno != errno.EMSGSIZE:
                    raise
            if most is not None and len(found) >= most:
                return found
    return found


def dump_foreign_routes(
    socket: Socket, index: int = 0, *, wide: bool = False, most: int | None = None
) -> Iterator[bytes]:
    """The routes of others through one link, of all by default; without those that the kernel makes by itself, and
    those that drop packets, which lead through none.

    They are as the kernel reports them. What leads through several links or through a nexthop object is among them only
    if `wide`, and what is there for some time only never. `most`: so many at most; where there are so many, the socket
    takes no other dump before it is reopened.
    """
    yield from _all_but_too_large(partial(_foreign_routes, socket, index, wide), most)


def _foreign_routes(socket: Socket, index: int, wide: bool, asked: Asked) -> Iterator[bytes]:
    for message in socket.dump(_request("list the routes of others", asked, index)):
        family, _, _, _, _, protocol, _, kind, flags = RTMSG.unpack_from(message.buffer, message.start)
        if kind not in LEADING or flags & RTM_F_CLONED or protocol in (PROTOCOL, RTPROT_KERNEL, RTPROT_RA):
            continue
        found = walk(message.buffer, message.start + RTMSG.size, message.end)
        if family in (AF_INET, AF_INET6) and (_goes_through_any_link(found) or (wide and _is_wide(family, found))):
            yield bytes(message.buffer[message.start : message.end])


def _goes_through_any_link(parts: Mapping[int, bytes]) -> bool:
    """Whether a route of these attributes can be given to another link: it has one next hop of its own, and is
    there for good."""
    return RTA_OIF in parts and RTA_NH_ID not in parts and not passing(parts)


def _is_wide(family: int, parts: Mapping[int, bytes]) -> bool:
    """Whether a route of these attributes leads through several links, or through a nexthop object that leads
    somewhere, and is there for good."""
    bound = RTA_MULTIPATH in parts or RTA_NH_ID in parts
    return bound and not passing(parts) and next(hops_of(family, 0, parts), None) is not None


def dump_bound_routes(socket: Socket, index: int) -> Iterator[bytes]:
    """The routes of others that lead through a link, as `dump_foreign_routes` leaves them out: through several links or
    a nexthop object, or for some time only."""
    yield from _all_but_too_large(partial(_bound_routes, socket, index))


def _bound_routes(socket: Socket, index: int, asked: Asked) -> Iterator[bytes]:
    for message in socket.dump(_request("list the routes of others", asked, index)):
        family, _, _, _, _, protocol, _, kind, flags = RTMSG.unpack_from(message.buffer, message.start)
        if flags & RTM_F_CLONED or protocol in (PROTOCOL, RTPROT_KERNEL, RTPROT_RA):
            continue
        parts = walk(message.buffer, message.start + RTMSG.size, message.end)
        through_it = family in (AF_INET, AF_INET6) and any(hop == index for hop, _, _ in hops_of(family, flags, parts))
        if through_it and not (kind in LEADING and _goes_through_any_link(parts)):
            yield bytes(message.buffer[message.start : message.end])


def dump_advertised(socket: Socket) -> Iterator[int]:
    """The indexes of the links through which default routes lead that routers advertised."""
    body = RTMSG.pack(AF_INET6, 0, 0, 0, 0, RTPROT_RA, 0, 0, 0)
    for message in socket.dump(Request(RTM_GETROUTE, 0, body, "list the routes that routers advertised")):
        family, length, _, _, _, protocol, _, _, flags = RTMSG.unpack_from(message.buffer, message.start)
        if (family, length, protocol) == (AF_INET6, 0, RTPROT_RA) and not flags & RTM_F_CLONED:
            parts = walk(message.buffer, message.start + RTMSG.size, message.end)
            yield from (index for index, _, _ in hops_of(family, flags, parts))


def is_within(address: bytes, route: bytes) -> bool:
    """Whether a dumped address, or the far end of it, has the network that a dumped route leads to."""
    family, length, *ends = address_key(address)
    if (family, length) != (route[0], route[1]):
        return False
    to = walk(route, RTMSG.size, len(route)).get(RTA_DST, bytes(len(ends[0])))
    *firsts, wanted = (int.from_bytes(each, "big") >> 8 * len(each) - length for each in (*ends, to))
    return wanted in firsts


def far_ends(addresses: Iterable[bytes]) -> set[bytes]:
    """The far ends of dumped IPv6 addresses, packed."""
    return {key[3] for key in map(address_key, addresses) if key[0] == AF_INET6 and key[2] != key[3]}


def reached(routes: Iterable[bytes]) -> set[bytes]:
    """The destinations of the dumped routes that the kernel made, packed."""
    made = [route for route in routes if RTMSG.unpack_from(route)[5] == RTPROT_KERNEL]
    return {bytes(walk(route, RTMSG.size, len(route)).get(RTA_DST, b"")) for route in made}


def dump_far_end_routes(socket: Socket, far: Collection[bytes], index: int = 0) -> Iterator[bytes]:
    """The routes that the kernel made to far ends of IPv6 addresses, through one link or any, as it reports them.

    With an address that a link gets while it is down comes none, nor later (net/ipv6/addrconf.c, fixup_permanent_addr).
    """
    request = _request("list the routes to far ends", (AF_INET6, RTPROT_KERNEL), index)
    for message in socket.dump(request) if far else ():
        _, length, _, _, _, protocol, _, kind, _ = RTMSG.unpack_from(message.buffer, message.start)
        found = walk(message.buffer, message.start + RTMSG.size, message.end)
        leads_there = length == IPV6_HOST and bytes(found.get(RTA_DST, b"")) in far
        if leads_there and (protocol, kind) == (RTPROT_KERNEL, RTN_UNICAST) and RTA_OIF in found:
            yield bytes(message.buffer[message.start : message.end])


class AnyRoute(NamedTuple):
    """A route, whosever it is: its kind, its protocol, its source address, its next hops with the index of their links.

    `shared`: an IPv6 route with several next hops, which may be of several owners. `alone`: it has a single one, which
    is no nexthop object. `body` is the kernel's message.
    """

    key: RouteKey
    kind: int
    protocol: int
    source: str | None
    hops: tuple[tuple[int, Route], ...]
    shared: bool
    alone: bool
    body: bytes


def dump_any_routes(socket: Socket, lengths: Collection[tuple[bool, int]]) -> Iterator[AnyRoute]:
    """All routes whose destinations have one of these prefix lengths, told by whether they are IPv6.

    Of any kind: to the kernel, what drops packets has the place of a route all the same.
    """
    yield from _all_but_too_large(partial(_any_routes, socket, lengths))


def _any_routes(socket: Socket, lengths: Collection[tuple[bool, int]], asked: Asked) -> Iterator[AnyRoute]:
    for message in socket.dump(_request("list all routes", asked)):
        family, length, _, tos, table, protocol, _, kind, flags = RTMSG.unpack_from(message.buffer, message.start)
        if (family == AF_INET6, length) not in lengths or tos or flags & RTM_F_CLONED:
            continue
        if family not in (AF_INET, AF_INET6):
            continue
        route = bytes(message.buffer[message.start : message.end])
        parts = walk(route, RTMSG.size, len(route))
        destination = parts.get(RTA_DST, b"\0" * (16 if family == AF_INET6 else 4))
        to = f"{inet_ntop(family, destination)}/{length}"
        metric = U32.unpack_from(parts[RTA_PRIORITY])[0] if RTA_PRIORITY in parts else 0
        table = U32.unpack_from(parts[RTA_TABLE])[0] if RTA_TABLE in parts else table
        source = inet_ntop(family, parts[RTA_PREFSRC]) if RTA_PREFSRC in parts else None
        hops = tuple(
            (index, Route(to, via, bool(flagged & RTNH_F_ONLINK), source, metric, table))
            for index, via, flagged in hops_of(family, flags, parts)
        )
        shared = family == AF_INET6 and RTA_MULTIPATH in parts and RTA_NH_ID not in parts
        alone = len(hops) == 1 and RTA_NH_ID not in parts and kind == RTN_UNICAST
        yield AnyRoute((table, to, metric), kind, protocol, source, hops, shared, alone, route)


ROUTE_PROTOCOLS = {
    1: "redirect", RTPROT_KERNEL: "kernel", 3: "boot", 4: "static", RTPROT_RA: "ra", 11: "zebra", 12: "bird",
    16: "dhcp", 186: "bgp", 187: "isis", 188: "ospf", 189: "rip",
}  # fmt: skip
"""RTPROT_* of include/uapi/linux/rtnetlink.h, by the names of iproute2 (etc/iproute2/rt_protos)."""


ROUTE_KINDS = {
    2: "local", 3: "broadcast", 4: "anycast", 5: "multicast",
    6: "blackhole", 7: "unreachable", 8: "prohibit", 9: "throw",
}  # fmt: skip
"""RTN_* of include/uapi/linux/rtnetlink.h, by the names of iproute2; the usual one has none."""


def route_protocol(number: int) -> str:
    """Whose a route is, as a message shows it."""
    return f"proto {ROUTE_PROTOCOLS.get(number, number)}"


def route_key(route: bytes) -> tuple[object, ...]:
    """What of a dumped route another one must differ in to stand beside it: prefixes, tos, table and metric."""
    family, length, source_length, tos, table, _, _, _, _ = RTMSG.unpack_from(route)
    found = walk(route, RTMSG.size, len(route))
    parts = (bytes(found.get(number, b"")) for number in (RTA_DST, RTA_SRC, RTA_TABLE, RTA_PRIORITY))
    return family, length, source_length, tos, *parts, table


def route_text(route: bytes) -> str:
    """A dumped route in words."""
    family, length, _, _, table, _, _, kind, flags = RTMSG.unpack_from(route)
    parts = walk(route, RTMSG.size, len(route))
    to = f"{inet_ntop(family, parts.get(RTA_DST, bytes(16 if family == AF_INET6 else 4)))}/{length}"
    via = next((via for _, via, _ in hops_of(family, flags, parts)), None)
    metric = U32.unpack_from(parts[RTA_PRIORITY])[0] if RTA_PRIORITY in parts else 0
    table = U32.unpack_from(parts[RTA_TABLE])[0] if RTA_TABLE in parts else table
    words = f"{ROUTE_KINDS[kind]} " if kind in ROUTE_KINDS else ""
    return words + Route(to, via, metric=metric, table=table).text


def has_gateway(route: bytes) -> bool:
    """Whether a dumped route leads to a gateway, which another route must lead to first."""
    return not {RTA_GATEWAY, RTA_VIA}.isdisjoint(walk(route, RTMSG.size, len(route)))


def leads(route: bytes) -> tuple[int, bytes | None]:
    """The index of the link that a dumped route leads through, the first of several, and the source address that it
    names, if any."""
    found = walk(route, RTMSG.size, len(route))
    index, _, _ = next(hops_of(route[0], 0, found))
    source = found.get(RTA_PREFSRC)
    return index, None if source is None else bytes(source)


def is_bound(route: bytes) -> bool:
    """Whether a dumped route can only be had as long as there are just those links or that nexthop object."""
    return not {RTA_MULTIPATH, RTA_NH_ID}.isdisjoint(walk(route, RTMSG.size, len(route)))


def is_passing(route: bytes) -> bool:
    """Whether a dumped route is there for some time only."""
    return passing(walk(route, RTMSG.size, len(route)))


def mtu_of(route: bytes) -> int:
    """The MTU (bytes) of a dumped IPv6 route that the kernel changes with that of its link; 0 where it has none, or one
    that is locked."""
    metrics = _metrics(route)
    locked = RTAX_LOCK in metrics and U32.unpack(metrics[RTAX_LOCK])[0] & 1 << RTAX_MTU
    return 0 if locked or RTAX_MTU not in metrics else U32.unpack(metrics[RTAX_MTU])[0]


def without_mtu(route: bytes) -> bytes:
    """A dumped IPv6 route as it would be without an MTU of its own, to be compared with others alike."""
    parts = walk(route, RTMSG.size, len(route))
    metrics = {number: payload for number, payload in _metrics(route).items() if number != RTAX_MTU}
    body = b"".join(attribute(number, bytes(payload)) for number, payload in parts.items() if number != RTA_METRICS)
    rest = [attribute(number, bytes(payload)) for number, payload in metrics.items()]
    return route[: RTMSG.size] + body + (nested(RTA_METRICS, *rest) if rest else b"")


def _metrics(route: bytes) -> Mapping[int, bytes]:
    """Those of an IPv6 route."""
    parts = walk(route, RTMSG.size, len(route))
    if route[0] != AF_INET6 or RTA_METRICS not in parts:
        return {}
    return walk(parts[RTA_METRICS], 0, len(parts[RTA_METRICS]))


def add_foreign_route(
    route: bytes, index: int, name: str, *, instead: bool = False, first: bool = False, onlink: bool = False
) -> Request:
    """Adds a route that was dumped, through any link, behind those of its key; or `instead` of one of them, or as the
    `first`, which IPv6 does not know. `onlink`: its gateway is taken for reachable."""
    ahead = first and route[0] == AF_INET
    flags = NLM_F_CREATE | (NLM_F_REPLACE if instead else 0 if ahead else NLM_F_APPEND)
    body = through(route, index)
    if onlink:
        body = with_onlink(body)
    return Request(RTM_NEWROUTE, flags, body, f"have a route of others lead through {name}")


def with_onlink(route: bytes) -> bytes:
    """A route whose gateway is taken for reachable."""
    *head, flagged = RTMSG.unpack_from(route)
    return RTMSG.pack(*head, flagged | RTNH_F_ONLINK) + route[RTMSG.size :]


def delete_foreign_route(route: bytes, index: int, name: str) -> Request:
    return Request(RTM_DELROUTE, 0, through(route, index), f"have no route of others lead through {name}")
