"""What a program may know of the device that it is made for. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from nkform import kinds
from nkform.dataclass import dataclass, field
from nkform.model import Device

HOOKS = kinds.HOOKS
"""The spec's words. `peer` and `ingress` are packets that come from the workload or the wire, the others go there."""

MODES = ("l2", "l3")

FRAMINGS = ("ethernet", "ip", "other")
"""What a packet begins with: an Ethernet header of 14 bytes, its IP header, or something else."""


@dataclass(frozen=True, slots=True)
class Facts:
    """A device and a hook of it. `None` is what is not known, before the device is made.

    `kind` is one of kinds.py; `mode` is l2 for all but netkit and devices whose packets begin with their IP
    header (`framing`), which is l3. `addresses` are those of the primary,
    `peer_addresses` of the peer, each with its prefix length. `ifindexes` finds the devices that parameters name.
    """

    kind: str
    mode: str
    hook: str
    ifindex: int | None = None
    peer_ifindex: int | None = None
    mac: str | None = None
    peer_mac: str | None = None
    mtu: int | None = None
    addresses: tuple[str, ...] = ()
    peer_addresses: tuple[str, ...] = ()
    ifindexes: Mapping[str, int] = field(default_factory=dict)
    framing: str = "ethernet"


FROM_THE_KERNEL = frozenset({"ifindex", "mac"})
FROM_THE_KERNEL_OF_PAIRS = frozenset({"peer_ifindex", "peer_mac"})
"""Facts that are known once the device is there, whatever the spec says; the second ones only where there is a peer."""

WORDS: Mapping[str, str] = {
    "ifindex": "the device's ifindex",
    "peer_ifindex": "the peer's ifindex",
    "mac": "the device's MAC address",
    "peer_mac": "the peer's MAC address",
    "mtu": "the device's MTU in the spec",
    "addresses": "the device's addresses in the spec",
    "peer_addresses": "the peer's addresses in the spec",
}
"""Facts for people."""


def is_wanting(facts: Facts, name: str) -> bool:
    """Whether a fact is not known and never will be."""
    if getattr(facts, name) not in (None, ()) or name in FROM_THE_KERNEL:
        return False
    return not (name in FROM_THE_KERNEL_OF_PAIRS and kinds.kind_of(facts.kind).has_peer)


IN_SPECS = frozenset({"mac", "peer_mac", "mtu", "addresses", "peer_addresses"})
"""Facts that a spec can say."""

IDENTITY = frozenset({"ifindex", "peer_ifindex"})
"""Facts that the kernel chooses anew for each device: they do not enter a program's digest."""


def facts_of(device: Device, hook: str) -> Facts:
    """What the programs of a hook may know of a device that need not exist yet."""
    peer = device.peer
    mtu, mac = device.primary.attrs.get("mtu"), device.primary.attrs.get("mac")
    peer_mac = peer.attrs.get("mac") if peer else None
    mode = "l3" if device.framing == "ip" else "l2"
    return Facts(
        kind=device.kind,
        mode=str(device.attrs.get("mode", "l2")) if device.traits.link_layer == "mode" else mode,
        framing=device.framing,
        hook=hook,
        mac=None if mac is None else str(mac),
        peer_mac=None if peer_mac is None else str(peer_mac),
        mtu=mtu if isinstance(mtu, int) else None,
        addresses=tuple(address.text for address in device.primary.addresses),
        peer_addresses=tuple(address.text for address in peer.addresses) if peer else (),
    )
