"""What an old pair has, its new one has not, and other routes of the plan cannot be added beside. Pure.

With an IPv4 or IPv6 address the kernel makes routes, in whose place none can be added (contradictions.py), and an
address or a network rules out gateways of others (gateways.py). A pair that is built beside the old one, and what else
the plan adds, comes before the old pair loses anything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from nkform.dataclass import dataclass
from nkform.gateways import MAIN, Around, Holder, may_be_ruled_out
from nkform.model import Device, Endpoint, Node, Route, RouteKey
from nkform.plan.contradictions import made_with


@dataclass(frozen=True, slots=True)
class _Coming:
    """A route that is to be added. `link`: its device's name, and which of the ends has it."""

    link: tuple[str, int]
    route: Route

    def told(self, name: str) -> str:
        """As the obstacle of a device shows it."""
        return (
            f"its new route to {self.route.to}"
            if self.link[0] == name
            else f"the route of {self.link[0]} to {self.route.to}"
        )


@dataclass(frozen=True, slots=True)
class _Old:
    """Whose an address or a network is that goes with an old pair."""

    name: str


def in_the_way(names: Collection[str], devices: Mapping[str, Device], live: Node) -> dict[str, str]:
    """Which old pairs have something that has to go before the plan's routes can come, and why; of those named."""
    given_up: dict[str, list[tuple[str, Endpoint, Endpoint | None]]] = {}
    for name in names:
        for side, old in enumerate(live.devices[name].ends):
            new = next((end for end in devices[name].ends[side : side + 1] if end.namespace == old.namespace), None)
            if _lost_addresses(old, new) or _lost_networks(old, new):
                given_up.setdefault(old.namespace, []).append((name, old, new))
    found: dict[str, str] = {}
    for namespace, ends in given_up.items():
        coming = list(_coming(namespace, names, devices, live))
        if coming:
            _note_places(ends, coming, found)
            _note_gateways(namespace, ends, coming, devices, found)
    return found


def _lost_addresses(old: Endpoint, new: Endpoint | None) -> list[str]:
    kept = {address.text for address in new.addresses} if new else ()
    return [address.text for address in old.addresses if address.ours and address.text not in kept]


def _lost_networks(old: Endpoint, new: Endpoint | None) -> list[Route]:
    """Networks of IPv6 that the old end has a route to in the main table."""
    kept = {route.key for route in new.routes} if new else ()
    return [each for each in old.routes if ":" in each.to and each.table == MAIN and each.key not in kept]


def _coming(namespace: str, names: Collection[str], devices: Mapping[str, Device], live: Node) -> Iterator[_Coming]:
    """The routes of the namespace that the plan adds."""
    for name, device in devices.items():
        for side, end in enumerate(device.ends):
            if end.namespace != namespace or not end.routes:
                continue
            found = live.devices.get(name)
            there = found.ends[side] if found and name not in names and side < len(found.ends) else None
            known = there.routes if there and there.namespace == namespace else ()
            yield from (_Coming((name, side), route) for route in end.routes if route not in known)


def _note_places(
    ends: Iterable[tuple[str, Endpoint, Endpoint | None]], coming: Iterable[_Coming], found: dict[str, str]
) -> None:
    """Notes the old pairs whose addresses come with a route that has the place of another."""
    by_key: dict[RouteKey, _Coming] = {each.route.key: each for each in coming}
    for name, old, new in ends:
        for text in _lost_addresses(old, new):
            for key in made_with(text, up=old.attrs.get("up") is not False):
                if key in by_key:
                    found.setdefault(name, f"its address {text} has the place of {by_key[key].told(name)}")


def _note_gateways(
    namespace: str,
    ends: Collection[tuple[str, Endpoint, Endpoint | None]],
    coming: Iterable[_Coming],
    devices: Mapping[str, Device],
    found: dict[str, str],
) -> None:
    """Notes the old pairs whose addresses or networks rule out a gateway."""
    doubtful = [each for each in coming if may_be_ruled_out(each.route.via, each.route.onlink)]
    if not doubtful:
        return
    declared = [
        holder
        for name, device in devices.items()
        for side, end in enumerate(device.ends)
        if end.namespace == namespace
        for holder in _holders((name, side), [address.text for address in end.addresses], end.routes)
    ]
    left = [
        holder
        for name, old, new in ends
        for holder in _holders(_Old(name), _lost_addresses(old, new), _lost_networks(old, new))
    ]
    around = Around([*left, *declared])
    for each in doubtful:
        while left:
            ruled_out = around.rules_out(each.route.via or "", each.route.onlink, each.link)
            if ruled_out is None or not isinstance(ruled_out[1].link, _Old):
                break  # what the plan itself rules out was said before
            text = ruled_out[1].text
            for holder in left:
                if holder.text == text and isinstance(holder.link, _Old):
                    what = "route to" if holder.route else "address"
                    why = f"its {what} {text} rules out the gateway of {each.told(holder.link.name)}"
                    found.setdefault(holder.link.name, why)
            left = [holder for holder in left if holder.text != text]
            around = Around([*left, *declared])


def _holders(link: object, addresses: Iterable[str], routes: Iterable[Route]) -> Iterator[Holder]:
    yield from (Holder(link, text) for text in addresses)
    for route in routes:
        if ":" in route.to and route.table == MAIN:
            yield Holder(link, route.to, route.metric, route=True)
