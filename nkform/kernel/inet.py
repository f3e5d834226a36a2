"""Addresses and routes in rtnetlink messages.

Ours carry a protocol number of our own (IFA_PROTO, rtm_protocol), by which they are known again and told from others'.
Layouts: include/uapi/linux/if_addr.h, include/uapi/linux/rtnetlink.h.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from socket import AF_INET, AF_INET6, AF_UNSPEC, inet_ntop, inet_pton
from typing import TypeVar

from nkform.kernel.error import KernelError
from nkform.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    S32,
    U16,
    U32,
    Message,
    Request,
    Socket,
    attribute,
    nested,
    u32,
    walk,
)
from nkform.model import Address, Route

T = TypeVar("T")

PROTOCOL = 78
"""`N`: the protocol number on addresses and routes of ours; /etc/iproute2/rt_protos and rtnetlink.h leave it free."""

RTM_NEWADDR = 20
RTM_DELADDR = 21
RTM_GETADDR = 22
RTM_NEWROUTE = 24
RTM_DELROUTE = 25
RTM_GETROUTE = 26
IFADDRMSG = struct.Struct("=BBBBI")
"""family, prefix length, flags, scope, index"""
RTMSG = struct.Struct("=BBBBBBBBI")
"""family, destination length, source length, tos, table, protocol, scope, type, flags"""

IFA_ADDRESS = 1
IFA_LOCAL = 2
IFA_LABEL = 3
IFA_CACHEINFO = 6
LIFETIMES = struct.Struct("=II")
"""What struct ifa_cacheinfo begins with: for how many seconds an address is preferred, and valid."""
FOR_EVER = 0xFFFFFFFF
IFNAMSIZ = 16
IFA_FLAGS = 8
IFA_PROTO = 11
IFAPROT_KERNEL_LL = 3
"""The link-local address that the kernel gives a link by itself, some time after it came up."""
KERNEL_ADDRESSES = (1, 2, IFAPROT_KERNEL_LL)
"""All that the kernel gives by itself: to loopback (IFAPROT_KERNEL_LO), after a router's advertisement, link-local."""
IFA_F_NODAD = 0x02
IFA_F_CHOSEN = 0x710
"""Flags that somebody chose: HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN."""
IFA_F_OPTIMISTIC = 0x04
IFA_F_TENTATIVE = 0x40
IFA_F_PERMANENT = 0x80
RTA_DST = 1
RTA_SRC = 2
RTA_OIF = 4
RTA_GATEWAY = 5
RTA_PRIORITY = 6
RTA_PREFSRC = 7
RTA_METRICS = 8
RTA_MULTIPATH = 9
RTA_CACHEINFO = 12
RTA_EXPIRES_AT = 8
"""Where struct rta_cacheinfo says for how long a route will be there, 0 for good."""
RTA_TABLE = 15
RTA_VIA = 18
RTA_NH_ID = 30
RTA_PREF = 20
RTA_FLOW, RTA_ENCAP_TYPE, RTA_ENCAP = 11, 21, 22
RTAX_LOCK, RTAX_MTU = 1, 2
PASSING = attribute(RTA_CACHEINFO, bytes(RTA_EXPIRES_AT) + b"\1" + bytes(23))
"""A struct rta_cacheinfo that says no more than that a route will go; it is not sent."""
OF_THE_HOP = {RTA_OIF, RTA_GATEWAY, RTA_VIA, RTA_MULTIPATH, RTA_FLOW, RTA_ENCAP_TYPE, RTA_ENCAP, RTA_CACHEINFO}
"""What the kernel reports of a nexthop object, and what it alone tells."""
KNOWN = frozenset(
    {RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC, RTA_METRICS, RTA_MULTIPATH, RTA_CACHEINFO, RTA_TABLE,
     RTA_VIA, RTA_PREF}
)  # fmt: skip
"""What the model has of a route, or need not have: all routes have the other attributes alike, or not at all."""
RTN_UNICAST = 1
RTPROT_KERNEL = 2
RTPROT_RA = 9
RTNH_F_ONLINK = 4
RTNEXTHOP = struct.Struct("=HBBi")
"""length, flags, hops, index"""
RT_SCOPE_UNIVERSE = 0
RT_SCOPE_LINK = 253
RTM_F_CLONED = 0x200
RT_TABLE_COMPAT = 252
ALIKE = 256
"""Messages that are remembered: a node's namespaces have the same routes again and again."""


