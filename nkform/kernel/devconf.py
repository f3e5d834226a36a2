"""All sysctls of all interfaces of a namespace that a link dump reports (IFLA_AF_SPEC): one request in place of a file
each.

What is left out is read-only, follows from something else, or is reported in another unit than the file has. Numbers:
include/uapi/linux/ip.h (IPV4_DEVCONF_*, which count from 1), include/uapi/linux/ipv6.h (DEVCONF_*).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from socket import AF_INET, AF_INET6, AF_UNSPEC

from nkform.kernel.links import (
    IFINFOMSG,
    IFLA_EXT_MASK,
    IFLA_MTU,
    RTEXT_FILTER_SKIP_STATS,
    RTM_GETLINK,
    index_of,
    name_of,
)
from nkform.kernel.netlink import U32, Message, Request, Socket, find, u32, walk

IFLA_AF_SPEC = 26
IFLA_INET_CONF = 1
IFLA_INET6_CONF = 2

_IPV4 = """
forwarding - proxy_arp accept_redirects secure_redirects send_redirects shared_media rp_filter accept_source_route
bootp_relay log_martians tag arp_filter medium_id disable_xfrm disable_policy force_igmp_version arp_announce
arp_ignore promote_secondaries arp_accept arp_notify accept_local src_valid_mark proxy_arp_pvlan route_localnet
- - ignore_routes_with_linkdown drop_unicast_in_l2_multicast drop_gratuitous_arp bc_forwarding arp_evict_nocarrier
"""
_IPV6 = """
forwarding hop_limit - accept_ra accept_redirects autoconf dad_transmits router_solicitations - - use_tempaddr
temp_valid_lft temp_prefered_lft regen_max_retry max_desync_factor max_addresses force_mld_version
accept_ra_defrtr accept_ra_pinfo accept_ra_rtr_pref - accept_ra_rt_info_max_plen proxy_ndp optimistic_dad
accept_source_route - disable_ipv6 accept_dad force_tllao ndisc_notify - - suppress_frag_ndisc
accept_ra_from_local use_optimistic accept_ra_mtu - use_oif_addrs_only accept_ra_min_hop_limit
ignore_routes_with_linkdown drop_unicast_in_l2_multicast drop_unsolicited_na keep_addr_on_down - seg6_enabled
seg6_require_hmac enhanced_dad addr_gen_mode disable_policy accept_ra_rt_info_min_plen ndisc_tclass
rpl_seg_enabled - ioam6_enabled - - ndisc_evict_nocarrier accept_untracked_na accept_ra_min_lft
"""
"""In the order of their numbers, by the names of their files; `-` for what is left out."""

Mtus = tuple[int, int]
"""The MTU of an interface, and the one that it has for IPv6 (`ipv6.mtu`), in bytes."""

IPV6_MTU = 2
"""The place of `mtu` among those of IPv6 (DEVCONF_MTU6)."""

FILES_AT_MOST = 8
"""So many sysctls are read from their files, which takes as long as asking for all that a link message has."""

FAMILIES = ((AF_INET, IFLA_INET_CONF, "ipv4", _IPV4.split()), (AF_INET6, IFLA_INET6_CONF, "ipv6", _IPV6.split()))


class Shared:
    """Sysctls of interfaces, decoded once for all that have the same: nearly all of all namespaces do."""

    def __init__(self) -> None:
        self._by_payloads: dict[tuple[bytes, ...], Mapping[str, str]] = {}
        self._by_values: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}

    def decoded(self, spec: bytes) -> Mapping[str, str]:
        """The values of an IFLA_AF_SPEC; one object for all interfaces that have the same."""
        payloads = []
        for number, conf, _, _ in FAMILIES:
            part = find(spec, 0, len(spec), number) or b""
            payloads.append(find(part, 0, len(part), conf) or b"")
        key = tuple(payloads)
        if key not in self._by_payloads:
            values = _values(payloads)
            self._by_payloads[key] = self._by_values.setdefault(tuple(values.items()), values)
        return self._by_payloads[key]


def _values(payloads: Sequence[bytes]) -> dict[str, str]:
    return {
        f"{family}.{name}": str(value)
        for payload, (_, _, family, names) in zip(payloads, FAMILIES, strict=True)
        for name, value in zip(names, _numbers(payload), strict=False)
        if name in _files(family)
    }


def decode(message: Message, shared: Shared) -> Mapping[str, str]:
    """The sysctls (`ipv4.rp_filter`) of the interface of a RTM_NEWLINK message."""
    return _sysctls(_parts(message), shared)


def _parts(message: Message) -> Mapping[int, bytes]:
    return walk(message.buffer, message.start + IFINFOMSG.size, message.end)


def _sysctls(parts: Mapping[int, bytes], shared: Shared) -> Mapping[str, str]:
    return shared.decoded(parts[IFLA_AF_SPEC]) if IFLA_AF_SPEC in parts else {}


def dump(
    socket: Socket, names: Collection[str], shared: Shared, sized: Collection[str] = ()
) -> Iterator[tuple[int, str, Mapping[str, str], Mtus | None]]:
    """The ifindex and name of each interface; of those of these names also their sysctls (`ipv4.rp_filter`), and of the
    `sized` their MTUs, None where one has no IPv6.

    Raises KernelError.
    """
    body = IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0) + u32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    for message in socket.fetch(Request(RTM_GETLINK, 0, body, "list the sysctls of interfaces")):
        name = name_of(message)
        parts = _parts(message) if name in names or name in sized else {}
        sysctls = _sysctls(parts, shared) if name in names else {}
        yield index_of(message), name, sysctls, _mtus(parts) if name in sized else None


def dump_mtus(socket: Socket, names: Collection[str]) -> Iterator[tuple[str, Mtus | None]]:
    """The MTUs of each interface of these names, None where one has no IPv6. Raises KernelError."""
    for _, name, _, mtus in dump(socket, (), Shared(), names) if names else ():
        if name in names:
            yield name, mtus


def _mtus(parts: Mapping[int, bytes]) -> Mtus | None:
    payload = parts.get(IFLA_AF_SPEC, b"")
    for number in (AF_INET6, IFLA_INET6_CONF):
        payload = find(payload, 0, len(payload), number) or b""
    return (U32.unpack(parts[IFLA_MTU])[0], _numbers(payload)[IPV6_MTU]) if payload else None


def _numbers(payload: bytes) -> tuple[int, ...]:
    return struct.unpack(f"={len(payload) // 4}i", payload[: len(payload) // 4 * 4])


@cache
def _files(family: str) -> frozenset[str]:
    """The sysctls that this kernel has, in any namespace, and that can be written."""
    folder = f"/proc/sys/net/{family}/conf/lo"
    try:
        return frozenset(entry.name for entry in os.scandir(folder) if entry.stat().st_mode & 0o200)
    except FileNotFoundError:
        return frozenset()
