"""What stands in the way of a plan: things of others, things that are missing. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nkform.dataclass import replace
from nkform.model import IPV6_MIN_MTU, OURS, Device, Endpoint, Namespace, Node, Route, Taken, host
from nkform.namespace_key import ROOT, can_be_a_name, described
from nkform.plan.compare import device_fields, is_made_anew
from nkform.plan.contradictions import IPV6_MTU, ipv6_mtus
from nkform.plan.parts import Name
from nkform.problem import Path, Problem

ETHERNET_MTU = 1500
"""What a new pair has (ETH_DATA_LEN, include/uapi/linux/if_ether.h). Bytes."""
IN_ITS_PLACE = ("NK0411", "NK0412", "NK0415")
"""What is somebody else's has the name that something of ours shall have."""


def preconditions(
    node: str,
    wanted: Mapping[str, Namespace],
    devices: Mapping[str, Device],
    live: Node,
    adopt: bool,
    readopt: Collection[Name],
    *,
    goes_back: bool = False,
) -> Iterator[Problem]:
    """What stands in the way of a plan: things of others, things that are missing. `goes_back`: to what the node was,
    which no spec says and nobody can say otherwise."""
    for problem in _obstacles(node, wanted, devices, live, adopt, readopt):
        back = goes_back and problem.code in IN_ITS_PLACE
        yield replace(problem, hint="delete it, or give it another name, then go back again") if back else problem


def _obstacles(
    node: str,
    wanted: Mapping[str, Namespace],
    devices: Mapping[str, Device],
    live: Node,
    adopt: bool,
    readopt: Collection[Name],
) -> Iterator[Problem]:
    for name, namespace in wanted.items():
        found = live.namespaces.get(name)
        path: Path = ("namespaces", name)
        if found is None and name in live.barred:
            yield _barred(name, live.barred[name], path)
        elif found is None and name in live.occupied:
            yield Problem(
                "NK0457",
                f"{live.occupied[name]} exists, but is not a network namespace",
                path=path,
                hint="a file left over from before a reboot, say: remove it, then run nkform again",
            )
        elif found is None and not namespace.create:
            yield Problem(
                "NK0410",
                f"there is no namespace {name}",
                path=path,
                hint=f"make it first, or write `{name}: {{create: true}}`",
            )
        elif found is not None and namespace.create and found.owner != node:
            yield from _foreign(f"namespace {name}", found.owner, path, adopt or ("namespace", name) in readopt)
    there = {ROOT, *live.namespaces, *wanted, *(d.peer.namespace for d in live.devices.values() if d.peer)}
    for name, device in devices.items():
        yield from _device_obstacles(node, device, live, adopt or ("device", name) in readopt)
        if device.peer and device.peer.namespace in there:
            continue
        if device.peer and device.peer.namespace in live.barred:
            why = live.barred[device.peer.namespace]
            yield _barred(device.peer.namespace, why, ("devices", name, "peer", "namespace"))
        elif device.peer:
            yield Problem(
                "NK0410",
                f"there is no namespace {device.peer.namespace}",
                path=("devices", name, "peer", "namespace"),
                hint=_gone(device.peer.namespace),
            )


def _gone(key: str) -> str:
    """What to do where a namespace is not there that no spec says to make."""
    if can_be_a_name(key):
        return f"make it first: ip netns add {key}"
    return "the process has ended, or the path leads to no namespace"


def _barred(key: str, why: str, path: Path) -> Problem:
    if why:
        return Problem(
            "NK0419",
            f"what is in {described(key)} cannot be read: could not {why}",
            path=path,
            hint="remove that object there, or apply the rest with `--keep-going`",
        )
    return Problem(
        "NK0417",
        f"{described(key)} exists, but nkform has no permission to enter it",
        path=path,
        hint="run nkform as root outside of containers and user namespaces, where it may; or use another namespace",
    )


def _foreign(what: str, owner: str | None, path: Path, adopt: bool) -> Iterator[Problem]:
    if owner is not None:
        yield Problem(
            "NK0411",
            f"{what} belongs to the node {owner} of another spec",
            path=path,
            hint="use another name, or destroy it with that spec first",
        )
    elif not adopt:
        yield Problem(
            "NK0412",
            f"{what} exists already and is not nkform's",
            path=path,
            hint="use another name, or take it over with `nkform apply --adopt`, which then makes it as the spec says",
        )


