"""Neighbours that others made, and that the kernel forgets when a link gets another hardware address.

That may be the link's own, or follow from it: a VLAN has the address of the link below, a bridge that of one of its
ports, which also changes as ports come and go (net/core/neighbour.c, neigh_changeaddr; net/8021q/vlan.c,
vlan_sync_address; net/bridge/br_stp_if.c, br_stp_recalculate_bridge_id). They are noted and given again like all that
others have (foreign_state.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from nkform.apply.foreign_before import upon
from nkform.apply.foreign_state import ForeignItem
from nkform.kernel import neighbours
from nkform.kernel.netlink import Socket
from nkform.model import Device, Node
from nkform.plan.actions import Action, DeletePair, MoveEnd, SetLink, SetMaster


def readdressed(actions: Iterable[Action], live: Node) -> dict[str, set[str]]:
    """By namespace, the links whose hardware address changes, or may change, as they are called before the actions:
    ends that get another one, and what gains or loses ends as its ports. To an end that is new it does not matter."""
    if not live.devices:
        return {}
    devices = {device.index: device for device in live.devices.values() if device.index}
    ends = {(end.namespace, end.index): end.name for device in devices.values() for end in device.ends if end.index}
    names: dict[str, set[str]] = {}
    for action in actions:
        for namespace, name in _readdressed(action, devices, ends):
            names.setdefault(namespace, set()).add(name)
    return names


def _readdressed(
    action: Action, devices: Mapping[int, Device], names: Mapping[tuple[str, int], str]
) -> Iterator[tuple[str, str]]:
    match action:
        case SetLink(end) if "mac" in action.after and (end.namespace, end.index) in names:
            yield end.namespace, names[end.namespace, end.index]
        case SetMaster(end, before, after):
            yield from ((end.namespace, master.name) for master in (before, after) if master is not None)
        case MoveEnd(before) if before.master is not None:
            yield before.namespace, before.master.name
        case DeletePair(device):
            ends = devices.get(device.index, device).ends
            yield from ((end.namespace, end.master.name) for end in ends if end.master is not None)
        case _:
            return


def read(socket: Socket, key: str, names: Collection[str], known: Mapping[int, str]) -> Iterator[ForeignItem]:
    """The neighbours that others made at those links of the socket's namespace, and at what stands upon them.

    `known` are the names of all its links by their ifindex. Raises KernelError.
    """
    links = {index for index, name in known.items() if name in names}
    above = upon(socket, links) if links else {}
    indexes = [index for index, name in known.items() if index in links or name in above]
    for index, entry in neighbours.made(socket, indexes) if indexes else ():
        yield ForeignItem(key, known[index], "neighbour", entry.hex())
