"""What `{for: [DEVICE, …]}` comes to on a node."""

from __future__ import annotations

import pytest

from nkform.dataclass import replace
from nkform.model import Address, ComputedFor, Device, Endpoint, Node, RootDevice, Route
from nkform.plan.computed import read_from
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


ETHERNET = {"index": 1, "header": 14}
UPLINK = RootDevice(0, 0, mtu=1500, **ETHERNET)
VXLAN = RootDevice(64, 0, mtu=1450, carrier="eth0", **ETHERNET)
"""As Linux 7.3 tells of it: 50 bytes more than its carrier's own header."""
IPIP = RootDevice(34, 0, mtu=1480, carrier="eth0")


@pytest.mark.parametrize(
    ("name", "root", "mtu"),
    [
        pytest.param("eth0", {"eth0": UPLINK}, 1500, id="a device without a carrier, by its own"),
        pytest.param("wg0", {"wg0": RootDevice(128, 32, mtu=1420), "eth0": UPLINK}, 1420, id="WireGuard tells of none"),
        pytest.param("vxlan0", {"vxlan0": VXLAN, "eth0": UPLINK}, 1450, id="a tunnel that the kernel measured"),
        pytest.param(
            "vxlan0", {"vxlan0": VXLAN, "eth0": replace(UPLINK, mtu=1400)}, 1350, id="a carrier that got a smaller one"
        ),
        pytest.param("vxlan0", {"vxlan0": replace(VXLAN, mtu=1200), "eth0": UPLINK}, 1200, id="a small one of its own"),
        pytest.param("tun0", {"tun0": replace(IPIP, mtu=1500), "eth0": UPLINK}, 1480, id="a tunnel with a larger one"),
        pytest.param(
            "vlan0", {"vlan0": RootDevice(4, 0, mtu=1500, carrier="eth0"), "eth0": UPLINK}, 1500, id="a VLAN adds none"
        ),
        pytest.param(
            "tun0",
            {
                "tun0": RootDevice(98, 0, mtu=1500, carrier="vxlan0"),
                "vxlan0": VXLAN,
                "eth0": replace(UPLINK, mtu=1400),
            },
            1330,
            id="a tunnel in a tunnel",
        ),
        pytest.param(
            "v0",
            {"v0": replace(UPLINK, carrier="v1"), "v1": RootDevice(0, 0, mtu=1300, carrier="v0", **ETHERNET)},
            1300,
            id="a pair, whose ends carry each other",
        ),
        pytest.param(
            "vxlan0",
            {"vxlan0": replace(VXLAN, headroom=None), "eth0": replace(UPLINK, mtu=1400, headroom=None)},
            1400,
            id="a kernel that does not tell what is added",
        ),
        pytest.param("vxlan0", {"vxlan0": VXLAN}, 1450, id="a carrier that is not there"),
        pytest.param("big0", {"big0": RootDevice(0, 0, mtu=2**31 - 1)}, 65535, id="the most that there is"),
    ],
)
def test_a_packet_of_the_mtu_passes_the_device_whole(name: str, root: dict[str, RootDevice], mtu: int) -> None:
    found = resolved(both(mtu=ComputedFor((name,))), **root)
    assert ([end.attrs["mtu"] for end in found.devices["a"].ends], found.problems) == ([mtu, mtu], ())


def test_the_smallest_of_several_counts() -> None:
    found = resolved(both(mtu=ComputedFor(("wg0", "eth0"))), eth0=UPLINK, wg0=RootDevice(128, 32, mtu=1420))
    assert found.devices["a"].primary.attrs["mtu"] == 1420


def test_a_pair_of_the_spec_has_the_mtu_that_the_spec_gives_it() -> None:
    other = replace(pair("b"), primary=Endpoint("b", attrs={"mtu": 1300}))
    found = resolved(both(mtu=ComputedFor(("b",))), other, b=UPLINK)
    assert (found.devices["a"].primary.attrs["mtu"], found.problems) == (1300, ())


@pytest.mark.parametrize(
    ("root", "code", "told"),
    [
        ({}, "NK0404", "no device wg0"),
        ({"wg0": RootDevice(128, 32, mtu=60)}, "NK0405", "no packet of more than 60 bytes"),
    ],
)
def test_what_gives_no_mtu_is_refused(root: dict[str, RootDevice], code: str, told: str) -> None:
    (problem,) = resolved(both(mtu=ComputedFor(("wg0",))), **root).problems
    assert (problem.code, problem.path[:3]) == (code, ("devices", "a", "mtu"))
    assert told in problem.message


@pytest.mark.parametrize(
    "end",
    [
        Endpoint("b", addresses=(Address("fd00::2/64"),)),
        Endpoint("b", routes=(Route("fd00::/64"),)),
        Endpoint("b", sysctl={"ipv6.accept_ra": "0"}),
    ],
    ids=["address", "route", "sysctl"],
)
@pytest.mark.parametrize("mtu", [1279, 1280])
def test_ipv6_needs_its_mtu(end: Endpoint, mtu: int) -> None:
    device = both(mtu=ComputedFor(("wg0",)))
    device = replace(device, peer=replace(end, attrs={**end.attrs, "mtu": ComputedFor(("wg0",))}))
    codes = [problem.code for problem in resolved(device, wg0=RootDevice(128, 32, mtu=mtu)).problems]
    assert [code for code in codes if code != "NK0406"] == ["NK0458"] * (mtu < 1280)


def both(**attrs: object) -> Device:
    """A pair, with the same at both ends."""
    return Device("a", "veth", {}, Endpoint("a", attrs=attrs), Endpoint("a-p", "ns", attrs=attrs))  # type: ignore[arg-type]


def test_the_devices_that_values_are_computed_from_are_told_with_what_carries_them() -> None:
    node = Node("w", devices={"a": both(mtu=ComputedFor(("vxlan0", "late0"))), "b": pair("b", headroom=16)})
    assert read_from(node, {"vxlan0": VXLAN, "eth0": UPLINK, "eth1": UPLINK}) == {"vxlan0", "eth0", "late0"}