def _device_obstacles(node: str, device: Device, live: Node, adopt: bool) -> Iterator[Problem]:
    path: Path = ("devices", device.name)
    found = live.devices.get(device.name)
    if device.traits.programs_only:
        if found is None:
            other = live.namespaces[ROOT].altnames.get(device.name) if ROOT in live.namespaces else None
            yield Problem(
                "NK0413",
                f"there is no device {device.name}",
                path=path,
                hint=f"it is another name of {other}: use that one"
                if other
                else "`kind: external` is for devices that exist",
            )
        return
    if found is not None and found.owner != node and (other := _pair_of(device.name, node, live)):
        yield Problem(
            "NK0412",
            f"device {device.name} exists already: it is the peer of {other}, which is nkform's",
            path=path,
            hint=f"use another name; or apply the spec without {other} and {device.name} first, and as it is then",
        )
    elif found is not None and found.owner != node:
        yield from _foreign(f"device {device.name}", found.owner, path, adopt)
        forced = [field for field in device_fields(device, found) if field.forces_replacement]
        if found.owner is None and adopt and forced:
            yield Problem(
                "NK0414",
                f"device {device.name} cannot be taken over as it is: {'.'.join(forced[0].path)} is "
                f"{forced[0].before} and shall be {forced[0].after}, which only a new device can have",
                path=(*path, *forced[0].path),
                hint="nkform never deletes what is not its own: delete the device yourself, or mend the spec",
            )
    if found is not None:
        yield from _too_small(device, found)
    yield from _too_large_for_ipv6(device, found)
    if device.peer is not None:
        there = live.namespaces.get(device.peer.namespace)
        own = found.peer if found else None
        same = own and (own.namespace, own.name) == (device.peer.namespace, device.peer.name)
        if there and there.links.get(device.peer.name) is False and not same:
            where = device.peer.namespace or "this namespace"
            yield Problem(
                "NK0415",
                f"the peer of {device.name} cannot be {device.peer.name} in {where}: a device that is not nkform's has"
                " that name",
                path=(*path, "peer", "name"),
                hint="use another name for the peer",
            )


def _pair_of(name: str, node: str, live: Node) -> str:
    """The pair of ours that a device of the root namespace is the peer of, or ""."""
    ours = (device for device in live.devices.values() if device.owner == node and device.peer)
    return next((d.name for d in ours if d.peer and (d.peer.namespace, d.peer.name) == (ROOT, name)), "")


def _too_small(device: Device, found: Device) -> Iterator[Problem]:
    """IPv6 on a device that somebody gave a smaller MTU than that needs; what the spec itself says is the spec's."""
    for side, (end, there) in enumerate(zip(device.ends, found.ends, strict=False)):
        mtu = there.attrs.get("mtu")
        six = [address.text for address in end.addresses if ":" in address.text]
        # The kernel keeps an IPv4 route through an IPv6 gateway when its device loses IPv6, but takes no new one.
        coming = (route for route in end.routes if ":" in route.to or route not in there.routes)
        six += [f"a route to {route.text}" for route in coming if route.needs_ipv6]
        six += [f"the sysctl {key}" for key in end.sysctl if key.startswith("ipv6.")]
        if six and "mtu" not in end.attrs and isinstance(mtu, int) and mtu < IPV6_MIN_MTU:
            yield Problem(
                "NK0458",
                f"{end.name} cannot have {six[0]}: its MTU is {mtu}, and IPv6 needs {IPV6_MIN_MTU}",
                path=("devices", device.name, *(("peer",) if side else ())),
                hint=f"write `mtu: {IPV6_MIN_MTU}` or more",
            )


def _too_large_for_ipv6(device: Device, found: Device | None) -> Iterator[Problem]:
    """An MTU of IPv6 on a device of which the spec does not say how large its own is."""
    if not any(IPV6_MTU in end.sysctl for end in device.ends):
        return
    if found and is_made_anew(device, found):
        found = None
    for side, end in enumerate(device.ends):
        if "mtu" not in end.attrs:
            mtu = found.ends[side].attrs.get("mtu") if found and side < len(found.ends) else ETHERNET_MTU
            yield from ipv6_mtus(end, mtu, ("devices", device.name, *(("peer",) if side else ())))


