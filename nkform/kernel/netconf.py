"""Some sysctls of all interfaces of a namespace at once: what RTM_GETNETCONF reports of them.

The files of sysctl.py cost a lookup each, which on a node with a thousand devices makes tens of thousands. Layout and
numbers: include/uapi/linux/netconf.h.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from socket import AF_INET, AF_INET6

from nkform.kernel.netlink import S32, Request, Socket, walk

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


def changed(socket: Socket) -> Iterator[tuple[int, dict[str, str]]]:
    """By ifindex, the sysctls whose values are not those that a new interface gets. Raises KernelError."""
    found: dict[int, dict[str, str]] = {}
    for family, keys in KEYS.items():
        values: dict[int, dict[str, str]] = {}
        body = bytes([family]) + bytes(HEADER_BYTES - 1)
        for message in socket.dump(Request(RTM_GETNETCONF, 0, body, "list the sysctls of interfaces")):
            parts = walk(message.buffer, message.start + HEADER_BYTES, message.end)
            index = S32.unpack_from(parts[NETCONFA_IFINDEX])[0]
            values[index] = {key: str(S32.unpack_from(parts[n])[0]) for n, key in keys.items() if n in parts}
        usual = values.get(NETCONFA_IFINDEX_DEFAULT, {})
        for index, some in values.items():
            if index > 0:
                found.setdefault(index, {}).update({k: v for k, v in some.items() if v != usual.get(k)})
    yield from found.items()
