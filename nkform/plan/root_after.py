"""The devices of the root namespace as a plan leaves them, for values that are computed from them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nkform.dataclass import replace
from nkform.model import Device, Endpoint, Node, RootDevice
from nkform.namespace_key import ROOT
from nkform.plan.compare import is_made_anew
from nkform.plan.moves import blocked_moves


def root_after(devices: Mapping[str, Device], live: Node, going: Collection[str]) -> dict[str, RootDevice]:
    """Without the ends of the devices that go (`going`, by name) and of those that are made anew: what these are then,
    the spec or the kernel's defaults say. Ends that stay have the names that they shall have.

    `devices` are those of the spec that the plan is for.
    """
    shared = [name for name in devices if name in live.devices and devices[name].traits.made]
    anew = {name for name in shared if is_made_anew(devices[name], live.devices[name])}
    anew |= blocked_moves(devices, live, anew).keys()
    ended = [end.name for name in (*going, *shared) for end in _in_root(live.devices[name])]
    names = {
        old.name: new.name
        for name in shared
        if name not in anew
        for old, new in zip(live.devices[name].ends, devices[name].ends, strict=False)
        if old.namespace == new.namespace == ROOT
    }
    root = {name: device for name, device in live.root_devices.items() if name not in ended}
    root |= {new: live.root_devices[old] for old, new in names.items() if old in live.root_devices}
    return {
        name: replace(device, carrier=names[device.carrier]) if device.carrier in names else device
        for name, device in root.items()
    }


def _in_root(device: Device) -> list[Endpoint]:
    return [end for end in device.ends if end.namespace == ROOT]
