"""The attributes of a device, one row each.

A row says where an attribute stands in the spec, where the kernel keeps it, and whether it can change on a live device.
Reading a spec, the JSON Schema, observing, comparing, applying, undoing, showing and the documentation all follow from
this table: to add an attribute is to add a row. Pure data, no I/O.

Numbers are those of include/uapi/linux/if_link.h (enum IFLA_*, enum IFLA_NETKIT_*).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from nkform.dataclass import dataclass
from nkform.kinds import MADE, NETKIT, KindName, kind_of

Form = Literal["u8", "u16", "u32", "mac"]


@dataclass(frozen=True, slots=True)
class Ifla:
    """An attribute of the end's own link message."""

    number: int
    form: Form


@dataclass(frozen=True, slots=True)
class NetkitData:
    """An attribute of IFLA_INFO_DATA of a netkit, always through the primary.

    `own` is its number for the primary (or for the device as a whole), `peer` that for the peer, as the primary sees
    it.
    """

    own: int
    peer: int | None
    form: Form
    names: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Flag:
    """A bit of ifinfomsg.ifi_flags (include/uapi/linux/if.h, enum net_device_flags). What the kernel counts there, it
    reports as whoever set it on the device has it: not where a packet socket or a bridge asks for the same
    (net/core/dev.c, dev_get_flags, `gflags`)."""

    bit: int


@dataclass(frozen=True, slots=True)
class Computed:
    """How a value that is written `{for: [DEVICE, …]}` comes of these devices, which are of the root namespace.

    `reads`: what of each of them: the headroom or the tailroom that it needs, or the largest packet that passes it
    whole. `how`: what becomes of several. `doc` says both, for people. `feature`: what a kernel that tells of it must
    be able to do.
    """

    how: Literal["sum", "smallest"]
    reads: Literal["headroom", "tailroom", "mtu"]
    doc: str
    feature: str = ""


