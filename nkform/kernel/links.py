"""Links in rtnetlink messages: encoding requests, decoding dumps. Which attributes there are is attributes.py's to say.

Layouts: include/uapi/linux/if_link.h, rtnetlink(7); netkit's attributes: enum IFLA_NETKIT_* there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from functools import cache
from operator import itemgetter
from types import MappingProxyType

from nkform.attributes import ATTRIBUTES, Flag, Ifla, NetkitData
from nkform.dataclass import dataclass
from nkform.kernel.netlink import (
    ATTRIBUTE,
    NLA_TYPE_MASK,
    U8,
    U16,
    U32,
    Message,
    Request,
    Socket,
    attribute,
    find,
    string,
    text,
    u32,
    walk,
)
from nkform.kinds import kind_of
from nkform.model import Value

RTM_NEWLINK = 16
RTM_DELLINK = 17
RTM_GETLINK = 18
IFINFOMSG = struct.Struct("=BxHiII")
"""family, pad, type, index, flags, change"""
TYPE_WORD = 0
INDEX_WORD = 1
FLAGS_WORD = 2
"""Which 32 bit words of it the index and the flags are."""

IFLA_IFNAME = 3
IFLA_MTU = 4
IFLA_LINK = 5
IFLA_STATS = 7
IFLA_MASTER = 10
IFLA_LINKINFO = 18
IFLA_IFALIAS = 20
IFLA_STATS64 = 23
IFLA_GROUP = 27
IFLA_NET_NS_FD = 28
IFLA_AF_SPEC = 26
IFLA_EXT_MASK = 29
IFLA_LINK_NETNSID = 37
IFLA_TARGET_NETNSID = 46
IFLA_XDP = 43
IFLA_TSO_MAX_SIZE = 59
IFLA_MAX_MTU = 51
IFLA_PROP_LIST = 52
IFLA_ALT_IFNAME = 53
IFLA_HEADROOM = 68
IFLA_TAILROOM = 69
IFLA_INFO_KIND = 1
IFLA_INFO_DATA = 2
IFLA_INFO_SLAVE_KIND = 4
IFLA_INFO_SLAVE_DATA = 5
IFLA_VXLAN_LINK = 3
IFLA_NETKIT_PRIMARY = 2
RTEXT_FILTER_SKIP_STATS = 8
XDP_NONE = 8
"""How long the payload of IFLA_XDP is where no program is attached (net/core/rtnetlink.c, rtnl_xdp_fill)."""
XDP_PROGRAMS = (4, 5, 6, 7)
"""IFLA_XDP_PROG_ID, and those of each mode where there are several."""
LOOPBACK = 1
"""The ifindex of `lo` in every namespace (include/linux/netdevice.h, LOOPBACK_IFINDEX)."""
IFF_UP = 0x1
IFF_RUNNING = 0x40
IFF_LOWER_UP = 0x10000
NO_MAC = "00:00:00:00:00:00"

BRIDGE_PORT = (*range(2, 13), 25, 27, 28, 29, 30, 31, 32, 33, 37, 39, 40, 42, 43)
"""The options of a bridge's port that can be set, in the order of IFLA_BRPORT_*: PRIORITY, COST, MODE, GUARD, PROTECT,
FAST_LEAVE, LEARNING ... (include/uapi/linux/if_link.h; net/bridge/br_netlink.c, br_port_policy). The rest is the
kernel's own, the port's state, its number, its timers, or goes by the number of something else (BACKUP_PORT)."""

FALLBACKS: Mapping[str, str] = {
    "tunl0": "ipip",
    "gre0": "gre",
    "gretap0": "gretap",
    "erspan0": "erspan",
    "ip_vti0": "vti",
    "sit0": "sit",
    "ip6tnl0": "ip6tnl",
    "ip6gre0": "ip6gre",
    "ip6_vti0": "vti6",
}
"""The devices that the modules of tunnels make in every namespace by themselves, and their kinds; nobody can remove
them (net/ipv4/ip_tunnel.c, ip_tunnel_init_net; ipip.c, ip_gre.c, ip_vti.c; net/ipv6/sit.c, ip6_tunnel.c, ip6_gre.c,
ip6_vti.c)."""

HEADERS: Mapping[int, int] = {1: 14, 772: 14}
"""How long the header is that devices of a type begin their packets with, in bytes: that of Ethernet (ARPHRD_ETHER, and
ARPHRD_LOOPBACK has the same; include/uapi/linux/if_arp.h, if_ether.h). Tunnels of IP packets have none."""

NUMBERS: Mapping[str, struct.Struct] = {"u8": U8, "u16": U16, "u32": U32}


@dataclass(frozen=True, slots=True)
class Link:
    """A link as the kernel reports it.

    `values` are the attributes of its own; `own` and `peer` those of a netkit's INFO_DATA, as this end sees them.
    `link` and `nsid` say where the other end is: its ifindex, and its namespace's id (None: in the same one).
    `headroom` and `tailroom` in bytes, None where the kernel does not report them (before Linux 6.18). `max_mtu` in
    bytes, 0 where the kernel sets none. `header` is the length of its link header, in bytes. `altnames` are the further
    names that it is known by (ip-link(8), property). `port`: what it is like as a port of its master, and `xdp`, its
    XDP programs; both undecoded (`port_options`, `xdp_programs`).
    """

    index: int
    name: str
    kind: str
    alias: str
    master: int
    link: int
    nsid: int | None
    group: int
    primary: bool
    values: Mapping[str, Value]
    own: Mapping[str, Value]
    peer: Mapping[str, Value]
    headroom: int | None
    tailroom: int | None
    max_mtu: int = 0
    altnames: tuple[str, ...] = ()
    port: bytes | None = None
    xdp: bytes | None = None
    header: int = 0


def is_the_kernels(link: Link) -> bool:
    """Whether a link is one that the kernel makes in every namespace, `lo` and fallback tunnels, and nobody's."""
    return link.index == LOOPBACK or FALLBACKS.get(link.name) == link.kind


