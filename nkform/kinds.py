"""The kinds of devices, one row each.

A row says what a kind has: its ends, its hooks and where the kernel attaches their programs, what makes it. Reading a
spec, the JSON Schema, observing, planning, making and showing ask this table, by the column that says what they want to
know: to add a kind is to add a row. Pure data, no I/O.

Numbers are those of include/uapi/linux/veth.h (VETH_INFO_PEER) and if_link.h (enum IFLA_NETKIT_*).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from nkform.dataclass import dataclass, field

KindName = str
"""Declared: a row of KINDS. Observed: what the kernel calls it, whatever that is, or `external`."""

Site = Literal["NETKIT_PRIMARY", "NETKIT_PEER", "TCX_INGRESS", "TCX_EGRESS"]
"""Where programs are attached, always through the primary's ifindex (include/uapi/linux/bpf.h, enum
bpf_attach_type, without its BPF_)."""

TcPlace = Literal["qdisc", "ingress", "egress"]
"""Where legacy tc has filters: at the two sides of a clsact, which has the place of an ingress qdisc."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of device.

    `said`: one of them, for people, with its article. `about`: what a spec means by the word.
    `ends`: those that nkform manages, the one that has the device's name first; of a pair the other is its peer.
    `hooks`: where packets meet the programs of each hook.
    `becomes`: the kinds that a device of this one may turn out to be: several where the kernel decides.
    `made`: nkform makes and deletes such devices. `programs_only`: it exists already, and only its programs are ours.
    `policy`: what drops where an end's policy is `blackhole`: the kernel, while no program is attached; or a program of
    ours, which stands in for the policy that the kernel lacks. "" where the kind has no policies.
    `link_layer`: whether packets have an Ethernet header: always, by the device's mode, or by the device itself.
    `feature`: what the kernel must be able to do (features.py), "" where each kernel can.
    `peer_info`: the number, in IFLA_INFO_DATA of a request that makes one, of what describes the peer; 0 without one.
    `own_data`: attributes of its own are in IFLA_INFO_DATA (those with `NetkitData` in attributes.py).
    `queues`: how many queues it has cannot be changed, and left to itself the kernel makes many.
    """

    name: KindName
    said: str
    about: str
    ends: tuple[str, ...] = ("primary",)
    hooks: Mapping[str, Site] = field(default_factory=dict)
    becomes: tuple[KindName, ...] = ()
    made: bool = True
    programs_only: bool = False
    policy: Literal["kernel", "program", ""] = ""
    link_layer: Literal["always", "mode", "device"] = "always"
    feature: str = ""
    peer_info: int = 0
    own_data: bool = False
    queues: bool = False

    @property
    def noun(self) -> str:
        """What it is, for people, without an article."""
        return self.said.partition(" ")[2]

    @property
    def has_peer(self) -> bool:
        """Whether it is a pair."""
        return len(self.ends) > 1

    @property
    def over_tcx(self) -> bool:
        """Whether its programs are attached at tcx, so that filters of legacy tc can stand in for them."""
        return any(site in TCX for site in self.hooks.values())


TCX: tuple[Site, ...] = ("TCX_INGRESS", "TCX_EGRESS")
PAIR = ("primary", "peer")

NETKIT = Kind(
    "netkit",
    "a pair",
    "a pair whose programs run without a detour through queues",
    PAIR,
    {"primary": "NETKIT_PRIMARY", "peer": "NETKIT_PEER"},
    ("netkit",),
    policy="kernel",
    link_layer="mode",
    feature="netkit",
    peer_info=1,
    own_data=True,
)
VETH = Kind(
    "veth",
    "a pair",
    "a pair that each kernel has",
    PAIR,
    {"primary": "TCX_EGRESS", "peer": "TCX_INGRESS"},
    ("veth",),
    policy="program",
    peer_info=1,
    queues=True,
)
AUTO = Kind(
    "auto",
    "a pair",
    "netkit where the kernel has it, else veth",
    PAIR,
    NETKIT.hooks,
    ("netkit", "veth"),
    link_layer="mode",
)
DUMMY = Kind(
    "dummy",
    "a dummy",
    "a device that has addresses and routes, and drops what it transmits; it has no peer",
    hooks={"ingress": "TCX_INGRESS", "egress": "TCX_EGRESS"},
    becomes=("dummy",),
    feature="dummy",
)
EXTERNAL = Kind(
    "external",
    "an external device",
    "a device that exists already and that nkform does not manage, but for its programs",
    hooks={"ingress": "TCX_INGRESS", "egress": "TCX_EGRESS"},
    becomes=("external",),
    made=False,
    programs_only=True,
    link_layer="device",
)

KINDS: Mapping[KindName, Kind] = {kind.name: kind for kind in (NETKIT, VETH, AUTO, DUMMY, EXTERNAL)}
"""The words that a spec may say, in the order in which they are told of."""

MADE: tuple[Kind, ...] = tuple(kind for kind in KINDS.values() if kind.made and kind.becomes == (kind.name,))
"""The kinds of devices that nkform makes, without the words that stand for one of several."""

HOOKS: tuple[str, ...] = tuple(dict.fromkeys(hook for kind in KINDS.values() for hook in kind.hooks))
"""The hooks of all kinds: `primary` is what the primary transmits, `peer` what the peer transmits."""

FOREIGN = Kind("", "a device of others", "", made=False)
"""What nkform knows of a kind that it has no row for, and that somebody's device may be."""


ONLY_PAIRS = f"take it out, or write kind: {' or '.join(kind.name for kind in MADE if kind.has_peer)}"
"""What to do with a peer of a device that has none."""


def kind_of(name: KindName) -> Kind:
    """The row of a kind, whoever's device it is."""
    return KINDS.get(name, FOREIGN)
