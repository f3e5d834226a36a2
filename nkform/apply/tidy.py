"""Makes what a run left half done fit to be planned against."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from nkform.apply import held as held_namespaces
from nkform.apply.journal import STATES, Entry, Found, look
from nkform.apply.visit import restore_settings
from nkform.kernel import bpf_links, bpffs, link_requests, links
from nkform.kernel.descriptors import Owned
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.model import Node, owner_of
from nkform.observe import record
from nkform.observe.namespaces import identify
from nkform.problem import fail

if TYPE_CHECKING:
    from nkform.apply.chains import Chains


def tidy(found: Found, namespaces: Namespaces) -> None:
    """Makes what a killed run left fit to be planned against: what it made is marked, temporary settings are restored.

    Changes nothing else. Raises KernelError.
    """
    if failed := restore_settings(found.temporary, namespaces):
        raise failed[0]
    tidy_entry(found.entry, namespaces)


def tidy_entry(entry: Entry, namespaces: Namespaces, chains: Chains | None = None) -> None:
    """As `tidy`, but for temporary settings. `chains`: the run's own, if it has any. Raises KernelError."""
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
    if namespaces.is_plain(name) and name not in identify(namespaces, [name]):
        with suppress(OSError):
            namespaces.remove_plain(name)


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
    """Lets go of the programs that chains lost, and of the namespaces that lost their names, but for those that a way
    back needs. Raises KernelError.

    With the node as it is, also of the pins of links whose devices are gone, which hold nothing. `away`: and of the
    programs at devices that are in another namespace by now. Returns them in words.
    """
    ways = [look(node, state) for state in STATES]
    befores = [way.entry.before for way in ways if isinstance(way, Found)]
    known = all(way is None or isinstance(way, Found) for way in ways)  # nobody knows what another one needs
    if known:
        held_namespaces.release(node, befores)
    held = known and bpffs.has_node(node, top=bpffs.HELD)
    astray = live is not None and live.astray > 0
    if not held and not astray:
        return []
    detached = []
    with chains_of(node) as chains:
        if astray:
            detached = chains.sweep(live, away=away)
        if held:
            chains.release([device for before in befores for device in before.devices.values()])
    return [f"{pin.entry.partition('@')[0]} ({pin.device} {pin.hook})" for pin in detached]


def require_here(node: str) -> None:
    """Raises NkformError (NK0482) where a node was applied in another network namespace, and its programs run there."""
    if not record.is_of_another_place(node):
        return
    for pin in bpffs.pins(node):
        with Owned(bpf_links.open_link(pin.path())) as link:
            if bpf_links.link_info(link).ifindex:
                told = f"{node} was applied in another network namespace, where {pin.device} runs a program of it"
                hint = "run nkform there: its devices go, and its programs, or neither"
                raise fail("NK0482", told, hint=hint)
