"""What a spec means on this node: `auto` decided, defaults filled in, room computed, missing kernel features found.

Pure: what the kernel can do comes in as a set of feature names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache, lru_cache

from nkform.attributes import ATTRIBUTES, BY_NAME, Attribute
from nkform.dataclass import dataclass, replace
from nkform.device_sysctls import ADDR_GEN_MODE, FORCE_FORWARDING, FORWARDING, STABLE_SECRET
from nkform.features import FEATURES
from nkform.kinds import KindName, kind_of
from nkform.model import Attrs, ComputedFor, Device, Endpoint, Node, RootDevice, Value
from nkform.nearest import nearest
from nkform.plan.chains import completed, needs_programs
from nkform.plan.computed import with_numbers
from nkform.plan.contradictions import (
    BY_SECRET,
    contradictions,
    forwarding,
    kernel_routes,
    with_modes,
    without_own_routes,
)
from nkform.problem import Path, Problem

ALIKE = 1024
"""Sets of attributes that are remembered: a node has few that differ."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """Devices as they shall be, and what was found wrong or worth saying on the way. `computed`: some have values that
    follow from other devices."""

    devices: Mapping[str, Device]
    problems: tuple[Problem, ...]
    computed: bool


def resolve(desired: Node, features: Collection[str], root_devices: Mapping[str, RootDevice]) -> Resolved:
    devices: dict[str, Device] = {}
    problems: list[Problem] = []
    computed = False
    for name, device in desired.devices.items():
        if device.traits.programs_only:
            devices[name], noted = completed(device)
            problems += noted
            continue
        kind = _kind(device, features)
        problems += _unsupported_kind(device, kind, features)
        problems += _left_out(device, kind)
        whole, noted = completed(device if device.kind == kind else replace(device, kind=kind))
        problems += noted
        filled, is_open = _as_kind(whole)
        if is_open:
            computed = True
            filled, noted = with_numbers(filled, root_devices, desired.devices)
            problems += noted
        devices[name] = filled
    made = kernel_routes(device for device in devices.values() if not device.traits.programs_only)
    for name, device in devices.items():
        if device.traits.programs_only:
            continue
        filled, noted = without_own_routes(device, made)
        problems += noted
        problems += contradictions(filled)
        filled = with_modes(filled)
        filled, noted = forwarding(filled, features)
        problems += noted
        problems += _missing(filled, features)
        devices[name] = filled
    return Resolved(devices, tuple(problems), computed)


def needed_features(desired: Node) -> set[str]:
    """The features that this spec's plan depends on: those worth probing for."""
    needed: set[str] = set()
    kinds: set[KindName] = set()
    for device in desired.devices.values():
        if needs_programs(device):
            needed.add("tcx")
        kinds.update(device.traits.becomes)
        for attr, _, _ in _declared(device):
            if attr.feature and not FEATURES[attr.feature].kind:
                needed.add(attr.feature)
        for end in device.ends:
            needed |= {f"sysctl:{key}" for key in end.sysctl}
            needed |= {f"refuses:{key}={value}" for key, value in end.sysctl.items() if (key, value) != BY_SECRET}
            if STABLE_SECRET in end.sysctl:
                needed.add(f"sysctl:{ADDR_GEN_MODE}")
            if FORWARDING in end.sysctl:
                needed.add(f"sysctl:{FORCE_FORWARDING}")
    return needed | {name for name, feature in FEATURES.items() if feature.kind in kinds}


def _kind(device: Device, features: Collection[str]) -> KindName:
    """The first that it may become and that this kernel has, or else the last."""
    *better, last = device.traits.becomes or (device.kind,)
    return next((kind for kind in better if kind_of(kind).feature in features), last)


def _unsupported_kind(device: Device, kind: KindName, features: Collection[str]) -> Iterator[Problem]:
    if _lacks(kind, features):
        feature = FEATURES[kind_of(kind).feature]
        yield Problem(
            "NK0401",
            f"this kernel has no {feature.what}: they came with Linux {feature.since}",
            path=("devices", device.name, "kind"),
            hint=feature.hint,
        )


def _lacks(kind: KindName, features: Collection[str]) -> bool:
    needed = kind_of(kind).feature
    return bool(needed) and needed not in features


def _declared(device: Device) -> Iterator[tuple[Attribute, Value, Path]]:
    """Every attribute that a device names, with its value and its path in the spec, once; what the peer has from the
    primary is no other one."""
    path: Path = ("devices", device.name)
    for name, value in device.attrs.items():
        yield BY_NAME[name], value, (*path, name)
    for name, value in device.primary.attrs.items():
        yield BY_NAME[name], value, (*path, name)
    for name, value in (device.peer.attrs if device.peer else {}).items():
        if BY_NAME[name].place == "end" and not (BY_NAME[name].inherit and device.primary.attrs.get(name) == value):
            yield BY_NAME[name], value, (*path, "peer", name)


