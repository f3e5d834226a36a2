"""What a program may know of the device that it is made for. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from nkform.dataclass import dataclass, field

HOOKS = ("primary", "peer", "ingress", "egress")
"""The spec's words. `peer` and `ingress` are packets that come from the workload or the wire, the others go there."""

MODES = ("l2", "l3")


@dataclass(frozen=True, slots=True)
class Facts:
    """A device and a hook of it. `None` is what is not known, before the device is made.

    `kind` is netkit, veth or external; `mode` is l2 for all but netkit. `addresses` are those of the primary,
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


IDENTITY = frozenset({"ifindex", "peer_ifindex"})
"""Facts that the kernel chooses anew for each device: they do not enter a program's digest."""