def in_place(
    devices: Mapping[str, Device], live: Node, adopt: bool, gone: Collection[Device] = ()
) -> Iterator[Problem]:
    """What others have where an address or a route of ours shall be. `gone` are the live devices that go."""
    going = {device.name for device in gone}
    left = [device for name, device in live.devices.items() if name not in devices and name not in going]
    stays = {(end.namespace, host(address)) for device in left for end in device.ends for address in end.addresses}
    for name, device in devices.items():
        found = live.devices.get(name)
        for side, end in enumerate(device.ends):
            path: Path = ("devices", name, "peer") if side else ("devices", name)
            there = found.ends[side].taken if found and side < len(found.ends) else ()
            coming = (taken for taken in live.taken.get(name, ()) if taken.side == side)
            for taken in (*there, *coming):
                if taken.holder == OURS and taken.route and (end.namespace, taken.route.src) in stays:
                    continue  # of a device that is no target
                if taken.why == "off" and taken in there and found and is_made_anew(device, found):
                    continue  # the switch goes with the link
                wanted = taken.route in end.routes or taken.address in end.addresses
                if wanted and taken.blocking and not (adopt and taken.gone):
                    yield _in_place(taken, end, path)
    yield from _sources_to_come(devices, live)


def _sources_to_come(devices: Mapping[str, Device], live: Node) -> Iterator[Problem]:
    """Routes in namespaces that are to be made, with a source that nobody shall have there."""
    new: dict[str, set[str]] = {}
    for device in devices.values():
        for end in device.ends:
            if end.namespace != ROOT and end.namespace not in live.namespaces:
                new.setdefault(end.namespace, set()).update(map(host, end.addresses))
    for name, device in devices.items() if new else ():
        for side, end in enumerate(device.ends):
            path: Path = ("devices", name, "peer") if side else ("devices", name)
            for route in end.routes:
                if route.src and route.src not in new.get(end.namespace, {route.src}):
                    yield _without_source(route, end, path)


def _without_source(route: Route, end: Endpoint, path: Path, holder: str = "") -> Problem:
    still = " any more when this is done" if holder == OURS else ""
    where = f"namespace {end.namespace}" if end.namespace else "this namespace"
    return Problem(
        "NK0459",
        f"the source of the route to {route.to}, {route.src}, is no address of {where}{still}",
        path=(*path, "routes", end.routes.index(route)),
        hint="declare the address, or take `src` out",
    )


def _in_place(taken: Taken, end: Endpoint, path: Path) -> Problem:
    where = f"{end.name} in {end.namespace}" if end.namespace else end.name
    if taken.why == "source" and taken.route is not None:
        return _without_source(taken.route, end, path, taken.holder)
    if taken.why == "gateway" and taken.route is not None:
        return Problem(
            "NK0460",
            f"the route to {taken.route.to} of {where} cannot be added: its gateway {taken.route.via} {taken.holder}",
            path=(*path, "routes", end.routes.index(taken.route), "via"),
            hint="write another gateway, or take the address away from the other device",
        )
    if taken.why == "off":
        what = taken.address.text if taken.address else f"a route to {taken.route.text}" if taken.route else "IPv6"
        return Problem(
            "NK0454",
            f"IPv6 is switched off on {where}, which shall have {what}",
            path=(*path, "addresses", end.addresses.index(taken.address)) if taken.address else (*path, "routes"),
            hint="write `sysctl: {ipv6: {disable_ipv6: 0}}`, or take its IPv6 addresses, routes and gateways out",
        )
    if taken.address is not None:
        return Problem(
            "NK0450",
            f"address {taken.address.text} of {where} exists already and is not nkform's: {taken.holder}",
            path=(*path, "addresses", end.addresses.index(taken.address)),
            hint="remove it, or take it over with `nkform apply --adopt`",
        )
    assert taken.route is not None
    remedy = "remove it, give ours another `metric`, or take its place with `nkform apply --adopt`"
    return Problem(
        "NK0451",
        f"route {taken.route.text} of {where} cannot be added: a route that is not nkform's has its destination, table "
        f"and metric: {taken.holder}",
        path=(*path, "routes", end.routes.index(taken.route)),
        hint=remedy
        if taken.gone
        else "give ours another `metric`, or remove the other one, which --adopt does not take over",
    )