FLAG_BITS = tuple((a.name, a.kept.bit) for a in ATTRIBUTES if isinstance(a.kept, Flag))
_FLAGS = sum(bit for _, bit in FLAG_BITS)
_LINK_VALUES = tuple((a.name, a.kept.number) for a in ATTRIBUTES if isinstance(a.kept, Ifla))
_DATA = tuple((a.name, a.kept) for a in ATTRIBUTES if isinstance(a.kept, NetkitData))
_MAC = next(number for name, number in _LINK_VALUES if name == "mac")
"""All other attributes of a link's own that the model has are 32 bit numbers."""


@cache
def _flag_values(flags: int) -> Mapping[str, bool]:
    return {name: bool(flags & bit) for name, bit in FLAG_BITS}


NOWHERE = (0, 0)
NOTHING: Mapping[str, Value] = MappingProxyType({})


class _Layout:
    """Where a link's message has what the model keeps.

    Links of a kind are told alike, but for what is in their attributes. So the places are worked out once, and of a
    further message of the same length it is enough to see that all headers of its attributes are the same: a twelfth
    of the time. `words` are the 32 bit words of a message's body.
    """

    def __init__(self, body: bytes, words: memoryview) -> None:
        heads: list[int] = []
        parts = _places(body, (IFINFOMSG.size, len(body)), heads)
        info = _places(body, parts.get(IFLA_LINKINFO, NOWHERE), heads)
        self._kind = string(_payload(body, info.get(IFLA_INFO_KIND)))
        heads += range(*info.get(IFLA_INFO_KIND, NOWHERE))  # by the kind the data is read
        data = _places(body, info.get(IFLA_INFO_DATA, NOWHERE) if kind_of(self._kind).own_data else NOWHERE, heads)
        if self._kind == "vxlan":  # it goes with the link below, and tells of it here alone
            tunnel = _places(body, info.get(IFLA_INFO_DATA, NOWHERE), heads)
            parts |= {IFLA_LINK: tunnel[IFLA_VXLAN_LINK]} if IFLA_VXLAN_LINK in tunnel else {}
        self._header = HEADERS.get(IFINFOMSG.unpack_from(body)[1], 0)
        self._heads = itemgetter(INDEX_WORD, FLAGS_WORD, TYPE_WORD, *sorted({place // 4 for place in heads}))
        self._alike = self._heads(words)[2:]
        self._texts = parts.get(IFLA_IFNAME), parts.get(IFLA_IFALIAS), parts.get(_MAC)
        known = [(name, parts[number][0] // 4) for name, number in _LINK_VALUES if number in parts and number != _MAC]
        self._names = tuple(name for name, _ in known)
        self._numbers = itemgetter(*(place for _, place in known), INDEX_WORD, FLAGS_WORD)
        self._others = tuple(
            parts[number][0] // 4 if number in parts else 0
            for number in (IFLA_MASTER, IFLA_LINK, IFLA_LINK_NETNSID, IFLA_GROUP)
        )
        self._rooms = parts.get(IFLA_HEADROOM), parts.get(IFLA_TAILROOM)
        self._max_mtu = parts[IFLA_MAX_MTU][0] // 4 if IFLA_MAX_MTU in parts else 0
        self._altnames = parts.get(IFLA_PROP_LIST)
        self._port = info.get(IFLA_INFO_SLAVE_DATA)
        self.af_spec = parts.get(IFLA_AF_SPEC, (len(body), len(body)))
        start, end = parts.get(IFLA_XDP, NOWHERE)
        self._xdp = (start, end) if end - start > XDP_NONE else None
        self._primary = data.get(IFLA_NETKIT_PRIMARY)
        self._own = tuple((name, data[kept.own][0], kept) for name, kept in _DATA if kept.own in data)
        self._peer = tuple((name, data[kept.peer][0], kept) for name, kept in _DATA if kept.peer in data)

    def fits(self, words: memoryview) -> bool:
        return bool(self._heads(words)[2:] == self._alike)

    def link(self, body: bytes, words: memoryview) -> Link:
        values: dict[str, Value] = dict(zip(self._names, self._numbers(words), strict=False))
        name, alias, mac = self._texts
        if mac and (told := body[mac[0] : mac[1]].hex(":")) != NO_MAC:  # which a netkit in l3 mode has
            values["mac"] = told
        index, flags = words[INDEX_WORD], words[FLAGS_WORD]
        values.update(_flag_values(flags & _FLAGS))
        master, link, nsid, group = self._others
        headroom, tailroom = self._rooms
        return Link(
            index,
            string(_payload(body, name)),
            self._kind,
            string(_payload(body, alias)),
            words[master] if master else 0,
            words[link] if link else 0,
            words[nsid] if nsid else None,
            words[group] if group else 0,
            bool(self._primary and body[self._primary[0]]),
            values,
            {key: _data_value(body, place, kept) for key, place, kept in self._own} if self._own else NOTHING,
            {key: _data_value(body, place, kept) for key, place, kept in self._peer} if self._peer else NOTHING,
            U16.unpack_from(body, headroom[0])[0] if headroom else None,
            U16.unpack_from(body, tailroom[0])[0] if tailroom else None,
            words[self._max_mtu] if self._max_mtu else 0,
            tuple(_altnames(body, self._altnames)) if self._altnames else (),
            _payload(body, self._port),
            _payload(body, self._xdp),
            self._header,
        )


def _places(body: bytes, within: tuple[int, int], heads: list[int]) -> dict[int, tuple[int, int]]:
    """Where attributes have their payloads, by number; `heads` gets the places of all headers that were looked at."""
    payloads: dict[int, tuple[int, int]] = {}
    start, end = within
    while start + ATTRIBUTE.size <= end:
        heads.append(start)
        length, number = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size or start + length > end:
            break
        payloads[number & NLA_TYPE_MASK] = start + ATTRIBUTE.size, start + length
        start += (length + 3) & ~3
    return payloads


def _altnames(body: bytes, within: tuple[int, int]) -> Iterator[str]:
    """The further names in the list of a link's properties, which has one attribute for each."""
    start, end = within
    while start + ATTRIBUTE.size <= end:
        length, number = ATTRIBUTE.unpack_from(body, start)
        if length < ATTRIBUTE.size or start + length > end:
            return
        if number & NLA_TYPE_MASK == IFLA_ALT_IFNAME:
            yield string(body[start + ATTRIBUTE.size : start + length])
        start += (length + 3) & ~3


def _payload(body: bytes, place: tuple[int, int] | None) -> bytes | None:
    return body[place[0] : place[1]] if place else None


def _data_value(body: bytes, place: int, kept: NetkitData) -> Value:
    """A value of a netkit's INFO_DATA, by its name where it has one."""
    number: int = NUMBERS[kept.form].unpack_from(body, place)[0]
    if kept.names is None:
        return number
    return next((name for name, known in kept.names.items() if known == number), f"#{number}")


class Decoder:
    """Makes Links of RTM_NEWLINK messages. It learns how they look: one is best used for many.

    Each namespace has a `lo`, and nearly all of them are alike but for what the protocols keep there (IFLA_AF_SPEC),
    which the model has nothing of: one object serves for them.
    """

    def __init__(self) -> None:
        self._layouts: dict[int, _Layout] = {}
        self._loopback: tuple[bytes, int, bytes, Link] | None = None

    def __call__(self, message: Message) -> Link:
        body = message.buffer[message.start : message.end]
        if self._loopback is not None:
            before, end, behind, known = self._loopback
            if body.startswith(before) and body[end:] == behind:
                return known
        if remainder := len(body) % 4:
            body += bytes(4 - remainder)
        words = memoryview(body).cast("I")
        layout = self._layouts.get(len(body))
        if layout is None or not layout.fits(words):
            layout = self._layouts[len(body)] = _Layout(body, words)
        link = layout.link(body, words)
        if link.index == LOOPBACK and not remainder:
            start, end = layout.af_spec
            self._loopback = body[:start], end, body[end:], link
        return link


def xdp_programs(link: Link) -> list[int]:
    """The ids of a link's XDP programs."""
    parts = walk(link.xdp, 0, len(link.xdp)) if link.xdp else {}
    return list(dict.fromkeys(U32.unpack_from(parts[number])[0] for number in XDP_PROGRAMS if number in parts))


def port_options(link: Link) -> str:
    """What somebody may have chosen of a bridge's port, in hexadecimal digits, for `set_master`."""
    parts = walk(link.port, 0, len(link.port)) if link.port else {}
    return b"".join(attribute(number, bytes(parts[number])) for number in BRIDGE_PORT if number in parts).hex()


def decode(message: Message) -> Link:
    """A RTM_NEWLINK message as a Link."""
    return Decoder()(message)


def index_of(message: Message) -> int:
    """The ifindex of a RTM_NEWLINK message."""
    return int(IFINFOMSG.unpack_from(message.buffer, message.start)[2])


def name_of(message: Message) -> str:
    """The name of a RTM_NEWLINK message's link."""
    return string(find(message.buffer, message.start + IFINFOMSG.size, message.end, IFLA_IFNAME))


def is_running(message: Message) -> bool:
    """Whether a link, as a RTM_NEWLINK message has it, is up and the kernel has taken note of its carrier."""
    return bool(IFINFOMSG.unpack_from(message.buffer, message.start)[3] & IFF_RUNNING)


def is_about_to_run(message: Message) -> bool:
    """Whether a link, as a RTM_NEWLINK message has it, has a carrier that the kernel will take note of in a moment."""
    flags = IFINFOMSG.unpack_from(message.buffer, message.start)[3]
    return bool(flags & IFF_LOWER_UP) and not flags & IFF_RUNNING


def still_parts(message: Message) -> Iterator[bytes]:
    """A link's message without its packet counters, undecoded: what is alike as long as the link is."""
    buffer, place, kept = message.buffer, message.start + IFINFOMSG.size, message.start
    unpack = ATTRIBUTE.unpack_from
    while place + ATTRIBUTE.size <= message.end:
        length, number = unpack(buffer, place)
        after = place + ((length + 3) & ~3)
        if number in (IFLA_STATS, IFLA_STATS64):
            yield buffer[kept:place]
            kept = after
            if number == IFLA_STATS:  # the last of the two: net/core/rtnetlink.c, rtnl_fill_stats
                break
        if length < ATTRIBUTE.size:
            break
        place = after
    yield buffer[kept : message.end]


def dump(socket: Socket, decoder: Decoder | None = None) -> Iterator[Link]:
    """All links of the socket's namespace. `decoder`: one that knows links of other namespaces already."""
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    return map(decoder or Decoder(), socket.fetch(Request(RTM_GETLINK, 0, body, "list the links")))


def get(name: str, *, index: int = 0, nsid: int | None = None) -> Request:
    """Asks for one link by name, or by index in the namespace with that id."""
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    if not index:
        body += text(IFLA_IFNAME, name)
    if nsid is not None:
        body += u32(IFLA_TARGET_NETNSID, nsid)
    return Request(RTM_GETLINK, 0, body, f"read device {name or index}")