def family_of(text: str) -> int:
    return AF_INET6 if ":" in text else AF_INET


def _prefix(text: str) -> tuple[int, bytes, int]:
    """Family, address and length of a prefix."""
    address, _, length = text.partition("/")
    family = family_of(address)
    return family, inet_pton(family, address), int(length)


def packed(prefix: str) -> bytes:
    """The address of a prefix, in network byte order."""
    return _prefix(prefix)[1]


def dump_addresses(
    socket: Socket, index: int = 0, among: Collection[int] | None = None
) -> Iterator[tuple[int, Address]]:
    """All addresses of the socket's namespace that somebody set for good, with the index of their link.

    `index` asks for those of one link alone; `among` has those of other links passed over.
    """
    request = Request(RTM_GETADDR, 0, IFADDRMSG.pack(AF_UNSPEC, 0, 0, 0, index), "list the addresses")
    for message in socket.fetch(request):
        family, length, flags, _, index = IFADDRMSG.unpack_from(message.buffer, message.start)
        if not flags & IFA_F_PERMANENT or (among is not None and index not in among):
            continue
        found = walk(message.buffer, message.start + IFADDRMSG.size, message.end)
        payload = found.get(IFA_LOCAL) or found.get(IFA_ADDRESS)
        if payload is None:
            continue
        protocol = found[IFA_PROTO][0] if IFA_PROTO in found else 0
        if protocol != IFAPROT_KERNEL_LL:
            ours = protocol == PROTOCOL
            text = f"{inet_ntop(family, payload)}/{length}"
            if ours:
                yield index, Address(text)
            else:
                yield index, address_of_others(text, bytes(message.buffer[message.start : message.end]))


def dump_tentative(socket: Socket, index: int) -> Iterator[int]:
    """The indexes of links that have addresses which the kernel still looks for duplicates of; of one link alone."""
    for message in socket.dump(
        Request(RTM_GETADDR, 0, IFADDRMSG.pack(AF_INET6, 0, 0, 0, index), "list the new addresses")
    ):
        _, _, flags, _, found = IFADDRMSG.unpack_from(message.buffer, message.start)
        if flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC:
            yield found


def add_address(index: int, name: str, address: Address, *, replace: bool = False) -> Request:
    """Adds an address, marked as ours, usable at once: both ends of a pair are ours, there is no duplicate to
    detect. One of others is had as it was, and so is one that was taken over, but for its protocol."""
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    asked = f"add address {address.text} to {name}"
    if address.message:
        protocol = PROTOCOL if address.ours else None
        body = address_body(bytes.fromhex(address.message), index, name, protocol=protocol)
        return Request(RTM_NEWADDR, flags, body, asked)
    family, packed, length = _prefix(address.text)
    body = (
        IFADDRMSG.pack(family, length, 0, 0, index)
        + attribute(IFA_LOCAL, packed)
        + attribute(IFA_ADDRESS, packed)
        + attribute(IFA_PROTO, bytes([PROTOCOL if address.ours else 0]))
    )
    if family == AF_INET6:
        body += u32(IFA_FLAGS, IFA_F_NODAD)
    return Request(RTM_NEWADDR, flags, body, asked)


def address_of_others(text: str, body: bytes) -> Address:
    """One as it was dumped."""
    message = address_message(body)
    return Address(text, False, message, _is_apart(bytes.fromhex(message)))


