"""What a kernel may or may not be able to do, by name: the Linux version that brought it, and what it is for.

Data only. `kernel/probe.py` finds out what the running kernel has; versions serve to explain, never to decide.
"""

from __future__ import annotations

from nkform.dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Feature:
    """`kind`: the kind of device (kinds.py) that it is about; others do without it."""

    since: str
    what: str
    hint: str = ""
    config: str = ""
    kind: str = ""


FEATURES: dict[str, Feature] = {
    "netkit": Feature(
        "6.7", "netkit devices", "`kind: auto` takes veth where netkit is missing", "CONFIG_NETKIT", "netkit"
    ),
    "netkit_mac": Feature("6.10", "MAC addresses on netkit in l2 mode", kind="netkit"),
    "netkit_scrub": Feature("6.13", "scrub on netkit (6.12.4 of the stable series has it too)", kind="netkit"),
    "netkit_room": Feature("6.14", "headroom and tailroom on netkit", kind="netkit"),
    "dummy": Feature(
        "2.6.23", "dummy devices", "boot a kernel with CONFIG_DUMMY, or declare a pair instead", "CONFIG_DUMMY", "dummy"
    ),
    "gro_max_size": Feature("5.19", "a largest GRO packet (gro_max_size)"),
    "gso_ipv4": Feature("6.3", "GSO and GRO sizes for IPv4 of their own"),
    "numrxqueues": Feature("3.7", "more than one receive queue", config="CONFIG_RPS"),
    "room_report": Feature("6.18", "reading a device's headroom and tailroom"),
    "tcx": Feature("6.6", "BPF programs attached as links at tcx", "filters of legacy tc stand in for them"),
    "address_protocol": Feature("5.18", "a protocol on addresses, by which nkform knows its own"),
}
