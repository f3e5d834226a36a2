"""What undoing needs and no plan says: sysctls of ends that go away, what others have on ends that are worked on, and
what programs were made of.

It is read before anything is done, in one visit to each namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from nkform.apply import closed_vlans, foreign_before, new_macs, new_mtus, sysctl_snapshot
from nkform.apply.foreign_state import ForeignItem
from nkform.dataclass import replace
from nkform.device_sysctls import FORCE_FORWARDING, FORWARDING
from nkform.kernel import devconf, sysctl
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import U32, Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.model import Node
from nkform.namespace_key import ROOT, is_unnamed
from nkform.observe import explanations
from nkform.plan.changes import Plan


def noted(plan: Plan, live: Node, namespaces: Namespaces) -> tuple[Node, tuple[ForeignItem, ...], tuple[str, ...]]:
    """The live node with all sysctls of what the plan takes away, what others may lose by it, and the namespaces where
    that is too much to be noted, which is none of it then.

    The node has with it what is on record of its programs. Raises KernelError.
    """
    live = replace(live, explained=explanations.read(live.name))
    going = sysctl_snapshot.going(plan, live)
    shaken = foreign_before.shaken(plan.actions, live)
    lowered = foreign_before.lowered(plan.actions, live)
    closing = closed_vlans.closing(plan.actions, live)
    readdressed = new_macs.readdressed(plan.actions, live)
    resized = new_mtus.resized(plan.actions, live)
    values: dict[str, sysctl_snapshot.Interfaces] = {}
    others: list[ForeignItem] = []
    unnoted: list[str] = []
    shared = devconf.Shared()
    with namespaces.away() as enter:
        keys = going.keys() | shaken.keys() | lowered.keys() | closing.keys() | readdressed.keys() | resized.keys()
        for key in sorted(key for key in keys if not is_unnamed(key)):
            with namespaces.open(key) as fd:
                enter(fd, key)
            with Socket() as socket:
                own_ends = resized.get(key, {})
                dump = partial(devconf.dump, names=going.get(key, frozenset()), shared=shared, sized=own_ends)
                interfaces = consistent_dump(dump, socket)
                values[key] = {name: _forced(name, sysctls) for _, name, sysctls, _ in interfaces}
                some: list[ForeignItem] = []
                ends = lowered.get(key, {})
                upon = foreign_before.upon(socket, ends) if ends else {}
                some += (ForeignItem(key, name, "mtu", U32.pack(mtu).hex()) for name, mtu in upon.items())
                small = [index for index, mtu in ends.items() if foreign_before.is_small(mtu)]
                robbed = foreign_before.upon(socket, small) if small else {}  # of IPv6, not of an MTU alone
                closed = closed_vlans.read(socket, *closing[key]) if key in closing else []
                some += (ForeignItem(key, link.name, "down", "") for link in closed if not link.values["up"])
                known = {index: name for index, name, _, _ in interfaces}
                if names := {*shaken.get(key, ()), *robbed, *(link.name for link in closed)}:
                    some += foreign_before.read(socket, key, names, known)
                if key in readdressed:
                    some += new_macs.read(socket, key, readdressed[key], known)
                if sized := {**dict.fromkeys(upon, False), **own_ends}:
                    mtus = {name: mtus for _, name, _, mtus in interfaces if name in own_ends}
                    some += new_mtus.read(socket, key, sized, known, names, mtus)
                if key != ROOT and len(some) > foreign_before.MOST:
                    unnoted.append(key)
                else:
                    others += some
    return sysctl_snapshot.noted(plan, live, going, values), tuple(others), tuple(unnoted)


def _forced(name: str, sysctls: Mapping[str, str]) -> Mapping[str, str]:
    """The sysctls of an interface, with the one that a link message lacks, where it may be set."""
    if sysctls.get(FORWARDING) != "1":
        return sysctls
    try:
        return {**sysctls, FORCE_FORWARDING: sysctl.read(name, FORCE_FORWARDING)}
    except KernelError:  # this kernel has none
        return sysctls