def _is_apart(body: bytes) -> bool:
    """IPv4 takes two addresses for one only if their far ends are in one subnet (net/ipv4/devinet.c,
    find_matching_ifa). IPv6 makes a route that has expired to the subnet of one that gets a lifetime later (seen on
    Linux 6.18; net/ipv6/addrconf.c, modify_prefix_route)."""
    family, length, _, _, _ = IFADDRMSG.unpack_from(body)
    parts = walk(body, IFADDRMSG.size, len(body))
    if family == AF_INET6:
        return IFA_CACHEINFO in parts
    own, far = (int.from_bytes(parts.get(number, b"")) >> (32 - length) for number in (IFA_LOCAL, IFA_ADDRESS))
    return IFA_LOCAL in parts and own != far


def address_message(address: bytes) -> str:
    """A dumped address in hexadecimal digits: all that somebody chose, and no more."""
    parts = walk(address, IFADDRMSG.size, len(address))
    lifetimes = parts.get(IFA_CACHEINFO, b"")[: LIFETIMES.size]
    lasting = not lifetimes or set(LIFETIMES.unpack(lifetimes)) == {FOR_EVER}
    kept = (number for number in parts if number != IFA_CACHEINFO or not lasting)
    body = address[: IFADDRMSG.size] + b"".join(attribute(number, bytes(parts[number])) for number in kept)
    return body.hex()


def address_body(
    address: bytes, index: int, name: str, *, relabelled: bool = False, protocol: int | None = None
) -> bytes:
    """A dumped address, to be given to a link as it was, usable at once; its label begins with the link's name.

    `relabelled`: the kernel may have put a number behind the name (net/ipv4/devinet.c, inetdev_changename).
    `protocol`: whose it is from now on, for good.
    """
    family, length, _, scope, _ = IFADDRMSG.unpack_from(address)
    parts = walk(address, IFADDRMSG.size, len(address))
    flags = U32.unpack_from(parts[IFA_FLAGS])[0] if IFA_FLAGS in parts else 0
    body = IFADDRMSG.pack(family, length, 0, scope, index)
    for number, payload in parts.items():
        if number == IFA_LABEL:
            _, colon, further = bytes(payload).rstrip(b"\0").partition(b":")
            if relabelled and further.isdigit():
                colon = further = b""
            label = os.fsencode(name) + colon + further
            if len(label) < IFNAMSIZ:
                body += attribute(number, label + b"\0")
        elif number != IFA_FLAGS and (protocol is None or number not in (IFA_PROTO, IFA_CACHEINFO)):
            body += attribute(number, bytes(payload))
    if protocol is not None:
        body += attribute(IFA_PROTO, bytes([protocol]))
    return body + u32(IFA_FLAGS, flags & IFA_F_CHOSEN | (IFA_F_NODAD if family == AF_INET6 else 0))


