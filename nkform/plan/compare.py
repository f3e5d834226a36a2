"""How a live device differs from the desired one, attribute by attribute. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nkform.attributes import ATTRIBUTES, Attribute
from nkform.dataclass import dataclass, replace
from nkform.model import Address, Attrs, Device, Endpoint, Route, Value
from nkform.plan.actions import (
    Action,
    AddAddress,
    AddRoute,
    DeleteAddress,
    DeleteRoute,
    ReplaceRoute,
    SetLink,
    SetSysctl,
    SetUp,
    end_of,
)

TWINS = {"gso_max_size": "gso_ipv4_max_size", "gro_max_size": "gro_ipv4_max_size"}
"""The kernel overwrites the second when the first is set to at most 65536 (net/core/dev.c, netif_set_gso_max_size)."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One attribute that differs: its path below the device, what is and what shall be; None is absent."""

    path: tuple[str, ...]
    before: object
    after: object
    forces_replacement: bool = False


def equal(attr: Attribute, desired: Value, live: Value | None, *, enslaved: bool) -> bool:
    """Whether a live value is what the spec asks for.

    What the kernel does not report it does not have, which is as good as the default. A bridge raises the headroom of
    its ports to that of the neediest (ndo_set_rx_headroom), which is no drift.
    """
    if live is None:
        return desired == attr.default or (attr.place == "device" and desired == 0)
    if attr.name == "headroom" and enslaved and isinstance(live, int) and isinstance(desired, int):
        return live >= desired
    return desired == live


def device_fields(desired: Device, live: Device) -> Iterator[FieldChange]:
    """Changes of attributes, names and namespaces; addresses, routes and sysctls are `end_fields`'s."""
    if desired.kind != live.kind:
        yield FieldChange(("kind",), live.kind, desired.kind, True)
        return
    yield from _attrs(("device",), (), desired.attrs, live.attrs, live.enslaved)
    yield from _attrs(("pair", "end"), (), desired.primary.attrs, live.primary.attrs, live.enslaved)
    if desired.peer is None:
        return
    if live.peer is None:
        yield FieldChange(("peer",), None, desired.peer.name, True)
        return
    # A peer in a namespace without a name cannot be reached: it is made anew.
    unreachable = live.peer.namespace.startswith("nsid:")
    if desired.peer.name != live.peer.name:
        yield FieldChange(("peer", "name"), live.peer.name, desired.peer.name, unreachable)
    if desired.peer.namespace != live.peer.namespace:
        yield FieldChange(("peer", "namespace"), live.peer.namespace, desired.peer.namespace, unreachable)
    yield from _attrs(("pair", "end"), ("peer",), desired.peer.attrs, live.peer.attrs, live.enslaved)


def _attrs(
    places: tuple[str, ...], prefix: tuple[str, ...], desired: Attrs, live: Attrs, enslaved: bool
) -> Iterator[FieldChange]:
    if desired.items() <= live.items():  # nearly all ends are as they shall be
        return
    for attr in ATTRIBUTES:
        if attr.place in places and attr.name in desired:
            value, now = desired[attr.name], live.get(attr.name)
            if not equal(attr, value, now, enslaved=enslaved):
                yield FieldChange((*prefix, attr.name), now, value, attr.change == "replace")


def end_fields(desired: Endpoint, live: Endpoint, prefix: tuple[str, ...]) -> Iterator[FieldChange]:
    """Changes of an end's addresses, routes and sysctls."""
    if desired.addresses != live.addresses:
        for address in gone_addresses(desired, live):
            yield FieldChange((*prefix, "addresses"), address.text, None)
        for address in new_addresses(desired, live):
            yield FieldChange((*prefix, "addresses"), None, address.text)
    if desired.routes != live.routes:
        for before, after in route_changes(desired, live):
            yield FieldChange((*prefix, "routes"), before and describe_route(before), after and describe_route(after))
    for key, value in desired.sysctl.items():
        if live.sysctl.get(key) != value:
            yield FieldChange((*prefix, "sysctl", *key.split(".", 1)), live.sysctl.get(key), value)


def gone_addresses(desired: Endpoint, live: Endpoint) -> list[Address]:
    """Addresses of ours that are not declared any more; those of others stay."""
    wanted = set(desired.addresses)
    return [address for address in live.addresses if address.ours and address not in wanted]


def new_addresses(desired: Endpoint, live: Endpoint) -> list[Address]:
    there = set(live.addresses)
    return [address for address in desired.addresses if address not in there]


def route_key(route: Route) -> tuple[int, str, int]:
    """What makes two routes the same one to the kernel."""
    return route.table, route.to, route.metric


def route_changes(desired: Endpoint, live: Endpoint) -> list[tuple[Route | None, Route | None]]:
    """Before and after of every route that differs: removals first, then changes and additions as declared."""
    wanted = {route_key(route): route for route in desired.routes}
    there = {route_key(route): route for route in live.routes}
    gone: list[tuple[Route | None, Route | None]] = [(route, None) for key, route in there.items() if key not in wanted]
    return gone + [(there.get(key), route) for key, route in wanted.items() if there.get(key) != route]


def describe_route(route: Route) -> str:
    """A route as `ip route` would say it, without its device."""
    parts = [route.to]
    if route.via:
        parts.append(f"via {route.via}")
    if route.onlink:
        parts.append("onlink")
    if route.src:
        parts.append(f"src {route.src}")
    if route.metric not in (0, 1024 if ":" in route.to else 0):
        parts.append(f"metric {route.metric}")
    if route.table != 254:
        parts.append(f"table {route.table}")
    if route.mtu:
        parts.append(f"mtu {route.mtu}")
    return " ".join(parts)


