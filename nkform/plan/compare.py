"""How a live device differs from the desired one, attribute by attribute. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from nkform.attributes import ATTRIBUTES, Attribute
from nkform.dataclass import dataclass, replace
from nkform.device_sysctls import ADDR_GEN_MODE, STABLE_SECRET, secret_first
from nkform.model import Address, Attrs, Device, Endpoint, Value
from nkform.namespace_key import is_unnamed
from nkform.plan.actions import (
    Action,
    AddAddress,
    AddRoute,
    DeleteAddress,
    DeleteRoute,
    End,
    SetLink,
    SetSysctl,
    SetUp,
    end_of,
)
from nkform.plan.addresses import Listed, is_ipv6, misplaced, misplaced_ipv6
from nkform.plan.routes import additions, mtus_again, removals, route_changes

_TWINS = tuple((attr.name, attr.twin) for attr in ATTRIBUTES if attr.twin)
"""Setting the first may overwrite the second, so that is set again, or given back, together with it."""


@dataclass(frozen=True, slots=True)
class FieldChange:
    """One attribute that differs: its path below the device, what is and what shall be; None is absent."""

    path: tuple[str, ...]
    before: object
    after: object
    forces_replacement: bool = False


def equal(attr: Attribute, desired: Value, live: Value | None, *, enslaved: bool) -> bool:
    """Whether a live value is what the spec asks for.

    What the kernel does not report it does not have, which is as good as the default.
    """
    if live is None:
        return desired in (attr.default, attr.absent)
    return desired == live or is_raised(attr, desired, live, enslaved=enslaved)


def is_raised(attr: Attribute, own: Value | None, now: Value | None, *, enslaved: bool) -> bool:
    """Whether others have made `now` of a value of ours, as they may."""
    if attr.raised is None or not isinstance(own, int) or not isinstance(now, int):
        return False
    return now > own and (enslaved or now == attr.raised.left)


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
    unreachable = is_unnamed(live.peer.namespace)
    if desired.peer.name != live.peer.name:
        yield FieldChange(("peer", "name"), live.peer.name, desired.peer.name, unreachable)
    if desired.peer.namespace != live.peer.namespace:
        yield FieldChange(("peer", "namespace"), live.peer.namespace, desired.peer.namespace, unreachable)
    yield from _attrs(("pair", "end"), ("peer",), desired.peer.attrs, live.peer.attrs, live.enslaved)


def is_made_anew(desired: Device, live: Device) -> bool:
    """Whether a device cannot become what it shall be as it is."""
    return any(field.forces_replacement for field in device_fields(desired, live))


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
    both = (*desired.addresses, *live.addresses)
    if desired.addresses != live.addresses or live.taken or not all(address.ours for address in both):
        path = (*prefix, "addresses")
        holders = {each.address.text: each.holder for each in live.taken if each.address and each.gone}
        for address in gone_addresses(desired, live):
            if address.ours:
                yield FieldChange(path, address.text, None)
        for address in new_addresses(desired, live):
            yield FieldChange(path, holders.get(address.text) or None, address.text)
        for moved, ipv6 in zip(moved_addresses(desired, live), (False, True), strict=True):
            if not moved:
                continue
            now, shall = (
                ", ".join(each.text for each in listed if is_ipv6(each) == ipv6)
                for listed in (_listed(desired, live), Listed(desired.addresses))
            )
            yield FieldChange(path, f"in the order {now}", f"in the order {shall}")
    if desired.routes != live.routes:
        for before, after in route_changes(desired, live):
            yield FieldChange((*prefix, "routes"), before and before.text, after and after.text)
    for key, value in desired.sysctl.items():
        if live.sysctl.get(key) != value:
            yield FieldChange((*prefix, "sysctl", *key.split(".", 1)), live.sysctl.get(key), value)


def gone_addresses(desired: Endpoint, live: Endpoint) -> list[Address]:
    """Addresses of ours that are not declared any more; those of others stay, but where one is taken over that cannot
    become what is declared."""
    wanted = set(desired.addresses)
    gone = [address for address in live.addresses if address.ours and address not in wanted]
    return gone + [each.gone for each in live.taken if isinstance(each.gone, Address) and each.gone != each.address]


def new_addresses(desired: Endpoint, live: Endpoint) -> list[Address]:
    """Declared addresses that are not there as ours, and those that going back makes those of others again."""
    ours = {address.text for address in live.addresses if address.ours}
    return [each for each in desired.addresses if each.ours != (each.text in ours)]


def moved_addresses(desired: Endpoint, live: Endpoint) -> tuple[list[Address], list[Address]]:
    """The IPv4 and the IPv6 addresses that have to go and come again for all to be in the order declared; in order.

    What is new has come by then, and what is not declared has gone.
    """
    if desired.addresses == live.addresses or len(desired.addresses) < 2:
        return [], []
    # Those that going back gives to others again are put in order while they are still ours.
    ours = {each.text: each if each.ours else replace(each, ours=True) for each in desired.addresses}
    listed, wanted = _listed(desired, live), list(ours.values())
    for address in wanted:
        listed.add(address)
    declared = {each.text: each for each in desired.addresses}
    held = {each.text: each.message for each in live.addresses if not each.apart}

    def again(address: Address) -> Address:
        """As it is declared; one that is taken over, with all that others chose for it."""
        address = declared[address.text]
        return replace(address, message=held[address.text]) if address.ours and held.get(address.text) else address

    moved, moved_ipv6 = misplaced(listed, wanted), misplaced_ipv6(listed, wanted)
    return [again(each) for each in moved], [again(each) for each in moved_ipv6]


def _listed(desired: Endpoint, live: Endpoint) -> Listed:
    """The addresses once those that are new have come, and then those that are not declared have gone."""
    listed = Listed(live.addresses)
    for address in new_addresses(desired, live):
        listed.add(address)
    for address in gone_addresses(desired, live):
        if address not in desired.addresses:
            listed.delete(address)
    return listed


def _moves(end: End, moved: Sequence[Address]) -> Iterator[Action]:
    """The last one goes first, so that no address takes another one's place meanwhile."""
    yield from (DeleteAddress(end, address) for address in reversed(moved))
    yield from (AddAddress(end, address) for address in moved)


