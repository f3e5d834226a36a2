"""Routes that go with their source, though both are to be there: the address goes to another end, or goes and comes.

Where the last holder of an address in a namespace loses it, the kernel removes the IPv4 routes there that name it as
their source, whichever link they lead through, and takes the source out of those of IPv6 (net/ipv4/fib_semantics.c,
fib_sync_down_addr; net/ipv6/route.c, rt6_remove_prefsrc). Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nkform.dataclass import replace
from nkform.model import Device, Node, host
from nkform.namespace_key import ROOT
from nkform.plan.actions import Action, AddRoute, DeleteAddress, DeletePair, DeleteRoute, MoveEnd, SetUp, end_of
from nkform.plan.phases import Phases

Source = tuple[str, str]
"""A namespace's key, and an address in it."""


def give_again(devices: Mapping[str, Device], live: Node, anew: Collection[str], phases: Phases) -> None:
    """Adds the declared routes again that are there and lose their source. `anew` are devices that get all theirs."""
    going = set(_going(phases, live))
    if not going:
        return
    coming = {
        (action.end, action.route)
        for some in (phases.routes, *phases.inside_routes.values())
        for action in some
        if isinstance(action, AddRoute)
    }
    for name, device in devices.items():
        found = live.devices.get(name)
        if found is None or name in anew:
            continue
        for end, there in zip(device.ends, found.ends, strict=False):
            if end.namespace != there.namespace:
                continue
            place = end_of(name, end, there)
            routes = phases.inside_routes.setdefault(end.namespace, []) if end.namespace != ROOT else phases.routes
            for route in end.routes:
                if not route.src or (end.namespace, route.src) not in going:
                    continue
                if route not in there.routes or (place, route) in coming:
                    continue
                if ":" in route.to:  # what is left of it has its place
                    routes.append(DeleteRoute(place, replace(route, src=None), beside=True))
                routes.append(AddRoute(place, route, beside=True, again=True))


def _going(phases: Phases, live: Node) -> Iterator[Source]:
    """The addresses that an end loses before routes are added."""
    before: list[Action] = [*phases.delete, *phases.move, *phases.outside]
    for action in [*before, *(each for some in phases.inside.values() for each in some)]:
        match action:
            case DeletePair(device):
                yield from ((end.namespace, host(address)) for end in device.ends for address in end.addresses)
            case MoveEnd(there, after, _) if there.namespace != after.namespace:
                yield from ((there.namespace, host(address)) for address in there.addresses)
            case DeleteAddress(end, address):
                yield end.namespace, host(address)
            case SetUp(end, False):
                found = live.devices.get(end.device)
                for each in found.ends if found else ():
                    if each.namespace == end.namespace:
                        yield from ((each.namespace, host(a)) for a in each.addresses if ":" in a.text)
