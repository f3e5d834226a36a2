"""Names, namespaces and limits that a plan would run into: what others have where ours shall be. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nkform.model import Device, Namespace, Node
from nkform.namespace_key import ROOT, described
from nkform.plan.compare import is_made_anew
from nkform.problem import Path, Problem


def collisions(
    wanted: Mapping[str, Namespace], devices: Mapping[str, Device], live: Node, gone: Collection[Device]
) -> Iterator[Problem]:
    """`wanted` are the declared namespaces, `gone` the live devices that go before anything is made."""
    yield from _one_namespace(wanted, devices, live)
    if live.home:
        yield from _at_home(wanted, devices, live)
    further = {key: space.altnames for key, space in live.namespaces.items() if space.altnames}
    going = {(end.namespace, end.name) for device in gone for end in device.ends}
    yield from _kept_names(devices, live, going)
    for name, device in devices.items():
        if device.traits.programs_only:
            continue
        if further:
            yield from _further_names(device, further, going)
        if name in live.devices:
            yield from _too_large(device, live.devices[name])
            yield from _names_taken_along(device, live.devices[name], devices, live, going)


def _one_namespace(wanted: Mapping[str, Namespace], devices: Mapping[str, Device], live: Node) -> Iterator[Problem]:
    """Two keys of the spec that lead into one namespace, or one that leads into a namespace of ours that is to go."""
    places: dict[str, list[Path]] = {name: [("namespaces", name)] for name in wanted}
    for name, device in devices.items():
        if device.peer and device.peer.namespace != ROOT and device.peer.namespace not in wanted:
            places.setdefault(device.peer.namespace, []).append(("devices", name, "peer", "namespace"))
    first: dict[int, str] = {}
    ours = [name for name, space in live.namespaces.items() if space.owner == live.name]
    for key in (*(name for name in ours if name in wanted), *ours, *places):
        space = live.namespaces.get(key)
        if space is None or not space.cookie or key == ROOT:
            continue
        other = first.setdefault(space.cookie, key)
        if other == key:
            continue
        hint = f"write `namespace: {other}` instead"
        if other not in places:
            hint = f"nkform made it: to keep it, declare `{other}: {{create: true}}`, and {hint}"
        for path in places.get(key, ()):
            yield Problem(
                "NK0476", f"{described(key)} and {described(other)} are one and the same", path=path, hint=hint
            )


def _at_home(wanted: Mapping[str, Namespace], devices: Mapping[str, Device], live: Node) -> Iterator[Problem]:
    """What cannot be in the namespace that nkform runs in, which the spec names by a key of its own."""
    for name in live.home:
        if name in wanted and wanted[name].create:
            yield Problem(
                "NK0477",
                f"the namespace {name} is the one that nkform runs in, and cannot be made",
                path=("namespaces", name),
                hint="run nkform outside of it, or take `create` out",
            )
    first: dict[str, str] = {}
    for name, device in devices.items():
        for side, end in enumerate(device.ends):
            if end.namespace != ROOT:
                continue
            other = first.setdefault(end.name, name)
            if other != name or (side and end.name == name):
                path: Path = ("devices", name, "peer", "name") if side else ("devices", name)
                yield Problem(
                    "NK0304",
                    f"two devices would be called {end.name} in the namespace that nkform runs in: the other is of "
                    f"{other}",
                    path=path,
                    hint="give one of them another name, or put it into another namespace",
                )


def _kept_names(devices: Mapping[str, Device], live: Node, going: Collection[tuple[str, str]]) -> Iterator[Problem]:
    """Ends whose names devices of ours have that this plan leaves as they are, since they are no targets."""
    left = (d for d in live.devices.values() if d.owner == live.name and d.name not in devices and d.traits.made)
    kept = {(end.namespace, end.name): device for device in left for end in device.ends}
    for place in going:
        kept.pop(place, None)
    for name, device in devices.items() if kept else ():
        for side, end in enumerate(device.ends):
            holder = kept.get((end.namespace, end.name))
            if holder is not None and not device.traits.programs_only:
                yield Problem(
                    "NK0415",
                    f"{'the peer of ' if side else ''}{name} cannot be {end.name} in {described(end.namespace)}:"
                    f" that is an end of {holder.name}, which is nkform's and not among the targets",
                    path=("devices", name, "peer", "name") if side else ("devices", name),
                    hint=f"add `--target {holder.name}`, or leave `--target` out",
                )


def _further_names(
    device: Device, further: Mapping[str, Mapping[str, str]], going: Collection[tuple[str, str]]
) -> Iterator[Problem]:
    """Ends whose names other links have besides their own: the kernel gives each name once in a namespace."""
    for side, end in enumerate(device.ends):
        holder = further.get(end.namespace, {}).get(end.name)
        if holder is None or (end.namespace, holder) in going:
            continue
        where = f" in {end.namespace}" if end.namespace else ""
        yield Problem(
            "NK0475",
            f"{end.name} is another name (altname) of the device {holder}{where}: no other device can have it",
            path=("devices", device.name, "peer", "name") if side else ("devices", device.name),
            hint=f"use another name, or take it away: ip link property del dev {holder} altname {end.name}",
        )


def _names_taken_along(
    device: Device, found: Device, devices: Mapping[str, Device], live: Node, going: Collection[tuple[str, str]]
) -> Iterator[Problem]:
    """Further names of a peer that goes to another namespace, where somebody has or shall have them: they go along."""
    if device.peer is None or found.peer is None or not found.peer.altnames:
        return
    if device.peer.namespace == found.peer.namespace:
        return
    if is_made_anew(device, found):
        return  # a new pair has none of them
    target = device.peer.namespace
    there = live.namespaces.get(target, Namespace(target))
    holders = {name: name for name in there.links} | dict(there.altnames)
    holders = {name: holder for name, holder in holders.items() if (target, holder) not in going}
    holders |= {end.name: end.name for each in devices.values() for end in each.ends if end.namespace == target}
    inside = f" -n {found.peer.namespace}" if found.peer.namespace and ":" not in found.peer.namespace else ""
    for name in found.peer.altnames:
        if name in holders:
            yield Problem(
                "NK0480",
                f"{found.peer.name} cannot go to {described(target)}: its further name {name} is one that"
                f" {holders[name]} has, or shall have, there",
                path=("devices", device.name, "peer", "namespace"),
                hint=f"take it away: ip{inside} link property del dev {found.peer.name} altname {name}",
            )


def _too_large(device: Device, live: Device) -> Iterator[Problem]:
    """An MTU that the kernel refuses to an end as it is; one that is made anew has no such limit."""
    for end, live_end in zip(device.ends, live.ends, strict=False):
        mtu = end.attrs.get("mtu")
        if not live_end.mtu_limit or not isinstance(mtu, int) or mtu <= live_end.mtu_limit:
            continue
        if is_made_anew(device, live):
            continue
        where = f" in {live_end.namespace}" if live_end.namespace else ""
        yield Problem(
            "NK0478",
            f"{live_end.name}{where} cannot have an MTU of {mtu}: the kernel allows {live_end.mtu_limit} now, "
            "as it does where an XDP program is attached at the other end",
            path=("devices", device.name, "mtu"),
            hint=f"at most {live_end.mtu_limit}; or remove the XDP program first, or attach one that takes packets in "
            "parts (xdp.frags)",
        )
