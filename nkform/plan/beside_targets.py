"""With `--target`: what devices of ours that are no targets keep, or shall get, and targets cannot be without. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

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
    left = [d for d in live.devices.values() if d.owner == live.name and d.name not in devices and d.name not in going]
    kept = _Kept(left)
    coming = _hosts(device for name, device in desired.devices.items() if name not in devices)
    for each in (_hosts(devices.values()), kept.hosts):
        coming = {key: name for key, name in coming.items() if key not in each}
    for name, device in devices.items():
        live_device = live.devices.get(name)
        if live_device is not None and is_made_anew(device, live_device):
            live_device = None
        for side, end in enumerate(device.ends):
            there = live_device.ends[side] if live_device and side < len(live_device.ends) else NO_ENDPOINT
            path: Path = ("devices", name, "peer") if side else ("devices", name)
            yield from _addresses(end, there, kept, path)
            yield from _routes(end, there, kept, path)
            yield from _sources(end, there, coming, path)


def _hosts(devices: Iterable[Device]) -> dict[tuple[str, str], str]:
    """The addresses of devices without their prefix lengths, by namespace, and whose they are."""
    return {
        (end.namespace, host(address)): device.name
        for device in devices
        for end in device.ends
        for address in end.addresses
    }


class _Kept:
    """What devices have and keep, by namespace."""

    def __init__(self, devices: Collection[Device]) -> None:
        self.addresses: dict[tuple[str, str], str] = {}
        self.hosts = _hosts(devices)
        self.routes: dict[tuple[str, RouteKey], str] = {}
        self._holders: dict[str, list[Holder]] = {}
        for device in devices:
            for end in device.ends:
                for address in end.addresses:
                    self.addresses[end.namespace, address.text] = device.name
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


def _sources(end: Endpoint, there: Endpoint, coming: Mapping[tuple[str, str], str], path: Path) -> Iterator[Problem]:
    for place, route in enumerate(end.routes):
        if route.src and route not in there.routes and (holder := coming.get((end.namespace, route.src))):
            what = f"the route to {route.to} of {end.name} needs its source {route.src}, which {holder} shall get"
            yield _problem(what, holder, (*path, "routes", place))


def _problem(what: str, holder: str, path: Path) -> Problem:
    message = f"{what}, which is nkform's and not among the targets"
    return Problem("NK0463", message, path=path, hint=f"add `--target {holder}`, or leave `--target` out")
