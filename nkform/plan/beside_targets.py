"""With `--target`: what devices of ours that are no targets keep, or shall get, and targets cannot be without. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nkform.gateways import Around, Holder, is_link_local, may_be_ruled_out
from nkform.model import Device, Endpoint, Node, RouteKey, host
from nkform.namespace_key import described
from nkform.plan.compare import is_made_anew
from nkform.problem import Path, Problem

NO_ENDPOINT = Endpoint("")


def beside_targets(
    devices: Mapping[str, Device], desired: Node, live: Node, gone: Collection[Device]
) -> Iterator[Problem]:
    """`devices` are the targets as they shall be, `gone` the live devices that go."""
    going = {device.name for device in gone}
    kept = [d for d in live.devices.values() if d.owner == live.name and d.name not in devices and d.name not in going]
    state = _Kept(kept)
    coming = {
        (end.namespace, host(address)): name
        for name, device in desired.devices.items()
        if name not in devices
        for end in device.ends
        for address in end.addresses
    }
    for name, device in devices.items():
        found = live.devices.get(name)
        anew = found is None or is_made_anew(device, found)
        for side, end in enumerate(device.ends):
            there = found.ends[side] if found and not anew and side < len(found.ends) else NO_ENDPOINT
            path: Path = ("devices", name, "peer") if side else ("devices", name)
            yield from _addresses(end, there, state, path)
            yield from _routes(end, there, state, path)
            own = {host(address) for each in devices.values() for e in each.ends for address in e.addresses
                   if e.namespace == end.namespace}  # fmt: skip
            for place, route in enumerate(end.routes):
                source = route.src or ""
                holder = coming.get((end.namespace, source))
                if route in there.routes or holder is None or source in own or (end.namespace, source) in state.hosts:
                    continue
                what = f"the route to {route.to} of {end.name} needs its source {source}, which {holder} shall get"
                yield _problem(what, holder, (*path, "routes", place))


class _Kept:
    """What devices have and keep, by namespace."""

    def __init__(self, devices: Collection[Device]) -> None:
        self.addresses: dict[tuple[str, str], str] = {}
        self.hosts: dict[tuple[str, str], str] = {}
        self.routes: dict[tuple[str, RouteKey], str] = {}
        self._holders: dict[str, list[Holder]] = {}
        for device in devices:
            for end in device.ends:
                for address in end.addresses:
                    self.addresses[end.namespace, address.text] = device.name
                    self.hosts[end.namespace, host(address)] = device.name
                    self._holders.setdefault(end.namespace, []).append(Holder(device.name, address.text))
                for route in end.routes if not device.traits.programs_only else ():
                    self.routes[end.namespace, route.key] = device.name

    def rules_out(self, namespace: str, via: str, *, onlink: bool) -> tuple[str, Holder] | None:
        holders = self._holders.get(namespace)
        return Around(holders).rules_out(via, onlink, None) if holders else None


def _addresses(end: Endpoint, there: Endpoint, kept: _Kept, path: Path) -> Iterator[Problem]:
    for place, address in enumerate(end.addresses):
        holder = kept.addresses.get((end.namespace, address.text))
        if holder and address not in there.addresses and not _may_repeat(address.text):
            what = f"{end.name} cannot have {address.text} in {described(end.namespace)}: {holder} has it still"
            yield _problem(what, holder, (*path, "addresses", place))


def _may_repeat(text: str) -> bool:
    """Whether several ends of a namespace may have an address (spec/meaning.py)."""
    return text.endswith("/128" if ":" in text else "/32") or is_link_local(text)


def _routes(end: Endpoint, there: Endpoint, kept: _Kept, path: Path) -> Iterator[Problem]:
    for place, route in enumerate(end.routes):
        if route in there.routes:
            continue
        holder = kept.routes.get((end.namespace, route.key))
        if holder:
            yield _problem(f"the route {route.text} of {end.name} is one of {holder} still", holder,
                           (*path, "routes", place))  # fmt: skip
        elif may_be_ruled_out(route.via, route.onlink) and (
            ruled_out := kept.rules_out(end.namespace, route.via or "", onlink=route.onlink)
        ):
            why, other = ruled_out
            what = f"the gateway {route.via} of the route to {route.to} of {end.name} {why} {other.link} still"
            yield _problem(what, str(other.link), (*path, "routes", place, "via"))


def _problem(what: str, holder: str, path: Path) -> Problem:
    told = f"{what}, which is nkform's and not among the targets"
    return Problem("NK0463", told, path=path, hint=f"add `--target {holder}`, or leave `--target` out")
