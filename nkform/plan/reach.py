"""Gateways that nothing of a device leads to, where the plan makes the device itself. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from nkform.gateways import hidden, is_link_local
from nkform.model import Device, Endpoint, Node
from nkform.problem import Path, Problem

if TYPE_CHECKING:
    from ipaddress import IPv4Network, IPv6Network


def out_of_reach(devices: Mapping[str, Device], live: Node) -> Iterator[Problem]:
    """Routes of devices to come whose gateway the kernel will surely not find: nobody else can have a route through
    such a device, and only those without a gateway count (net/ipv4/fib_semantics.c, fib_check_nh_nongw;
    net/ipv6/route.c, ip6_route_check_nh). Whether a route in a table without a rule counts, others decide."""
    for name, device in devices.items():
        if name in live.devices:
            continue
        for side, end in enumerate(device.ends):
            path: Path = ("devices", name, "peer") if side else ("devices", name)
            where = f" in {end.namespace}" if end.namespace else ""
            for place, through in hidden((address.text for address in end.addresses), end.routes, _numbers):
                route = end.routes[place]
                yield Problem(
                    "NK0462",
                    f"the route to {route.to} of {end.name}{where} cannot be added: the kernel finds the gateway "
                    f"{route.via} through another one, by the route {through}",
                    path=(*path, "routes", place, "via"),
                    hint="add onlink: true, or a route to the gateway alone",
                )
            for place, route in enumerate(end.routes):
                if route.via and not route.onlink and not is_link_local(route.via) and not _leads(end, route.via):
                    yield Problem(
                        "NK0462",
                        f"the route to {route.to} of {end.name}{where} cannot be added: no address and no route of it "
                        f"leads to the gateway {route.via}",
                        path=(*path, "routes", place, "via"),
                        hint="add onlink: true, or a route or an address that covers it",
                    )


def _numbers(text: str) -> tuple[int, int]:
    network = _network(text)
    return int(network.network_address), network.prefixlen


def _leads(end: Endpoint, via: str) -> bool:
    """Whether an end, as it is declared, reaches a gateway by itself."""
    direct = {route.to for route in end.routes if not route.via}
    if (f"{via}/128" if ":" in via else f"{via}/32") in direct:
        return True  # as most are written
    from ipaddress import ip_address

    ip = ip_address(via)
    networks = (_network(text) for text in (*direct, *(address.text for address in end.addresses)))
    return any(ip.version == network.version and ip in network for network in networks)


@lru_cache(maxsize=4096)
def _network(text: str) -> IPv4Network | IPv6Network:
    from ipaddress import ip_network  # few specs come here, and it takes long to import

    return ip_network(text, strict=False)