def _left_out(device: Device, kind: KindName) -> Iterator[Problem]:
    """What a device loses as this kind."""
    for attr, value, path in _declared(device):
        if kind in attr.kinds or value == _of_itself(kind, attr):
            continue
        works = ": it works at layer 2" if attr.name == "mode" else ""
        yield Problem(
            "NK0403",
            f"{attr.name} is left out: {device.name} becomes a {kind} here, which has none{works}",
            path=path,
            severity="warning",
        )


def _of_itself(kind: KindName, attr: Attribute) -> Value | None:
    """The value that a kind works by which does not have the attribute: a veth has ARP and MAC addresses."""
    return "l2" if attr.name == "mode" and kind_of(kind).link_layer == "always" else attr.default


@cache
def _kept(kind: KindName) -> frozenset[str]:
    """The attributes that this kind has itself; on a veth, programs stand in for its policies."""
    stood_in = {"policy"} if kind_of(kind).policy == "program" else set()
    return frozenset(a.name for a in ATTRIBUTES if kind in a.kinds and a.name not in stood_in)


@cache
def _defaults(kind: KindName, of_device: bool) -> Mapping[str, Value]:
    return {
        a.name: a.default
        for a in ATTRIBUTES
        if a.default is not None and a.name in _kept(kind) and (a.place == "device") is of_device
    }


def _as_kind(device: Device) -> tuple[Device, bool]:
    """The device without what its kind does not have, and with the defaults of what it does not say; whether any of its
    values is still to be computed, which those of the peer are with the primary's."""
    kind, peer = device.kind, device.peer
    attrs, is_open = _filled(kind, tuple(device.attrs.items()), True)
    near, is_near_open = _filled(kind, tuple(device.primary.attrs.items()), False)
    whole = Device(
        device.name,
        kind,
        attrs,
        _with_attrs(device.primary, near),
        peer and _with_attrs(peer, _filled(kind, tuple(peer.attrs.items()), False)[0]),
        device.chains,
        device.attach,
        device.owner,
        device.enslaved,
        device.index,
        device.hooks,
    )
    return whole, is_open or is_near_open


@lru_cache(ALIKE)
def _filled(kind: KindName, values: tuple[tuple[str, Value], ...], of_device: bool) -> tuple[Attrs, bool]:
    """Attributes with the defaults of what is not said, and without what the kind does not have; whether any is still
    to be computed.

    Devices that say the same share what comes out.
    """
    kept = _kept(kind)
    own = {name: value for name, value in values if name in kept}
    return {**own, **_defaults(kind, of_device), **own}, any(isinstance(value, ComputedFor) for value in own.values())


def _with_attrs(end: Endpoint, attrs: Attrs) -> Endpoint:
    """An end that is down has no routes."""
    routes = () if attrs.get("up") is False else end.routes
    return Endpoint(end.name, end.namespace, attrs, end.addresses, routes, end.sysctl)


def _missing(device: Device, features: Collection[str]) -> Iterator[Problem]:
    """What the device asks of the kernel that the kernel does not have."""
    if _lacks(device.kind, features):
        return
    for attr, value, path in _declared(device):
        name = attr.feature
        if name is None or name in features or value in (attr.default, attr.absent):
            continue
        if FEATURES[name].kind not in ("", device.kind):
            continue
        feature = FEATURES[name]
        yield Problem(
            "NK0401",
            f"this kernel has no {feature.what}: that came with Linux {feature.since}",
            path=path,
            hint=feature.hint or f"take `{attr.name}` out of the spec, or boot a newer kernel",
        )
    for end, prefix in zip(device.ends, ((), ("peer",)), strict=False):
        for key, value in end.sysctl.items():
            family, _, name = key.partition(".")
            if f"refuses:{key}={value}" in features:
                yield Problem(
                    "NK0408",
                    f"this kernel does not keep {value} as the sysctl net.{family}.conf.*.{name}",
                    path=("devices", device.name, *prefix, "sysctl", family, name),
                    hint="Documentation/networking/ip-sysctl.rst of the kernel says which values it has",
                )
            if f"sysctl:{key}" not in features:
                yield Problem(
                    "NK0406",
                    f"this kernel has no writable sysctl net.{family}.conf.*.{name}",
                    path=("devices", device.name, *prefix, "sysctl", family, name),
                    hint=_similar(key, features),
                )


def _similar(key: str, features: Collection[str]) -> str:
    """What to say of a sysctl that there is not, if there is one of a similar name."""
    family, _, name = key.partition(".")
    known = [each.removeprefix(f"sysctl:{family}.") for each in features if each.startswith(f"sysctl:{family}.")]
    near = nearest(name, sorted(known))
    return f"did you mean `{near}`?" if near else ""
