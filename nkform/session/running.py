"""From a plan that was made under the lock to the node as it says, with what is put on record of it."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING

from nkform.dataclass import dataclass, replace
from nkform.model import Node
from nkform.plan.parts import Without
from nkform.problem import NkformError, Problem, fail
from nkform.session.listener import Listener, afterwards, timed
from nkform.session.run_lock import stopped

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from nkform.apply.foreign_state import ForeignItem
    from nkform.apply.journal import State
    from nkform.apply.parts import Observation
    from nkform.kernel.netns import Namespaces
    from nkform.session.guardian import Guardian
    from nkform.session.prepared import Prepared
    from nkform.session.run_lock import RunLock
    from nkform.session.trial import Trial


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a run: how many actions it took, how many objects were added, updated and destroyed, and why some
    could not be (`problems`). `trial`: it goes back unless it is confirmed.
    """

    node: str
    actions: int = 0
    added: int = 0
    updated: int = 0
    destroyed: int = 0
    problems: tuple[Problem, ...] = ()
    trial: Trial | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was done to the node."""
        return self.actions > 0


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be carried out, and how.

    `lock` takes the lock of the machine for what comes after the run, as `Session.lock` does. `expedite`: whether grace
    periods may be expedited. `settles`: what the journal becomes (apply/transaction.py); None where nobody asked for
    the run, and the way back stays what it was. `trial`: within how many seconds it has to be confirmed; 0: it is for
    good.
    """

    prepared: Prepared
    namespaces: Namespaces
    run_lock: RunLock
    listener: Listener
    lock: Callable[[str], AbstractContextManager[object]]
    expedite: bool = True
    settles: State | None = "previous"
    trial: float = 0

    @property
    def node(self) -> str:
        return self.prepared.node


def carry_out(order: Order, observation: Observation) -> Applied:
    """Carries a plan out, whole or not at all, or with `keep_going` what can be of it. Raises NkformError, KernelError.

    The plan was made under the order's lock.
    """
    from nkform.apply import journal
    from nkform.kernel import rundir

    prepared = order.prepared
    if order.settles is not None:
        rundir.remove(order.node, journal.UP_TO_DATE)
    if observation.plan.empty:
        _nothing_to_do(order, observation)
        return Applied(order.node, problems=tuple(prepared.place(observation.problems)))
    if order.run_lock.earlier:
        from nkform.apply import lacking

        others = order.run_lock.earlier.entry.others
        order.listener.warn(list(lacking.warnings(others, observation.plan, order.namespaces)))
    runner = _Runner(order, observation)
    guardian = _guarded(order, runner)
    order.listener.warn(prepared.place(dict.fromkeys(runner.warnings)))
    if prepared.destroys:
        with afterwards(order.listener):
            _forget(runner.live or observation.live, order.listener)
    elif runner.live is not None:
        _remember(order, _converged(runner.observe(observation.without)) if runner.problems else observation,
                  runner.live)  # fmt: skip
    trial = _trial(order, guardian) if guardian else None
    return Applied(order.node, runner.actions, *runner.counts, tuple(prepared.place(runner.problems)), trial)


class _Runner:
    """Carries out plans, one or several of which make the order's run. Work of apply/parts.py."""

    def __init__(self, order: Order, observation: Observation) -> None:
        from nkform.apply.context import RunContext
        from nkform.kernel import process

        earlier = order.run_lock.earlier
        self.token = process.token()
        self.live: Node | None = None
        """The node after it; None: nothing was done."""
        self.actions = 0
        self.counts = (0, 0, 0)
        self.problems: tuple[Problem, ...] = ()
        self._order = order
        self._first = observation
        self._earlier = earlier
        self._origin = earlier.entry.before if earlier else None
        self._others: tuple[ForeignItem, ...] = ()
        self._whole = False
        self.warnings: list[Problem] = []
        """What others have lost, say."""
        self._context = RunContext(
            order.run_lock.lock, order.namespaces, observation.features, order.run_lock.interrupts,
            order.prepared.programs, order.listener.progress, order.expedite, self.warnings.append,
        )  # fmt: skip

    def run(self) -> None:
        """Raises NkformError, KernelError."""
        if self._order.prepared.options.keep_going:
            from nkform.apply.parts import carry_out

            self.problems = carry_out(self, self._first)
        else:
            self.carry_out(self._first, whole=True)

    def observe(self, without: Without) -> Observation:
        """Another look, once the whole could not be had: the way back leads to before all of it."""
        from nkform.apply.before import noted

        order = self._order
        if self._origin is None:
            self._origin, self._others, _ = noted(self._first.plan, self._first.live, order.namespaces)
        return order.prepared.observe(order.namespaces, order.listener, without=without)

    def end(self) -> None:
        """All parts are done that can be, if not all was done at once: they are one run, with one way back.

        Raises KernelError.
        """
        from nkform.apply import journal

        order = self._order
        follows = self._earlier is not None and order.settles == journal.PREVIOUS and not order.trial
        if order.prepared.options.keep_going and not self._whole and (self.live is not None or follows):
            journal.end_parts(order.node, journal.UNCONFIRMED if order.trial else order.settles)

    def carry_out(self, observation: Observation, *, whole: bool) -> None:
        from nkform.apply import journal
        from nkform.apply.transaction import Run, apply

        order, plan = self._order, observation.plan
        settles = journal.UNCONFIRMED if order.trial else order.settles
        spec = journal.spec_key(self._first.desired) if order.trial else ""
        run = Run(
            "apply", self.token, self._origin, self._earlier, settles,
            confirm=order.trial, others=self._others, spec=spec, goes_on=not whole,
        )  # fmt: skip
        if plan.actions or not order.prepared.options.keep_going:
            self.live = apply(
                plan, observation.desired, observation.live, run, self._context,
                order.prepared.options.targets, observation.without,
            )  # fmt: skip
            self._whole = whole
            self._earlier = None if whole else journal.find(order.node, journal.JOURNAL)
        self.actions += len(plan.actions)
        added, updated, destroyed = self.counts
        more_added, more_updated, more_destroyed = plan.count()
        self.counts = (added + more_added, updated + more_updated, destroyed + more_destroyed)


