"""Some sysctls of all interfaces of a namespace at once: what RTM_GETNETCONF reports of them.

The files of sysctl.py cost a lookup each, which on a node with a thousand devices makes tens of thousands. Layout and
numbers: include/uapi/linux/netconf.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from socket import AF_INET, AF_INET6

from nkform.kernel.netlink import ATTRIBUTE, S32, Request, Socket, walk

RTM_GETNETCONF = 82
NETCONFA_IFINDEX = 1
NETCONFA_IFINDEX_DEFAULT = -2
HEADER_BYTES = 4
"""struct netconfmsg is one byte, the family, and padded."""

KEYS: Mapping[int, Mapping[int, str]] = {
    AF_INET: {
        2: "ipv4.forwarding",
        3: "ipv4.rp_filter",
        5: "ipv4.proxy_arp",
        6: "ipv4.ignore_routes_with_linkdown",
        8: "ipv4.bc_forwarding",
    },
    AF_INET6: {2: "ipv6.forwarding", 5: "ipv6.proxy_ndp", 6: "ipv6.ignore_routes_with_linkdown"},
}
"""NETCONFA_* by family: those that can be set."""
INDEX_FIRST = ATTRIBUTE.pack(ATTRIBUTE.size + S32.size, NETCONFA_IFINDEX)
"""The header of the attribute that every message begins with (net/ipv4/devinet.c, inet_netconf_fill_devconf)."""
ALIKE = 64
"""Messages that are remembered, without the ifindex: nearly all interfaces have what a new one gets."""


def changed(socket: Socket) -> dict[int, dict[str, str]]:
    """By ifindex, the sysctls whose values are not those that a new interface gets. Raises KernelError."""
    found: dict[int, dict[str, str]] = {}
    for family in KEYS:
        values: dict[int, Mapping[str, str]] = {}
        body = bytes([family]) + bytes(HEADER_BYTES - 1)
        for message in socket.fetch(Request(RTM_GETNETCONF, 0, body, "list the sysctls of interfaces")):
            index, some = _decoded(family, message.buffer[message.start + HEADER_BYTES : message.end])
            values[index] = some
        usual = values.get(NETCONFA_IFINDEX_DEFAULT, {})
        for index, some in values.items():
            if index > 0 and some is not usual and (differing := {k: v for k, v in some.items() if v != usual.get(k)}):
                found.setdefault(index, {}).update(differing)
    return found


def _decoded(family: int, body: bytes) -> tuple[int, Mapping[str, str]]:
    """The ifindex that a message is about, and what it says; where two say the same, one object serves for both."""
    if body.startswith(INDEX_FIRST):
        end = len(INDEX_FIRST) + S32.size
        return S32.unpack_from(body, len(INDEX_FIRST))[0], _values(family, body[end:])
    return S32.unpack_from(walk(body, 0, len(body))[NETCONFA_IFINDEX])[0], _values(family, body)


@lru_cache(ALIKE)
def _values(family: int, attributes: bytes) -> Mapping[str, str]:
    parts = walk(attributes, 0, len(attributes))
    return {key: str(S32.unpack_from(parts[n])[0]) for n, key in KEYS[family].items() if n in parts}
