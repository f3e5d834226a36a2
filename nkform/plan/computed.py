"""Values that are computed from other devices, `{for: [wg0]}`: what each of them is on this node. Pure.

A device that the spec makes counts as the spec says, so that one plan is enough, and as the kernel makes it in what the
spec does not say where it is new; any other counts as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nkform.attributes import BY_NAME, Attribute
from nkform.dataclass import replace
from nkform.features import FEATURES
from nkform.model import IPV6_MIN_MTU, Attrs, ComputedFor, Device, Endpoint, Node, RootDevice, Value
from nkform.namespace_key import ROOT
from nkform.problem import Path, Problem

Root = Mapping[str, RootDevice]


def read_from(node: Node, root: Root) -> set[str]:
    """The devices that values of a spec are computed from, and those that carry these."""
    named = {name for device in node.devices.values() for value in _open(device).values() for name in value.devices}
    return {each for name in named for each in _carriers(name, root)}


def with_numbers(device: Device, root: Root, declared: Mapping[str, Device]) -> tuple[Device, list[Problem]]:
    """The device with numbers, and what is wrong with them. `declared`: the devices of the spec."""
    made = {e.name: d for d in declared.values() if d.traits.made for e in d.ends if e.namespace == ROOT}
    problems: list[Problem] = []
    numbers: dict[str, Value] = {}
    for name, value in _open(device).items():
        numbers[name], noted = _number(BY_NAME[name], value, ("devices", device.name, name), root, made)
        problems += noted

    def filled(attrs: Attrs) -> Attrs:
        return {name: numbers[name] if isinstance(value, ComputedFor) else value for name, value in attrs.items()}

    peer = device.peer and replace(device.peer, attrs=filled(device.peer.attrs))
    primary = replace(device.primary, attrs=filled(device.primary.attrs))
    device = replace(device, attrs=filled(device.attrs), primary=primary, peer=peer)
    if "mtu" in numbers and not problems:
        problems += _too_small_for_ipv6(device)
    return device, problems


def _open(device: Device) -> dict[str, ComputedFor]:
    """The values that are still to be computed; what the peer has of them is the primary's."""
    some = (*device.attrs.items(), *device.primary.attrs.items())
    return {name: value for name, value in some if isinstance(value, ComputedFor)}


def _number(
    row: Attribute, value: ComputedFor, path: Path, root: Root, made: Mapping[str, Device]
) -> tuple[int, list[Problem]]:
    """One value, within what is possible, and what is wrong with it."""
    assert row.computed is not None
    some = [_part(row, name, (*path, "for", place), root, made) for place, name in enumerate(value.devices)]
    problems = [part for part in some if isinstance(part, Problem)]
    parts = [part for part in some if not isinstance(part, Problem)]
    least, most = row.schema["minimum"], row.schema["maximum"]
    if row.computed.how == "sum":
        number = sum(parts)
        told = f"these devices need {number} bytes of {row.name} together; nkform gives a netkit at most {most}"
        wrong, hint = number > most, "name fewer devices, or give a number of bytes"
    else:
        number = min(parts, default=most)
        told = f"no packet of more than {number} bytes passes these devices whole; the least {row.name} is {least}"
        wrong, hint = number < least, "mend the devices, or give a number of bytes"
    if wrong:
        problems.append(Problem("NK0405", told, path=path, hint=hint))
    return max(least, min(number, most)), problems


def _part(row: Attribute, name: str, path: Path, root: Root, made: Mapping[str, Device]) -> int | Problem:
    """What one device brings to a value."""
    assert row.computed is not None
    said = _said(row, name, root, made)
    if isinstance(said, ComputedFor):
        told = f"{name} cannot be counted here: its own {row.name} is computed from other devices"
        return Problem("NK0315", told, path=path, hint=f"name those devices, or give {name} a number")
    if name not in root and said is None:
        return Problem("NK0404", f"there is no device {name} here to compute {row.name} for", path=path)
    if row.computed.reads == "mtu":
        return _passing(row, name, root, made)
    if isinstance(said, int):
        return said
    needed = root[name].headroom if row.computed.reads == "headroom" else root[name].tailroom
    if needed is not None:
        return needed
    since = FEATURES[row.computed.feature].since
    told = f"this kernel does not tell what {row.name} {name} needs: that came with Linux {since}"
    return Problem("NK0401", told, path=path, hint=f"give {row.name} as a number of bytes")


def _said(row: Attribute, name: str, root: Root, made: Mapping[str, Device]) -> Value | None:
    """What the spec says of a device that it makes, or the kernel gives it where it is new."""
    device = made.get(name)
    if device is None:
        return None
    said = (device.attrs if row.place == "device" else device.primary.attrs).get(row.name)
    return row.usual if said is None and name not in root else said


def _carriers(name: str, root: Root) -> Iterator[str]:
    """A device, what carries it, what carries that and so on. The two ends of a pair carry each other."""
    known: set[str] = set()
    while name and name not in known:
        yield name
        known.add(name)
        name = root[name].carrier if name in root else ""


def _passing(row: Attribute, name: str, root: Root, made: Mapping[str, Device]) -> int:
    """The largest packet that a device takes, and that goes on whole through what carries the device.

    What a tunnel takes is its own MTU, which the kernel has made less than that of what carries it by what the tunnel
    adds. But it may have been given another one, and it stays as it is when what carries it gets a smaller one.
    """
    passing, below = 0, None
    for each in reversed(list(_carriers(name, root))):
        seen, said = root.get(each), _said(row, each, root, made)
        own = said if isinstance(said, int) else seen.mtu if seen else 0
        passing = own if below is None else min(own, passing - _added(seen, below))
        below = seen
    return passing


def _added(device: RootDevice | None, carrier: RootDevice) -> int:
    """What a device adds to a packet, in bytes: a tunnel asks for that beside what its carrier needs
    (vxlan_config_apply in drivers/net/vxlan/vxlan_core.c, ip_tunnel_bind_dev in net/ipv4/ip_tunnel.c). Other devices
    ask for no more than their carrier does. 0 where the kernel does not tell.
    """
    if device is None or device.headroom is None or carrier.headroom is None:
        return 0
    return max(0, device.headroom - carrier.headroom - carrier.header)


def _too_small_for_ipv6(device: Device) -> Iterator[Problem]:
    for side, end in enumerate(device.ends):
        mtu, six = end.attrs["mtu"], _needs_ipv6(end)
        if six and isinstance(mtu, int) and mtu < IPV6_MIN_MTU:
            yield Problem(
                "NK0458",
                f"{end.name} cannot have {six}: its MTU is {mtu} for these devices, and IPv6 needs {IPV6_MIN_MTU}",
                path=("devices", device.name, "mtu"),
                hint="mend the devices, or leave IPv6 out" + (" at the peer" if side else ""),
            )


def _needs_ipv6(end: Endpoint) -> str:
    """What of an end needs IPv6: "" if nothing does."""
    some = [address.text for address in end.addresses if ":" in address.text]
    some += [f"a route to {route.text}" for route in end.routes if route.needs_ipv6]
    some += [f"the sysctl {key}" for key in end.sysctl if key.startswith("ipv6.")]
    return some[0] if some else ""
