"""All sysctls of all interfaces of a namespace that a link dump reports (IFLA_AF_SPEC): one request in place of a file
each.

What is left out is read-only, follows from something else, or is reported in another unit than the file has. Numbers:
include/uapi/linux/ip.h (IPV4_DEVCONF_*, which count from 1), include/uapi/linux/ipv6.h (DEVCONF_*).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cache
from socket import AF_INET, AF_INET6, AF_UNSPEC

from nkform.kernel.links import IFINFOMSG, IFLA_IFNAME, RTM_GETLINK
from nkform.kernel.netlink import Request, Socket, string, walk

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

FAMILIES = ((AF_INET, IFLA_INET_CONF, "ipv4", _IPV4.split()), (AF_INET6, IFLA_INET6_CONF, "ipv6", _IPV6.split()))


def dump(socket: Socket) -> Iterator[tuple[str, dict[str, str]]]:
    """By the name of each interface, the values of its sysctls (`ipv4.rp_filter`). Raises KernelError."""
    there = {family: _files(family) for _, _, family, _ in FAMILIES}
    request = Request(RTM_GETLINK, 0, IFINFOMSG.pack(AF_UNSPEC, 0, 0, 0, 0), "list the sysctls of interfaces")
    for message in socket.fetch(request):
        found = walk(message.buffer, message.start + IFINFOMSG.size, message.end)
        families = walk(spec, 0, len(spec)) if (spec := found.get(IFLA_AF_SPEC)) else {}
        values: dict[str, str] = {}
        for number, conf, family, names in FAMILIES:
            inside = walk(part, 0, len(part)) if (part := families.get(number)) else {}
            for name, value in zip(names, _numbers(inside.get(conf)), strict=False):
                if name in there[family]:
                    values[f"{family}.{name}"] = str(value)
        yield string(found[IFLA_IFNAME]), values


def _numbers(payload: bytes | None) -> tuple[int, ...]:
    return struct.unpack(f"={len(payload) // 4}i", payload[: len(payload) // 4 * 4]) if payload else ()


@cache
def _files(family: str) -> frozenset[str]:
    """The sysctls that this kernel has, in any namespace, and that can be written."""
    folder = f"/proc/sys/net/{family}/conf/lo"
    try:
        return frozenset(entry.name for entry in os.scandir(folder) if entry.stat().st_mode & 0o200)
    except FileNotFoundError:
        return frozenset()
