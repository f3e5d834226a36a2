"""Makes what a run left half done fit to be planned against."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nkform.apply.journal import STATES, Entry, Found, look
from nkform.apply.visit import give_back
from nkform.kernel import bpffs, link_requests, links
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.model import Node, owner_of
from nkform.observe.namespaces import identify

if TYPE_CHECKING:
    from nkform.apply.chains import Chains


def tidy(found: Found, namespaces: Namespaces) -> None:
    """Makes what a killed run left fit to be planned against: what it made is marked, what it lent is given back.

    Changes nothing else. Raises KernelError.
    """
    if failed := give_back(found.lent, namespaces):
        raise failed[0]
    tidy_entry(found.entry, namespaces)


def tidy_entry(entry: Entry, namespaces: Namespaces, chains: Chains | None = None) -> None:
    """As `tidy`, but for what was lent. `chains`: the run's own, if it has any. Raises KernelError."""
    _claim(entry)
    for name in entry.namespaces:
        _unname(name, namespaces)
    node = entry.before.name
    _release_qdiscs(entry)
    if bpffs.has_node(node):
        with chains_of(node) if chains is None else nullcontext(chains) as all_chains:
            all_chains.sweep()
        for top in (bpffs.FOLDER, bpffs.HELD):
            bpffs.tidy_node(node, top=top)


def chains_of(node: str) -> Chains:
    """What knows of a node's pins, and attaches nothing."""
    from nkform.apply.chains import Chains

    return Chains(node, None)


def _claim(entry: Entry) -> None:
    """Devices in the run's group are those that it made and had not marked, or was about to delete."""
    node = entry.before.name
    with Socket() as socket:
        in_group = [link for link in consistent_dump(links.dump, socket) if link.group == entry.group]
        ours = [
            link for link in in_group if owner_of(link.alias) == node or (not link.alias and link.name in entry.made)
        ]
        socket.ask([link_requests.claim(link.name, node) for link in ours])


def _unname(name: str, namespaces: Namespaces) -> None:
    """Removes the name of a namespace that did not come to be, or is gone: a plain file."""
    path = Path(namespaces.path(name))
    if path.exists() and not path.is_mount() and name not in identify(namespaces, [name]):
        with suppress(OSError):
            path.unlink()


def _release_qdiscs(entry: Entry) -> None:
    """A clsact qdisc that the run made for programs on a device of others, and that has none."""
    devices = frozenset(entry.filtered)
    if not devices:
        return
    from nkform.kernel.clsact import Tc

    with Socket() as socket, Tc() as tc:
        for link in consistent_dump(links.dump, socket):
            if link.name in devices:
                tc.release(link.index)


def release(node: str, live: Node | None = None, *, away: bool = False) -> list[str]:
    """Lets go of the programs that chains lost, but for those that a way back needs. Raises KernelError.

    With the node as it is, also of the pins of links whose devices are gone, which hold nothing. `away`: and of the
    programs at devices that are in another namespace by now. Returns them in words.
    """
    held = bpffs.has_node(node, top=bpffs.HELD)
    astray = live is not None and live.astray > 0
    if not held and not astray:
        return []
    detached = []
    with chains_of(node) as chains:
        if astray:
            detached = chains.sweep(live, away=away)
        if held:
            ways = [look(node, state) for state in STATES]
            if all(way is None or isinstance(way, Found) for way in ways):  # nobody knows what another one needs
                befores = [way.entry.before for way in ways if isinstance(way, Found)]
                chains.release([device for before in befores for device in before.devices.values()])
    return [f"{pin.entry.partition('@')[0]} ({pin.device} {pin.hook})" for pin in detached]
