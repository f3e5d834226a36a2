"""What `{for: [DEVICE, …]}` comes to on a node."""

from __future__ import annotations

from nkform.model import ComputedFor, Device, Endpoint, Node, RootDevice
from nkform.plan.resolve import Resolved, resolve

KERNEL = frozenset({"netkit", "netkit_room", "netkit_scrub", "room_report"})


def pair(name: str, **attrs: object) -> Device:
    """One with a headroom or the like of its own."""
    return Device(name, "netkit", attrs, Endpoint(name), Endpoint(f"{name}-p", "ns"))  # type: ignore[arg-type]


def resolved(*devices: Device, **root: RootDevice) -> Resolved:
    return resolve(Node("w", devices={device.name: device for device in devices}), KERNEL, root)


def test_a_device_that_the_spec_makes_counts_as_the_spec_says() -> None:
    """It has another headroom now, or is not even there: one plan is enough all the same."""
    first, second = pair("a", headroom=ComputedFor(("b",))), pair("b", headroom=48)
    for root in ({"b": RootDevice(16, 0)}, {}):
        found = resolved(first, second, **root)
        assert (found.devices["a"].attrs["headroom"], found.problems) == (48, ())


def test_a_device_whose_own_is_computed_is_refused() -> None:
    devices = pair("a", headroom=ComputedFor(("b",))), pair("b", headroom=ComputedFor(("wg0",)))
    (problem,) = resolved(*devices, b=RootDevice(16, 0), wg0=RootDevice(80, 0)).problems
    assert (problem.code, problem.path) == ("NK0315", ("devices", "a", "headroom", "for", 0))