def end_actions(device: str, desired: Endpoint, live: Endpoint) -> Iterator[Action]:
    """What brings a live end, already of the right name and in the right place, to what is desired.

    Removals come first: an MTU below 1280, `down` and some sysctls make the kernel drop addresses and routes by itself.
    IPv4 addresses alone are added before others go: with its last one a link loses all its IPv4 routes, those of others
    too. A change that needs the link down follows, then what is new, up, and the routes that need it.
    """
    end = end_of(device, desired, live)
    up, was_up = desired.attrs.get("up"), bool(live.attrs.get("up"))
    gone, new = gone_addresses(desired, live), new_addresses(desired, live)
    if _loses_ipv4(gone, new, live):
        yield from (DeleteRoute(end, route) for route in live.routes if ":" not in route.to)
        live = replace(live, routes=tuple(route for route in live.routes if ":" in route.to))
    routes = route_changes(desired, live) if desired.routes != live.routes else []
    yield from removals(end, routes, live)
    held = {each.text: each for each in (*live.addresses, *(t.gone for t in live.taken if isinstance(t.gone, Address)))}
    yield from (_add(end, each, held) for each in new if not is_ipv6(each))
    yield from (DeleteAddress(end, address) for address in gone)
    moved, moved_ipv6 = moved_addresses(desired, live)
    yield from _moves(end, moved)
    lost: tuple[Address, ...] = ()
    if up is False and was_up:
        lost = tuple(address for address in live.addresses if is_ipv6(address) and address in desired.addresses)
        yield SetUp(end, False)
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
    new_secret = live.sysctl.get(STABLE_SECRET) != desired.sysctl.get(STABLE_SECRET)
    for key, value in secret_first(desired.sysctl):
        if live.sysctl.get(key) != value or (new_secret and key == ADDR_GEN_MODE):  # a secret changes it
            yield SetSysctl(end, key, live.sysctl.get(key), value)
    late = [each for each in desired.addresses if is_ipv6(each) and (each in new or each in lost)]
    yield from (AddAddress(end, each, again=True) if each in lost else _add(end, each, held) for each in late)
    if moved_ipv6 and not lost:
        # IPv6 routes do not go with the address that they name as their source, but lose it.
        sources = {address.text.partition("/")[0] for address in moved_ipv6}
        sourced = [route for route in desired.routes if route.src in sources and route in live.routes]
        yield from (DeleteRoute(end, route) for route in sourced)
        yield from _moves(end, moved_ipv6)
        yield from (AddRoute(end, route) for route in sourced)
    if up and not was_up:
        yield SetUp(end, True)
    yield from additions(end, routes, live)
    yield from mtus_again(end, desired, live)
    # Routes that name a moved address as their source went with it.
    hosts = {address.text.partition("/")[0] for address in moved}
    yield from (AddRoute(end, route, beside=True, again=True) for route in desired.routes if route.src in hosts)


def _add(end: End, address: Address, held: Mapping[str, Address]) -> AddAddress:
    """Adds an address, or makes one of it that is there: that keeps its place, as it does when that is undone."""
    there = held.get(address.text)
    return AddAddress(end, address, again=there is not None, instead=None if there and there.apart else there)


def _loses_ipv4(gone: Sequence[Address], new: Sequence[Address], live: Endpoint) -> bool:
    """Whether the last IPv4 address goes, and all IPv4 routes with it (net/ipv4/fib_frontend.c, fib_inetaddr_event)."""
    going = {address.text for address in gone if not is_ipv6(address)}
    left = (address.text not in going for address in (*live.addresses, *new) if not is_ipv6(address))
    return bool(going) and not any(left)


def _set_link(device: str, values: dict[str, Value], desired: Endpoint, live: Endpoint) -> SetLink:
    before = {name: live.attrs[name] for name in values if name in live.attrs}
    for size, twin in _TWINS:
        if size in values:
            if twin in live.attrs:
                before[twin] = live.attrs[twin]
            if twin in desired.attrs:
                values[twin] = desired.attrs[twin]
    return SetLink(end_of(device, desired, live), before, values)
