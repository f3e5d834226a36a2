"""VLANs of others that the kernel takes down with the end that they stand upon, and raises with it, whether they were
up or not (net/8021q/vlan.c, vlan_device_event).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from nkform.kernel import links
from nkform.kernel.links import Link
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.model import Node
from nkform.plan.actions import Action, MoveEnd, SetUp


def closing(actions: Iterable[Action], live: Node) -> dict[str, tuple[set[int], set[str]]]:
    """By namespace, the ends that go down, for a moment or for long, and have links of others upon them: their
    ifindexes; and the names of links of others there that stand upon such an end of another namespace."""
    lower = {(end.namespace, end.name): end for device in live.devices.values() for end in device.ends if end.leaning}
    found: dict[str, tuple[set[int], set[str]]] = {}
    for action in actions if lower else ():
        match action:
            case SetUp(place, False):
                end = lower.get((place.namespace, place.name))
            case MoveEnd(before):
                end = lower.get((before.namespace, before.name))
            case _:
                continue
        if end is not None:
            found.setdefault(end.namespace, (set(), set()))[0].add(end.index)
            for upper in end.leaning:
                if upper.namespace != end.namespace:
                    found.setdefault(upper.namespace, (set(), set()))[1].add(upper.name)
    return found


def read(socket: Socket, ends: Collection[int], names: Collection[str]) -> list[Link]:
    """The VLANs of the socket's namespace that have one of these names or stand upon an end of these ifindexes, and
    those upon them. Raises KernelError."""
    present = [link for link in consistent_dump(links.dump, socket) if link.kind == "vlan"]
    found = [link for link in present if link.name in names or (link.nsid is None and link.link in ends)]
    below = {link.index for link in found}
    while below:
        some = [link for link in present if link.nsid is None and link.link in below and link not in found]
        found += some
        below = {link.index for link in some}
    return found
