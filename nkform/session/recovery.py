"""Going back to a node as it was: after a run that was killed, one that nobody confirmed, or one that is regretted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from nkform.apply import parts
from nkform.apply.foreign_state import ForeignItem, give_again
from nkform.apply.interrupt import Interrupts
from nkform.apply.journal import JOURNAL, PREVIOUS, UNCONFIRMED, Entry, Found, State, find, forget, new_token
from nkform.apply.parts import Observation
from nkform.apply.transaction import Means, Run, apply, release
from nkform.apply.visit import give_back
from nkform.dataclass import dataclass, replace
from nkform.kernel import bpffs, link_requests, links, rundir
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, whole
from nkform.kernel.netns import Namespaces
from nkform.kernel.probe import probe
from nkform.kernel.rundir import Lock
from nkform.model import Node, owner_of
from nkform.observe import explanations, record
from nkform.observe.namespaces import identify
from nkform.observe.node import observe
from nkform.plan import restore
from nkform.plan.changes import Plan
from nkform.plan.parts import NOTHING, Without
from nkform.plan.saved import check_agreed
from nkform.plan.state_diff import state_diff
from nkform.problem import NkformError, Problem


@dataclass(frozen=True, slots=True)
class WayBack:
    """What the node shall be again, and the look at it with the plan that leads there."""

    before: Node
    observation: Observation

    @property
    def plan(self) -> Plan:
        return self.observation.plan


def tidy(found: Found, namespaces: Namespaces) -> None:
    """Makes what a killed run left fit to be planned against: what it made is marked, what it lent is given back.

    Changes nothing else. Raises KernelError.
    """
    if failed := give_back(found.lent, namespaces):
        raise failed[0]
    _claim(found.entry)
    for name in found.entry.namespaces:
        _unname(name, namespaces)
    node = found.entry.before.name
    _release_qdiscs(found.entry)
    if bpffs.has_node(node):
        from nkform.apply.chains import Chains

        with Chains(node, None) as chains:
            chains.sweep()
        for top in (bpffs.FOLDER, bpffs.HELD):
            bpffs.tidy_node(node, top=top)


def _claim(entry: Entry) -> None:
    """Devices in the run's group are those that it made and had not marked, or was about to delete."""
    node = entry.before.name
    with Socket() as socket:
        in_group = [link for link in whole(links.dump, socket) if link.group == entry.group]
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
        for link in whole(links.dump, socket):
            if link.name in devices:
                tc.release(link.index)


def way_back(before: Node, namespaces: Namespaces, without: Without = NOTHING) -> WayBack:
    """The way back, as far as nothing of others is in the way. Raises KernelError, NkformError."""
    features = probe(namespaces, {"tcx"})
    live = observe(namespaces, before.name, before)
    desired = restore.declared(before, live)
    build = partial(restore.plan, before, live, features)
    return WayBack(before, parts.observation(desired, live, features, build, without))


class _Return:
    """Going back, as work that can be done in parts (apply/parts.py)."""

    def __init__(self, way: WayBack, run: Run, means: Means) -> None:
        self._way = way
        self._run = run
        self._means = means

    def observe(self, without: Without) -> Observation:
        self._way = way_back(self._way.before, self._means.namespaces, without)
        return self._way.observation

    def carry_out(self, observation: Observation, *, whole: bool) -> None:
        if observation.plan.actions:
            run = self._run if whole else replace(self._run, in_parts=True)
            plan, desired, live = observation.plan, observation.desired, observation.live
            apply(plan, desired, live, run, self._means, without=observation.without)


def revert(
    node: str,
    state: State,
    found: Found,
    lock: Lock,
    interrupts: Interrupts,
    *,
    expedite: bool = True,
    shown: WayBack | None = None,
) -> None:
    """Goes back to before a run: as a whole, or where something is in the way of that, as much as can be.

    Until all is done the run's record stays, so that it can be tried again. `expedite`: whether grace periods may be
    expedited, if the run itself could do so. `shown`: the way that somebody has agreed to; another one is not taken.
    Raises NkformError with all that could not go back, KernelError.
    """
    before = found.entry.before
    with Namespaces() as namespaces:
        if half := find(node, JOURNAL):  # the run's, or that of one that was killed while it went back
            tidy(half, namespaces)
        way = way_back(before, namespaces)
        if shown is not None:
            check_agreed(shown.observation.live, way.observation.live, shown.plan, way.plan)
        expedite = expedite and found.entry.expedite
        means = Means(lock, namespaces, way.observation.features, interrupts, expedite=expedite)
        problems = parts.carry_out(_Return(way, _returning(state, found), means), way.observation)
        if found.entry.others:
            give_again(_at_home(found.entry.others, before, namespaces), namespaces, beside=False)
        if problems:
            with suppress(KernelError):  # then `show` leaves out some of what has gone back
                explanations.note(observe(namespaces, node, before), before.explained)
            raise NkformError(*problems)
        _compare(before, namespaces)
        if state != PREVIOUS:
            forget(node, JOURNAL, state, *_of_the_same_run(node, found))
            rundir.remove(node, rundir.GUARDIAN)
        if state != JOURNAL:
            record.forget(node)  # what was applied last is gone; before it, there was something else
        release(node, way.observation.live)


def _at_home(others: Iterable[ForeignItem], before: Node, namespaces: Namespaces) -> list[ForeignItem]:
    """What others had, but for what was at an end of a device of the node whose name another device has by now."""
    live = observe(namespaces, before.name, before)
    same = {
        (end.namespace, end.name)
        for name, device in live.devices.items()
        if device.owner == before.name or (name in before.devices and before.devices[name].index == device.index)
        for end in device.ends
    }
    strange = {(end.namespace, end.name) for device in before.devices.values() for end in device.ends} - same
    return [item for item in others if (item.namespace, item.name) not in strange]


def _of_the_same_run(node: str, found: Found) -> Iterator[State]:
    """What parts of the run that were done left on record: they lead to where it has gone back to."""
    for state in (UNCONFIRMED, PREVIOUS):
        part = find(node, state)
        if part and part.entry.token == found.entry.token:
            yield state


def _compare(before: Node, namespaces: Namespaces) -> None:
    """Raises NkformError where not all is as before. What programs were made of is noted again."""
    live = observe(namespaces, before.name, before)
    with suppress(KernelError):  # then `show` leaves out some of what has gone back
        explanations.note(live, before.explained)
    left = state_diff(before, live, losses=False)
    if left:
        raise NkformError(
            Problem(
                "NK0506",
                f"gone back, but not all is as before: {', '.join(left)}",
                hint="it was changed by others, or cannot be had again; `nkform plan` shows what differs from the spec",
            )
        )


def _returning(state: State, found: Found) -> Run:
    """The way back from the last apply leads to it again; that from a run which was killed or not confirmed ends."""
    if state == PREVIOUS:
        return Run("rollback", new_token(), returns=True)
    earlier = found if state == JOURNAL else None
    token, confirm = (found.entry.token, found.entry.confirm) if earlier else (new_token(), 0)
    # Killed on the way, it is still the run that nobody confirmed.
    return Run("rollback", token, found.entry.before, earlier, settles=None, returns=True, confirm=confirm)
