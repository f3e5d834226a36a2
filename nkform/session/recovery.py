"""Going back to a node as it was: after a run that was killed, one that nobody confirmed, or one that is regretted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress

from nkform.apply import parts, undoing
from nkform.apply.context import RunContext
from nkform.apply.foreign_state import ForeignItem, give_again, losses
from nkform.apply.journal import JOURNAL, PREVIOUS, UNCONFIRMED, Found, State, find, forget, free_room, look, token_back
from nkform.apply.parts import Observation
from nkform.apply.tidy import release, tidy
from nkform.apply.transaction import Run, apply
from nkform.dataclass import dataclass, replace
from nkform.kernel import process, rundir
from nkform.kernel.error import KernelError
from nkform.kernel.interrupt import Interrupts
from nkform.kernel.netns import Namespaces
from nkform.kernel.probe import probe
from nkform.kernel.rundir import Lock
from nkform.listing import MANY, enumerated
from nkform.model import Node
from nkform.observe import explanations, record
from nkform.observe.node import observe
from nkform.plan.changes import Plan
from nkform.plan.parts import NOTHING, Without
from nkform.plan.saved import check_agreed
from nkform.plan.state_diff import sent_from_others, state_diff
from nkform.problem import NkformError, Problem


@dataclass(frozen=True, slots=True)
class WayBack:
    """What the node shall be again, and the look at it with the plan that leads there."""

    before: Node
    observation: Observation

    @property
    def plan(self) -> Plan:
        return self.observation.plan


def way_back(before: Node, namespaces: Namespaces, without: Without = NOTHING) -> WayBack:
    """The way back, as far as nothing of others is in the way. Raises KernelError, NkformError."""
    return WayBack(before, undoing.way_back(before, namespaces, probe(namespaces, {"tcx"}), without))


class _Return:
    """Going back, as work that can be done in parts (apply/parts.py)."""

    def __init__(self, way: WayBack, run: Run, context: RunContext) -> None:
        self._way = way
        self._run = run
        self._context = context

    def observe(self, without: Without) -> Observation:
        self._way = way_back(self._way.before, self._context.namespaces, without)
        return self._way.observation

    def carry_out(self, observation: Observation, *, whole: bool) -> None:
        if observation.plan.actions:
            run = self._run if whole else replace(self._run, in_parts=True)
            plan, desired, live = observation.plan, observation.desired, observation.live
            apply(plan, desired, live, run, self._context, without=observation.without)


def revert(
    node: str,
    state: State,
    found: Found,
    lock: Lock,
    interrupts: Interrupts,
    *,
    expedite: bool = True,
    shown: WayBack | None = None,
    warn: Callable[[Problem], None] = lambda _: None,
) -> None:
    """Goes back to before a run: as a whole, or where something is in the way of that, as much as can be.

    Until all is done the run's record stays, so that it can be tried again. `expedite`: whether grace periods may be
    expedited, if the run itself could do so. `shown`: the way that somebody has agreed to; another one is not taken.
    `warn` gets what others have lost by it. Raises NkformError with all that could not go back, KernelError.
    """
    before = found.entry.before
    with Namespaces() as namespaces:
        if half := find(node, JOURNAL):  # the run's, or that of one that was killed while it went back
            tidy(half, namespaces)
        way = way_back(before, namespaces)
        if shown is not None:
            check_agreed(shown.observation.live, way.observation.live, shown.plan, way.plan)
        expedite = expedite and found.entry.expedite
        context = RunContext(lock, namespaces, way.observation.features, interrupts, expedite=expedite, warn=warn)
        if state != PREVIOUS:
            with suppress(KernelError):
                free_room(node)
        problems = parts.carry_out(_Return(way, _returning(state, found), context), way.observation)
        if found.entry.others:
            home = _at_home(found.entry.others, before, namespaces)
            for loss in losses(give_again(home, namespaces, beside=False)):
                warn(loss)
        if problems:
            with suppress(KernelError):  # then `show` leaves out some of what has gone back
                explanations.note(observe(namespaces, node, before), before.explained)
            if state == UNCONFIRMED:
                record.forget(node)  # most of what was applied last is gone
            raise NkformError(*problems)
        _compare(before, namespaces, warn)
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
        part = look(node, state)  # one that cannot be read is another version's
        if isinstance(part, Found) and part.entry.token == found.entry.token:
            yield state


def _compare(before: Node, namespaces: Namespaces, warn: Callable[[Problem], None]) -> None:
    """Raises NkformError where not all is as before, and warns of what is but behind that of others. What programs were
    made of is noted again."""
    live = observe(namespaces, before.name, before)
    with suppress(KernelError):  # then `show` leaves out some of what has gone back
        explanations.note(live, before.explained)
    for problem in sent_from_others(before, live):
        warn(problem)
    left = state_diff(before, live, losses=False)
    if left:
        raise NkformError(
            Problem(
                "NK0506",
                f"gone back, but not all is as before: {enumerated(left, MANY)}",
                hint="it was changed by others, or cannot be had again; `nkform plan` shows what differs from the spec",
            )
        )


def _returning(state: State, found: Found) -> Run:
    """The way back from the last apply leads to it again; that from a run which was killed or not confirmed ends."""
    if state == PREVIOUS:
        return Run("rollback", process.token(), returns=True)
    earlier = found if state == JOURNAL else None
    token, confirm = (found.entry.token, found.entry.confirm) if earlier else (token_back(found.entry.token), 0)
    # Killed on the way, it is still the run that nobody confirmed.
    return Run("rollback", token, found.entry.before, earlier, settles=None, returns=True, confirm=confirm)
