"""Which gateways the addresses of other links in a namespace rule out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from nkform.dataclass import dataclass

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from nkform.model import Route

MAIN = 254
"""RT_TABLE_MAIN (include/uapi/linux/rtnetlink.h): where the kernel puts the routes that come with addresses."""

LINK_LOCAL = 0x3FA
"""The first ten bits of link-local addresses: fe80::/10."""


@dataclass(frozen=True, slots=True)
class Holder:
    """An address with its prefix length, and the link that has it; or a network, and the link that a route leads to it
    through. `metric` is the route's; that of the route that comes with an IPv6 address has 256."""

    link: object
    text: str
    metric: int = 256
    route: bool = False


def may_be_ruled_out(via: str | None, onlink: bool) -> bool:
    """Whether other links matter at all: to IPv4 only with `onlink`, to IPv6 but for link-local addresses."""
    if via is None:
        return False
    return not is_link_local(via) if ":" in via else onlink


def is_link_local(text: str) -> bool:
    """Whether an address is of IPv6 and reaches no further than its link: such a gateway is always taken."""
    return ":" in text and int(text.partition(":")[0] or "0", 16) >> 6 == LINK_LOCAL


class IPv6Reach:
    """The networks that an end leads to by IPv6, table by table.

    The kernel looks for a gateway as for any destination, by the longest prefix and then the smallest metric, and
    refuses it where the route that it finds has a gateway itself (net/ipv6/route.c, ip6_route_check_nh).
    """

    def __init__(self) -> None:
        self._best: dict[tuple[int, int, int], tuple[int, str]] = {}
        self._direct: set[tuple[int, int, int]] = set()
        self._lengths: dict[int, list[int]] = {}

    def add(self, table: int, value: int, length: int, metric: int = 256, through: str = "") -> None:
        """A network, as the number of one of its addresses and a prefix length; `through` is a route with a gateway, in
        words."""
        key = (table, length, value >> (128 - length))
        self._best[key] = min(self._best.get(key, (metric, through)), (metric, through))
        if not through:
            self._direct.add(key)
        if length not in (lengths := self._lengths.setdefault(table, [])):
            lengths.append(length)
            lengths.sort(reverse=True)

    def hides(self, value: int) -> str:
        """The route with a gateway that the kernel finds instead of what leads there at once; empty where nothing leads
        there at once, or something is found in any table that does."""
        hiding, covered = "", False
        for table, lengths in self._lengths.items():
            keys = [(table, length, value >> (128 - length)) for length in lengths]
            found = [key for key in keys if key in self._best]
            if found and not (through := self._best[found[0]][1]):
                return ""
            hiding = hiding or (through if found else "")
            covered = covered or not self._direct.isdisjoint(found)
        return hiding if covered else ""


def hidden(
    addresses: Iterable[str], routes: Sequence[Route], numbers: Callable[[str], tuple[int, int]]
) -> Iterator[tuple[int, str]]:
    """The places of IPv6 routes of an end whose gateways the kernel finds through another gateway, and by which route.

    Those with a gateway are added last, in their order. `numbers`: a network's address as a number, and its length.
    """
    led = [(place, route) for place, route in enumerate(routes) if ":" in route.to and ":" in (route.via or "")]
    if len(led) < 2:
        return
    reach = IPv6Reach()
    for address in addresses:
        if ":" in address:
            reach.add(MAIN, *numbers(address))
    for route in routes:
        if ":" in route.to and not route.via:
            reach.add(route.table, *numbers(route.to), route.metric)
    for place, route in led:
        via = route.via or ""
        if not route.onlink and not is_link_local(via) and (through := reach.hides(numbers(f"{via}/128")[0])):
            yield place, through
        reach.add(route.table, *numbers(route.to), route.metric, route.text)


class Around:
    """The addresses of all links of a namespace, and the IPv6 routes through them in the main table.

    With `onlink`, no gateway may be an address of the namespace or the broadcast address of one of its networks, and in
    IPv6 the best route to it may lead through no other link, the default route aside; without it, an IPv6 gateway may
    be no address of the namespace (net/ipv4/fib_semantics.c, fib_check_nh_nongw; net/ipv6/route.c, ip6_validate_gw and
    ip6_route_check_nh_onlink).
    """

    def __init__(self, holders: Iterable[Holder]) -> None:
        from ipaddress import IPv4Interface, ip_interface  # few specs come here, and it takes long to import

        self._hosts: dict[IPv4Address | IPv6Address, Holder] = {}
        self._broadcasts: dict[IPv4Address | IPv6Address, Holder] = {}
        self._networks: dict[tuple[int, int], list[Holder]] = {}
        for holder in holders:
            interface = ip_interface(holder.text)
            network = interface.network
            if not network.prefixlen:
                continue
            if holder.route:
                self._networks.setdefault((network.prefixlen, int(network.network_address)), []).append(holder)
                continue
            self._hosts.setdefault(interface.ip, holder)
            if not isinstance(interface, IPv4Interface):
                known = self._networks.setdefault((network.prefixlen, int(network.network_address)), [])
                known.append(holder)
            elif network.prefixlen < 31:  # RFC 3021: such a network has no broadcast address
                self._broadcasts.setdefault(network.broadcast_address, holder)
        self._lengths = sorted({length for length, _ in self._networks}, reverse=True)

    def rules_out(self, via: str, onlink: bool, link: object) -> tuple[str, Holder] | None:
        """Why a link can have no route through a gateway: the rest of a sentence that ends in the holder."""
        from ipaddress import ip_address

        ip = ip_address(via)
        if (holder := self._hosts.get(ip)) is not None and holder.link != link:
            return "is an address of", holder
        if not onlink:
            return None
        if (holder := self._broadcasts.get(ip)) is not None and holder.link != link:
            return "is the broadcast address of a network of", holder
        for length in self._lengths if ip.version == 6 else ():
            holders = self._networks.get((length, int(ip) >> (128 - length) << (128 - length)))
            if holders:
                first = min(holder.metric for holder in holders)
                best = [holder for holder in holders if holder.metric == first]
                why = "is where a route leads to through" if best[0].route else "is in a network of"
                return None if any(holder.link == link for holder in best) else (why, best[0])
        return None