def _guarded(order: Order, runner: _Runner) -> Guardian | None:
    """Runs, watched by a guardian if it is to be confirmed, who is returned while it waits."""
    from nkform.apply import journal
    from nkform.apply.tidy import release
    from nkform.kernel import rundir
    from nkform.kernel.interrupt import Stopped

    node = order.node
    guardian = _guardian(order, runner.token) if order.trial else None

    def dismiss() -> None:
        assert guardian is not None
        guardian.dismiss()
        rundir.remove(node, rundir.GUARDIAN)

    try:
        with timed(order.listener, "apply"):
            runner.run()
        with nullcontext() if order.trial else afterwards(order.listener):  # what nobody confirms has to go back
            runner.end()
    except Stopped as error:
        raise stopped(node) from error
    except NkformError:
        if runner.live is not None:
            runner.end()
        if guardian and runner.live is not None:  # some parts are done, and nobody will confirm them
            guardian.revert()
        elif guardian and not journal.find(node, journal.JOURNAL):
            dismiss()
        raise
    except BaseException:  # a listener's, say: nobody will confirm what was done
        if guardian:
            guardian.revert()
        raise
    if guardian and runner.live is None:
        dismiss()
        guardian = None
    elif guardian:
        guardian.applied()
    with afterwards(order.listener):
        if runner.live is not None and not order.trial:
            journal.take_over(node, meant=order.settles is not None)
        release(node, runner.live)
    return guardian


def _guardian(order: Order, token: str) -> Guardian:
    """Raises NkformError (NK0618: there is none, and nothing was changed)."""
    from nkform.kernel import rundir
    from nkform.kernel.error import KernelError
    from nkform.session import guardian, guardian_record

    node = order.node
    if guardian_record.has_tried(node):  # the other one goes on by its record until this run's takes its place
        rundir.remove(node, rundir.GUARDIAN)
    try:
        return guardian.start(node, token, order.trial, order.run_lock.lock.leave)
    except KernelError as error:
        with suppress(KernelError):
            rundir.remove(node, rundir.GUARDIAN)
        what = f"could not {error}: nobody would go back, so nothing was changed"
        raise fail("NK0618", what, hint=guardian.NO_GUARDIAN) from error


def _trial(order: Order, guardian: Guardian) -> Trial:
    from nkform.session.trial import Trial

    return Trial(order.node, guardian, order.trial, order.listener, order.lock)


def _nothing_to_do(order: Order, observation: Observation) -> None:
    """The node is as it shall be, or what is not cannot be. If a run that was killed got that far, it is done now."""
    from nkform.apply import journal
    from nkform.apply.tidy import release

    live = observation.live
    if order.prepared.destroys:
        _forget(live, order.listener)
        return
    if not observation.problems:
        if order.run_lock.earlier:
            journal.complete(live.name)
        with afterwards(order.listener):
            journal.take_over(live.name, meant=order.settles is not None)
            release(live.name, live)
    _remember(order, observation, live)
    if order.trial and not observation.problems:
        with afterwards(order.listener):
            journal.note_up_to_date(live.name)


def _converged(observation: Observation) -> Observation:
    """A look after a run, as one at the devices that are as the spec says."""
    plan = observation.plan
    differing = {change.name for change in plan.changes if change.kind == "device"}
    devices = {name: device for name, device in plan.devices.items() if name not in differing}
    left = observation.without | {("device", name) for name in differing}
    return replace(observation, plan=replace(plan, devices=devices), without=left)


def _remember(order: Order, observation: Observation, live: Node) -> None:
    """Puts on record what was applied, and what the programs were made of."""
    from nkform.apply import owned, record
    from nkform.observe import explanations, managed
    from nkform.plan.let_go import checksum

    prepared, plan = order.prepared, observation.plan
    with timed(order.listener, "record"), afterwards(order.listener):
        owned.tidy(live.name, live.namespaces.values())
        if prepared.programs is not None:
            order.listener.warn(prepared.programs.notes)
            explanations.note(live, prepared.programs.explained(plan.devices.values()))
        files = [source.name for source in prepared.spec.sources]
        targets = prepared.options.targets
        if observation.without and not targets:
            targets = tuple(plan.devices)
            if not targets:
                return  # nothing is as the spec says, so what was applied before is still what is on record
        record.note(plan, prepared.spec.node, features=observation.features, files=files, targets=targets)
        managed.note(live.name, checksum(prepared.spec.node.devices) if not targets else "")


def _forget(live: Node, listener: Listener) -> None:
    """Nothing of a node is left, nor a way back; what says so goes."""
    from nkform.apply import journal, owned
    from nkform.apply.tidy import release
    from nkform.observe import explanations, record

    owned.tidy(live.name, live.namespaces.values())
    journal.forget_all(live.name)
    for program in release(live.name, live, away=True):
        gone = f"program {program} was detached from a device that is in another network namespace by now"
        listener.warn([Problem("NK0429", gone, severity="warning")])
    explanations.forget(live.name)
    record.forget(live.name)