def end_actions(device: str, desired: Endpoint, live: Endpoint) -> Iterator[Action]:
    """What brings a live end, already of the right name and in the right place, to what is desired.

    Removals come first: an MTU below 1280, `down` and some sysctls make the kernel drop addresses and routes by itself.
    IPv4 addresses alone are added before others go: with its last one a link loses all its IPv4 routes, those of others
    too. A change that needs the link down follows, then what is new, up, and the routes that need it.
    """
    end = end_of(device, desired)
    up, was_up = desired.attrs.get("up"), bool(live.attrs.get("up"))
    gone, new = gone_addresses(desired, live), new_addresses(desired, live)
    flushed = tuple(r for r in live.routes if ":" not in r.to) if _loses_ipv4(gone, new, live) else ()
    routes = route_changes(desired, replace(live, routes=tuple(r for r in live.routes if r not in flushed)))
    yield from (DeleteRoute(end, route) for route in flushed)
    yield from (DeleteRoute(end, before) for before, after in routes if before and not after)
    yield from (AddAddress(end, address) for address in new if not _is_ipv6(address))
    yield from (DeleteAddress(end, address, _behind(address, live.addresses)) for address in gone)
    lost: tuple[Address, ...] = ()
    if up is False and was_up:
        lost = tuple(address for address in desired.addresses if ":" in address.text and address in live.addresses)
        yield SetUp(end, False, lost)
    values = {
        attr.name: desired.attrs[attr.name]
        for attr in ATTRIBUTES
        if attr.change == "live"
        and attr.name in desired.attrs
        and attr.name not in ("policy", "up")
        and desired.attrs[attr.name] != live.attrs.get(attr.name)
    }
    if values:
        yield _set_link(device, values, desired, live)
    for key, value in desired.sysctl.items():
        if live.sysctl.get(key) != value:
            yield SetSysctl(end, key, live.sysctl.get(key), value)
    yield from (AddAddress(end, address) for address in new if _is_ipv6(address))
    yield from (AddAddress(end, address, again=True) for address in lost)
    if up and not was_up:
        yield SetUp(end, True)
    for before, after in routes:
        if after:
            yield ReplaceRoute(end, before, after) if before else AddRoute(end, after)


def _is_ipv6(address: Address) -> bool:
    return ":" in address.text


def _behind(address: Address, there: Sequence[Address]) -> tuple[Address, ...]:
    """Addresses of ours in an IPv4 address's subnet that stand behind it; IPv6 knows no such order."""
    later = there[list(there).index(address) + 1 :]
    return () if _is_ipv6(address) else tuple(by_subnet(later).get(_subnet(address), ()))


def by_subnet(addresses: Iterable[Address]) -> dict[tuple[int, int], list[Address]]:
    """Our IPv4 addresses by subnet, in order: the first one is what the kernel sends from if nothing says otherwise."""
    found: dict[tuple[int, int], list[Address]] = {}
    for address in addresses:
        if address.ours and not _is_ipv6(address):
            found.setdefault(_subnet(address), []).append(address)
    return found


def reorder(device: str, desired: Endpoint, live: Endpoint) -> Iterator[Action]:
    """What puts the IPv4 addresses of each subnet in order once an end has all of them, and the routes back that go
    with an address they name as their source.

    From the first one that is out of place on, each goes and comes again, behind all others.
    """
    end = end_of(device, desired)
    there = [address for address in live.addresses if address in desired.addresses]
    now = by_subnet([*there, *new_addresses(desired, live)])
    moved: list[Address] = []
    for subnet, wanted in by_subnet(desired.addresses).items():
        same = next((n for n, pair in enumerate(zip(wanted, now[subnet], strict=True)) if pair[0] != pair[1]), None)
        if same is not None:
            moved += wanted[same:]
    for address in moved:
        yield DeleteAddress(end, address)
        yield AddAddress(end, address)
    hosts = {address.text.partition("/")[0] for address in moved}
    yield from (ReplaceRoute(end, route, route) for route in desired.routes if route.src in hosts)


def _subnet(address: Address) -> tuple[int, int]:
    """The bits of an IPv4 address's network, and how many they are."""
    host, _, length = address.text.partition("/")
    value = int.from_bytes(bytes(int(part) for part in host.split(".")))
    return value >> (32 - int(length)), int(length)


def _loses_ipv4(gone: Sequence[Address], new: Sequence[Address], live: Endpoint) -> bool:
    """Whether the last IPv4 address goes, and all IPv4 routes with it (net/ipv4/fib_frontend.c, fib_inetaddr_event)."""
    left = [address for address in (*live.addresses, *new) if not _is_ipv6(address) and address not in gone]
    return not left and any(not _is_ipv6(address) for address in gone)


def _set_link(device: str, values: dict[str, Value], desired: Endpoint, live: Endpoint) -> SetLink:
    before = {name: live.attrs[name] for name in values if name in live.attrs}
    for size, twin in TWINS.items():
        if size in values:
            if twin in live.attrs:
                before[twin] = live.attrs[twin]
            if twin in desired.attrs:
                values[twin] = desired.attrs[twin]
    return SetLink(end_of(device, desired), before, values)