@dataclass(frozen=True, slots=True)
class Raised:
    """What others do to an attribute of a device as a whole, which is no drift: what the device is a port of raises it,
    as a bridge raises the headroom of its ports to that of the neediest (ndo_set_rx_headroom). `left` is what a lower
    one is afterwards."""

    left: int


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute.

    `place`: "device" has one value for the device, "pair" one value in the spec that both ends carry, "end" a value of
    its own at each end (`x:` and `peer.x:`); with `inherit` the peer takes the primary's unless it says otherwise.
    `change`: "live" in place, "replace" by making the device anew.
    `default`: what a spec that does not name it means; None is "not managed".
    `feature`: what the kernel must be able to do (features.py).
    `usual`: what the kernel gives a new device, which `show` need not mention.
    `limit`: why the schema's maximum is what it is, as a hint says it.
    `absent`: the value that is as good as not to have the attribute, and so needs no kernel that has it.
    `computed`: how it may follow from other devices; not of what each end has for itself.
    `raised`: how others may change it.
    `twin`: the attribute to which the kernel copies a new value of this one, if it is at most 65536 (net/core/dev.c,
    netif_set_gso_max_size); it comes later in the table, as it does in a request.
    """

    name: str
    place: Literal["device", "pair", "end"]
    kept: Ifla | NetkitData | Flag
    change: Literal["live", "replace"]
    kinds: frozenset[KindName]
    schema: Mapping[str, Any]
    doc: str
    default: int | str | bool | None = None
    feature: str | None = None
    inherit: bool = False
    usual: int | None = None
    limit: str = ""
    absent: int | None = None
    computed: Computed | None = None
    raised: Raised | None = None
    twin: str = ""


MAX_GSO = 524280
"""GSO_MAX_SIZE = 8 * GSO_LEGACY_MAX_SIZE, include/linux/netdevice.h; also the tso_max_size of netkit and veth.
Bytes."""

ONE_QUEUE = 1
"""What a new pair has. Left to itself, the kernel makes a veth with as many queues as the machine can have processors,
and switches all but one off again, for which it waits for RCU grace periods at each end (drivers/net/veth.c,
veth_init_queues): that is a third of the time that a pair takes."""

_ALL = frozenset(kind.name for kind in MADE)
_PAIRS = frozenset(kind.name for kind in MADE if kind.has_peer)
_POLICIES = frozenset(kind.name for kind in MADE if kind.policy)
_QUEUED = frozenset(kind.name for kind in MADE if kind.queues)
_NETKIT = frozenset({NETKIT.name})
"""Which kinds have an attribute. What is kept in NetkitData alone is netkit's by its form; sizes of segmentation are
for what another end receives."""

_NEED = "the sum of what they need"
_PASSES = "the largest packet that passes each of them whole"
_POLICY = {"forward": 0, "blackhole": 2}
_SCRUB = {"none": 0, "default": 1}
_SIZE = {"type": "integer", "minimum": 1, "maximum": MAX_GSO}
_QUEUES = {"type": "integer", "minimum": 1, "maximum": 4096}
"""rtnl_create_link in net/core/rtnetlink.c."""
_GSO_SIZE = {"type": "integer", "minimum": 513, "maximum": MAX_GSO}
"""The kernel takes none below MAX_TCP_HEADER + 1 (include/net/tcp.h): at most 513, by its configuration. Bytes."""
MAX_HEADROOM = 65000
"""Offsets in a packet have 16 bits (include/linux/skbuff.h, sk_buff.network_header). The kernel adds the headers of the
layers to what a device asks for, and with 65520 and more the first packet that it sends by itself, once both ends are
up, hangs it. The rest is for those headers. A device that somebody else made may have more. Bytes."""

MAX_TAILROOM = 65535
"""IFLA_NETKIT_TAILROOM is u16. Bytes."""

LEFT_BY_A_BRIDGE = 64
"""What a netkit's headroom is after it was a port of a bridge, unless its pair was made with more: NET_SKB_PAD
(drivers/net/netkit.c, netkit_set_headroom; include/linux/skbuff.h) on x86-64, arm64 and riscv64. Bytes."""

MAX_TXQLEN = 32767
"""Linux refuses more (ERANGE) from 7.3 on; what a spec may say does not change with the kernel. Packets."""

ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "mode", "device", NetkitData(5, None, "u32", {"l2": 0, "l3": 1}), "replace", _NETKIT,
        {"enum": ["l2", "l3"]},
        "Layer at which a netkit pair works: l3 has no ARP and no MAC addresses, l2 has both.",
        default="l3",
    ),
    Attribute(
        "policy", "end", NetkitData(3, 4, "u32", _POLICY), "live", _POLICIES,
        {"enum": ["forward", "blackhole"]},
        "What happens to a packet that this end transmits while no program is attached. A veth drops it by a program.",
        default="forward",
    ),
    Attribute(
        "scrub", "end", NetkitData(6, 7, "u32", _SCRUB), "replace", _NETKIT,
        {"enum": ["default", "none"]},
        "Whether a packet that this end transmits loses its mark and priority on the way.",
        default="default", feature="netkit_scrub",
    ),
    Attribute(
        "mtu", "pair", Ifla(4, "u32"), "live", _ALL,
        {"type": "integer", "minimum": 68, "maximum": 65535},
        "Largest packet, in bytes, at both ends.", usual=1500, computed=Computed("smallest", "mtu", _PASSES),
    ),
    Attribute(
        "mac", "end", Ifla(1, "mac"), "live", _ALL,
        {"type": "string", "pattern": "^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$"},
        "Hardware address of this end; a netkit has one in l2 mode.",
        feature="netkit_mac",
    ),
    Attribute(
        "headroom", "device", NetkitData(8, None, "u16"), "replace", _NETKIT,
        {"type": "integer", "minimum": 0, "maximum": MAX_HEADROOM},
        "Bytes kept free in front of a packet, so that encapsulation need not copy it.",
        feature="netkit_room", usual=0, limit="the kernel counts in 16 bits, in which its own headers need room too",
        absent=0, computed=Computed("sum", "headroom", _NEED, "room_report"), raised=Raised(LEFT_BY_A_BRIDGE),
    ),
    Attribute(
        "tailroom", "device", NetkitData(9, None, "u16"), "replace", _NETKIT,
        {"type": "integer", "minimum": 0, "maximum": MAX_TAILROOM},
        "Bytes kept free behind a packet.",
        feature="netkit_room", usual=0, limit="the kernel keeps it in 16 bits",
        absent=0, computed=Computed("sum", "tailroom", _NEED, "room_report"),
    ),
    Attribute(
        "txqlen", "end", Ifla(13, "u32"), "live", _ALL,
        {"type": "integer", "minimum": 0, "maximum": MAX_TXQLEN},
        "Length of the transmit queue, in packets.",
        inherit=True, usual=1000, limit="Linux 7.3 and later refuse more",
    ),
    Attribute(
        "numtxqueues", "end", Ifla(31, "u32"), "replace", _QUEUED, _QUEUES,
        "Number of transmit queues. A new pair that is not given any has 1.",
        inherit=True, usual=ONE_QUEUE,
    ),
    Attribute(
        "numrxqueues", "end", Ifla(32, "u32"), "replace", _QUEUED, _QUEUES,
        "Number of receive queues. A new pair that is not given any has 1.",
        feature="numrxqueues", inherit=True, usual=ONE_QUEUE,
    ),
    Attribute(
        "gso_max_size", "pair", Ifla(41, "u32"), "live", _PAIRS, _GSO_SIZE,
        "Largest IPv6 packet before segmentation (BIG TCP above 65536), in bytes, at both ends.",
        usual=65536, twin="gso_ipv4_max_size",
    ),
    Attribute(
        "gro_max_size", "pair", Ifla(58, "u32"), "live", _PAIRS, _SIZE,
        "Largest IPv6 packet that receive offload may build, in bytes, at both ends.",
        feature="gro_max_size", usual=65536, twin="gro_ipv4_max_size",
    ),
    Attribute(
        "gso_ipv4_max_size", "pair", Ifla(63, "u32"), "live", _PAIRS, _GSO_SIZE,
        "Largest IPv4 packet before segmentation, in bytes, at both ends.",
        feature="gso_ipv4", usual=65536,
    ),
    Attribute(
        "gro_ipv4_max_size", "pair", Ifla(64, "u32"), "live", _PAIRS, _SIZE,
        "Largest IPv4 packet that receive offload may build, in bytes, at both ends.",
        feature="gso_ipv4", usual=65536,
    ),
    Attribute(
        "gso_max_segs", "pair", Ifla(40, "u32"), "live", _PAIRS,
        {"type": "integer", "minimum": 1, "maximum": 65535},
        "Largest number of segments that one packet may be cut into, at both ends.", usual=65535,
    ),
    Attribute(
        "promisc", "end", Flag(0x100), "live", _ALL,
        {"type": "boolean"},
        "Whether this end takes packets to any hardware address.", usual=False,
    ),
    Attribute(
        "allmulticast", "end", Flag(0x200), "live", _ALL,
        {"type": "boolean"},
        "Whether this end takes packets to any multicast group, as a router of them has to.", usual=False,
    ),
    Attribute(
        "up", "end", Flag(1), "live", _ALL,
        {"type": "boolean"},
        "Whether this end is up; a pair carries packets when both are.",
        default=True, inherit=True,
    ),
)  # fmt: skip

BY_NAME: Mapping[str, Attribute] = {a.name: a for a in ATTRIBUTES}


def may_have(attr: Attribute, kind: KindName) -> bool:
    """Whether a device that is declared as of this kind may turn out to have an attribute."""
    return not attr.kinds.isdisjoint(kind_of(kind).becomes)