def delete_address(index: int, name: str, address: Address) -> Request:
    family, packed, length = _prefix(address.text)
    other = packed  # the far end's, of a point-to-point address
    if address.message:
        other = bytes(walk(bytes.fromhex(address.message), IFADDRMSG.size, len(address.message) // 2)[IFA_ADDRESS])
    body = IFADDRMSG.pack(family, length, 0, 0, index) + attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, other)
    return Request(RTM_DELADDR, 0, body, f"remove address {address.text} from {name}")


def dump_routes(socket: Socket, index: int = 0) -> Iterator[tuple[int, Route]]:
    """Our unicast routes of the socket's namespace, with the index of their link; through one link, if `index` is said.

    The kernel itself leaves out the routes of others (strict checking), so a full routing table costs nothing here. Of
    one link alone it tells those of others as well: only so are next hops of ours seen behind theirs (`decode_routes`).
    Where one of these is too large to be told of, it tells of ours alone.
    """
    try:
        for message in _routes(socket, index):
            for found in decode_routes(message.buffer[message.start : message.end]):
                if not index or found[0] == index:
                    yield found
    except KernelError as error:
        if error.errno != errno.EMSGSIZE or not index:
            raise
        yield from (found for found in dump_routes(socket) if found[0] == index)


def _routes(socket: Socket, index: int) -> Iterable[Message]:
    protocol, link = (0, u32(RTA_OIF, index)) if index else (PROTOCOL, b"")
    body = RTMSG.pack(AF_UNSPEC, 0, 0, 0, 0, protocol, 0, RTN_UNICAST, 0) + link
    request = Request(RTM_GETROUTE, 0, body, "list the routes")
    return socket.fetch(request) if index else socket.dump(request)


@lru_cache(ALIKE)
def decode_routes(body: bytes) -> tuple[tuple[int, Route], ...]:
    """The unicast routes that a message tells of, if they are ours. Where all is alike, one object serves for all.

    IPv6 reports routes that differ in their gateway alone as one with several next hops, whosever they are, with all
    that the first one has, its protocol too (net/ipv6/route.c, rt6_fill_node). Here each is one of its own, and it is
    not known of any but the first whose it is.
    """
    family, length, _, tos, table, protocol, scope, kind, flags = RTMSG.unpack_from(body)
    if kind != RTN_UNICAST or flags & RTM_F_CLONED or (protocol != PROTOCOL and family != AF_INET6):
        return ()
    parts = walk(body, RTMSG.size, len(body))
    shared = family == AF_INET6 and RTA_MULTIPATH in parts and RTA_NH_ID not in parts
    if protocol != PROTOCOL and not shared:
        return ()
    destination = parts.get(RTA_DST, b"\0" * (16 if family == AF_INET6 else 4))
    metrics = walk(parts[RTA_METRICS], 0, len(parts[RTA_METRICS])) if RTA_METRICS in parts else {}
    strange = tos or not parts.keys() <= KNOWN or not metrics.keys() <= {RTAX_MTU} or passing(parts)
    if family == AF_INET:
        strange = strange or RTA_MULTIPATH in parts or scope != _scope(parts.keys().isdisjoint((RTA_GATEWAY, RTA_VIA)))
    table = U32.unpack_from(parts[RTA_TABLE])[0] if RTA_TABLE in parts else table
    metric = U32.unpack_from(parts[RTA_PRIORITY])[0] if RTA_PRIORITY in parts else 0
    source = inet_ntop(family, parts[RTA_PREFSRC]) if RTA_PREFSRC in parts else None
    mtu = U32.unpack_from(metrics[RTAX_MTU])[0] if RTAX_MTU in metrics else 0
    to = f"{inet_ntop(family, destination)}/{length}"
    message = ""
    if strange and not shared:  # the same through whatever link, and at whatever time
        message = (through(body, 0) + (PASSING if passing(parts) else b"")).hex()
    routes: list[tuple[int, Route]] = []
    for index, via, flagged in hops_of(family, flags, parts):
        onlink = bool(flagged & RTNH_F_ONLINK)
        if shared and (routes or protocol != PROTOCOL):
            route = Route(to, via, onlink, metric=metric, table=table, ours=False)
        else:
            route = Route(to, via, onlink, source, metric, table, mtu, message)
        routes.append((index, route))
    return tuple(routes)


def passing(parts: Mapping[int, bytes]) -> bool:
    """Whether a route is there for some time only."""
    return RTA_CACHEINFO in parts and S32.unpack_from(parts[RTA_CACHEINFO], RTA_EXPIRES_AT)[0] != 0


def _scope(direct: bool) -> int:
    """The scope that our IPv4 routes have, with a gateway and without."""
    return RT_SCOPE_LINK if direct else RT_SCOPE_UNIVERSE


def hops_of(family: int, flags: int, found: Mapping[int, bytes]) -> Iterator[tuple[int, str | None, int]]:
    """The links that a route leads through, each with its gateway and its flags (RTNH_F_*)."""
    if RTA_OIF in found:
        yield U32.unpack_from(found[RTA_OIF])[0], _gateway(family, found), flags
    several = found.get(RTA_MULTIPATH, b"")
    place = 0
    while place + RTNEXTHOP.size <= len(several):
        length, flagged, _, index = RTNEXTHOP.unpack_from(several, place)
        if length < RTNEXTHOP.size:
            return
        yield index, _gateway(family, walk(several, place + RTNEXTHOP.size, place + length)), flagged
        place += (length + 3) & ~3


def _gateway(family: int, found: Mapping[int, bytes]) -> str | None:
    if (payload := found.get(RTA_GATEWAY)) is not None:
        return inet_ntop(family, payload)
    if (payload := found.get(RTA_VIA)) is not None:
        return inet_ntop(U16.unpack_from(payload)[0], payload[2:])
    return None


def through(route: bytes, index: int, *, sourceless: bool = False) -> bytes:
    """A route as it was dumped, through another link, to be sent back: what the kernel only reports is left out.

    `sourceless`: without the source address that it names. One through several links is sent as it was; of one through
    a nexthop object, the kernel takes that alone (net/ipv4/fib_frontend.c, rtm_to_fib_config), whatever link it has.
    """
    *head, flags = RTMSG.unpack_from(route)
    parts = walk(route, RTMSG.size, len(route))
    if RTA_NH_ID in parts:
        kept = parts.keys() - OF_THE_HOP
        return RTMSG.pack(*head, 0) + b"".join(attribute(number, bytes(parts[number])) for number in sorted(kept))
    body = RTMSG.pack(*head, flags & RTNH_F_ONLINK)
    for number, payload in parts.items():
        if number not in (RTA_OIF, RTA_CACHEINFO) and not (sourceless and number == RTA_PREFSRC):
            body += attribute(number, bytes(payload))
    return body if RTA_MULTIPATH in parts else body + u32(RTA_OIF, index)


def _route(index: int, route: Route) -> bytes:
    family, packed, length = _prefix(route.to)
    scope = _scope(route.via is None) if family == AF_INET else RT_SCOPE_UNIVERSE
    table = route.table if route.table < 256 else RT_TABLE_COMPAT
    flags = RTNH_F_ONLINK if route.onlink else 0
    body = RTMSG.pack(family, length, 0, 0, table, PROTOCOL, scope, RTN_UNICAST, flags)
    body += attribute(RTA_DST, packed) + u32(RTA_OIF, index) + u32(RTA_TABLE, route.table)
    if route.via is not None:
        gateway = family_of(route.via)
        packed = inet_pton(gateway, route.via)
        body += attribute(RTA_GATEWAY, packed) if gateway == family else attribute(RTA_VIA, U16.pack(gateway) + packed)
    if route.metric:
        body += u32(RTA_PRIORITY, route.metric)
    if route.src is not None:
        body += attribute(RTA_PREFSRC, inet_pton(family, route.src))
    if route.mtu:
        body += nested(RTA_METRICS, u32(RTAX_MTU, route.mtu))
    return body


def add_route(index: int, name: str, route: Route, *, beside: bool = False, first: bool = False) -> Request:
    """Adds a route; `beside` others of the same destination, table and metric, behind or (IPv4 alone) before which it
    comes."""
    flags = NLM_F_CREATE | (0 if beside and first else NLM_F_APPEND if beside else NLM_F_EXCL)
    body = _route(index, route) if not route.message else through(bytes.fromhex(route.message), index)
    return Request(RTM_NEWROUTE, flags, body, f"add route {route.to} to {name}")


def delete_route(index: int, name: str, route: Route) -> Request:
    """Removes a route of exactly this protocol, gateway and link.

    Without a source address, or in IPv6 without a gateway, the kernel takes the first one that is as the rest says
    (net/ipv4/fib_trie.c, fib_table_delete; net/ipv6/route.c, ip6_route_del): `kernel_takes` in plan/routes.py.
    """
    if route.message:
        body = through(bytes.fromhex(route.message), index)
    else:
        body = _route(index, route)
        if not route.mtu and ":" not in route.to:  # no metric at all would be any
            body += nested(RTA_METRICS, u32(RTAX_MTU, 0))
    return Request(RTM_DELROUTE, 0, body, f"remove route {route.to} from {name}")
