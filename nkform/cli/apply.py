"""`nkform apply` and `nkform destroy`: plan, ask, carry out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nkform.cli.common import (
    Look,
    afterwards,
    drift_of,
    known_node,
    look,
    look_after,
    place_all,
    placed,
    programs_of,
    read_spec,
    remember,
    timed,
    warn,
    warn_interrupted,
)
from nkform.cli.writing import Writer, refuse_pending, seconds, stopped, writing
from nkform.dataclass import dataclass, field, replace
from nkform.model import Node
from nkform.plan.parts import NOTHING, Without
from nkform.plan.saved import check_agreed, check_given, check_live, check_plan
from nkform.problem import NkformError, Problem, fail
from nkform.report.colour import Paint, wanted
from nkform.report.plan_text import lines

if TYPE_CHECKING:
    from nkform.apply.foreign_state import ForeignItem
    from nkform.apply.guardian import Guardian
    from nkform.apply.journal import State
    from nkform.bpf.programs import Programs
    from nkform.kernel.netns import Namespaces
    from nkform.observe.node import Begun
    from nkform.plan.changes import Plan
    from nkform.plan.drift import Notes
    from nkform.spec import Spec

PROGRESS_SECONDS = 1.0


def run(options: argparse.Namespace) -> int:
    from nkform.cli.saved import as_spec, load
    from nkform.kernel.netns import Namespaces

    kept = load(options)
    spec = as_spec(kept.basis) if kept else read_spec(options)
    if kept and options.keep_going:
        raise fail("NK0602", "--keep-going: a saved plan is carried out as a whole", hint="apply the spec instead")
    if kept:
        options.adopt, options.target = kept.basis.adopt, list(kept.basis.targets)
        options.objects = Path(kept.basis.objects) if kept.basis.objects else None
    node = spec.node.name
    trial = _trial(options)

    def see(without: Without | None = None, *, begun: Begun | None = None) -> Look:
        return look(
            namespaces,
            spec.node,
            programs=programs,
            adopt=options.adopt,
            targets=options.target,
            begun=begun,
            seen=partial(check_live, kept.basis) if kept else lambda _: None,
            without=NOTHING if options.keep_going and without is None else without,
        )

    with Namespaces() as namespaces, placed(spec), programs_of(spec, options) as programs:
        shown = None
        if not kept and not options.yes:
            shown = see(begun=ahead_of_question(node, options))
            _show(shown, spec, options)
            if not shown.plan.empty and not agreed("apply"):
                return 1
        with writing(options, "apply", node, namespaces) as writer:
            found = see()
            if kept:
                check_plan(kept, found.plan)
                check_given(kept.basis, programs.given() if programs else "")
            if shown:
                check_agreed(shown.live, found.live, shown.plan, found.plan)
            else:
                _show(found, spec, options)
            if found.plan.empty:
                if not found.problems:
                    nothing_to_do(found.live, writer)
                remember(found, found.live, spec, options, programs)
                if found.problems:
                    raise NkformError(*found.problems)
                return 0
            order = Order(namespaces, writer, programs, options.target, spec.expedite, trial=trial)
            done = carry_out_parts(found, see, order) if options.keep_going else carry_out(found, order)
            warn(list(dict.fromkeys(done.warnings)), options)
            if done.live is not None:
                remember(_converged(see(found.without)) if done.problems else found, done.live, spec, options, programs)
            added, changed, destroyed = done.counts
            said = "Apply complete, but for what is in the way." if done.problems else "Apply complete!"
            print(f"\n{said} Objects: {added} added, {changed} changed, {destroyed} destroyed.", flush=True)
            if done.problems and done.guardian is None:
                raise NkformError(*done.problems)
    guardian = done.guardian
    if done.problems:
        warn(place_all([replace(problem, severity="warning") for problem in done.problems], spec), options)
    if guardian is None:
        return 0
    from nkform.cli.confirm import wait

    return wait(node, guardian, trial, detach=options.detach) or int(bool(done.problems))


def _converged(found: Look) -> Look:
    """A look after a run, as one at the devices that are as the spec says."""
    differing = {change.name for change in found.plan.changes if change.kind == "device"}
    devices = {name: device for name, device in found.plan.devices.items() if name not in differing}
    left = found.without | {("device", name) for name in differing}
    return replace(found, plan=replace(found.plan, devices=devices), without=left)


def _trial(options: argparse.Namespace) -> float:
    """Within how many seconds the run is to be confirmed; 0: it is for good. Raises NkformError."""
    if options.confirm is None:
        if options.detach:
            raise fail("NK0602", "--detach goes with --confirm TIME: without it, there is nothing to wait for")
        return 0
    trial = seconds(options.confirm, "--confirm")
    if trial <= 0:
        raise fail("NK0602", f"--confirm {options.confirm}: nobody can confirm within no time", hint="try 60s, or 5m")
    return trial


def _show(found: Look, spec: Spec, options: argparse.Namespace) -> None:
    in_the_way = [replace(problem, severity="warning") for problem in found.problems]
    warn(place_all([*found.plan.warnings, *in_the_way], spec), options)
    show_plan(found.plan, options, drift_of(found))


def destroy(options: argparse.Namespace) -> int:
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.probe import require_root

    if bool(options.spec) == bool(options.node):
        raise NkformError(Problem("NK0602", "destroy takes spec files or --node NAME, one of them"))
    spec = read_spec(options) if options.spec else None
    empty = Node(spec.node.name if spec else options.node)
    with Namespaces() as namespaces:
        if spec is None:
            require_root()
            look_after(options)
            known_node(namespaces, empty.name)
        shown = None
        if not options.yes:
            shown = look(namespaces, empty, begun=ahead_of_question(empty.name, options))
            warn(shown.plan.warnings, options)
            show_plan(shown.plan, options)
            if not shown.plan.empty and not agreed("destroy"):
                return 1
        with writing(options, "destroy", empty.name, namespaces) as writer:
            found = look(namespaces, empty)
            if shown:
                check_agreed(shown.live, found.live, shown.plan, found.plan)
            else:
                warn(found.plan.warnings, options)
                show_plan(found.plan, options)
            if found.plan.empty:
                _forget(found.live, options)
                return 0
            expedite = spec.expedite if spec else _last_said(empty.name)
            done = carry_out(found, Order(namespaces, writer, expedite=expedite, settles=None))
            with afterwards(options):
                _forget(done.live or found.live, options)
    print(f"\nDestroy complete! Objects: {found.plan.count()[2]} destroyed.")
    return 0


def ahead_of_question(node: str, options: argparse.Namespace) -> Begun | None:
    """What a run that was killed left. Raises NkformError where no answer could count: a run waits to be confirmed."""
    begun = warn_interrupted(node, options)
    refuse_pending(node)
    return begun


def show_plan(plan: Plan, options: argparse.Namespace, drift: Notes | None = None) -> None:
    paint = Paint(wanted(sys.stdout, options.no_color))
    sys.stdout.writelines(lines(plan, paint, summary_only=options.summary, drift=drift or {}))
    sys.stdout.flush()


def agreed(verb: str) -> bool:
    """Asks, where somebody can answer. The machine's lock is not held meanwhile. Raises NkformError."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise fail("NK0603", f"nobody is here to be asked: run `nkform {verb} -y` to go ahead without a question")
    try:
        answer = input(f"\nDo you want nkform to {verb} this? Only 'yes' goes ahead: ")
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        answer = ""
    if answer.strip() != "yes":
        print(f"{verb.capitalize()} cancelled, nothing was changed.", file=sys.stderr)
        return False
    return True


@dataclass(frozen=True, slots=True)
class Order:
    """How plans are to be carried out.

    `trial`: seconds until it goes back if nobody confirms it, 0 if it is for good; then a guardian sees to that.
    `expedite`: whether the spec, or what was applied last, lets grace periods be expedited; the command line may forbid
    it. `settles`: what the journal becomes (apply/transaction.py).
    """

    namespaces: Namespaces
    writer: Writer
    programs: Programs | None = None
    targets: Sequence[str] = ()
    expedite: bool = True
    settles: State | None = "previous"
    trial: float = 0


@dataclass(slots=True)
class Done:
    """What came of it: the live node after it (None: nothing was done), how many actions that took, objects added,
    changed and destroyed, and why some could not be."""

    live: Node | None = None
    actions: int = 0
    counts: tuple[int, int, int] = (0, 0, 0)
    problems: tuple[Problem, ...] = ()
    guardian: Guardian | None = None
    warnings: list[Problem] = field(default_factory=list)


def carry_out(found: Look, order: Order) -> Done:
    """Carries a plan out, whole or not at all. Raises NkformError, KernelError."""

    def work(carrier: _Carrier) -> tuple[Problem, ...]:
        carrier.carry_out(found, whole=True)
        return ()

    return _guarded(order, _Carrier(found, order), work)


def carry_out_parts(found: Look, see: Callable[[Without], Look], order: Order) -> Done:
    """Carries out what can be. Raises NkformError (stopped), KernelError."""
    from nkform.apply.parts import carry_out

    carrier = _Carrier(found, order, see)
    return _guarded(order, carrier, lambda carrier: carry_out(carrier, found))


class _Carrier:
    """Carries out plans, one or several of which make the order's run. Work of apply/parts.py."""

    def __init__(self, found: Look, order: Order, see: Callable[[Without], Look] | None = None) -> None:
        from nkform.apply import journal
        from nkform.apply.transaction import Means

        writer = order.writer
        expedite = order.expedite and not writer.options.no_expedite
        self.node = found.desired.name
        self.token = journal.new_token()
        self.done = Done()
        self._order = order
        self._see = see
        self._earlier = writer.earlier
        self._origin = writer.earlier.entry.before if writer.earlier else None
        self._others: tuple[ForeignItem, ...] = ()
        self._first = found
        self._means = Means(
            writer.lock,
            order.namespaces,
            found.features,
            writer.interrupts,
            order.programs,
            Progress(),
            expedite,
            self.done.warnings.append,
        )

    def look(self, without: Without) -> Look:
        """Another look, once the whole could not be had: the way back leads to before all of it."""
        from nkform.apply.before import noted

        assert self._see is not None
        if self._origin is None:
            _, self._origin, self._others = noted(self._first.plan, self._first.live, self._order.namespaces)
        return self._see(without)

    def end(self) -> None:
        """All parts are done that can be: they are one run, with one way back."""
        from nkform.apply import journal

        order = self._order
        if self.done.live is not None or (self._earlier and order.settles == journal.PREVIOUS and not order.trial):
            journal.end_parts(self.node, journal.UNCONFIRMED if order.trial else order.settles)

    def carry_out(self, look: Look, *, whole: bool) -> None:
        from nkform.apply import journal
        from nkform.apply.transaction import Run, apply

        order = self._order
        settles = journal.UNCONFIRMED if order.trial else order.settles
        spec = journal.spec_key(self._first.desired) if order.trial else ""
        run = Run(
            "apply", self.token, self._origin, self._earlier, settles,
            confirm=order.trial, others=self._others, spec=spec, goes_on=not whole,
        )  # fmt: skip
        if look.plan.actions or self._see is None:
            self.done.live = apply(
                look.plan, look.desired, look.live, run, self._means, order.targets, look.without
            )  # fmt: skip
            self._earlier = None if whole else journal.find(self.node, journal.JOURNAL)
        self.done.actions += len(look.plan.actions)
        counts = zip(self.done.counts, look.plan.count(), strict=True)
        self.done.counts = tuple(map(sum, counts))  # type: ignore[assignment]  # three of them


def _guarded(order: Order, carrier: _Carrier, work: Callable[[_Carrier], tuple[Problem, ...]]) -> Done:
    """Has a run watched by a guardian, if it is to be confirmed."""
    from nkform.apply import journal
    from nkform.apply.interrupt import Stopped
    from nkform.apply.transaction import release
    from nkform.kernel import rundir

    node, done = carrier.node, carrier.done
    guardian = _guardian(node, carrier.token, order.trial, order.writer) if order.trial else None
    try:
        with timed("apply"):
            done.problems = work(carrier)
        carrier.end()
    except Stopped as error:
        raise stopped(node) from error
    except NkformError:
        if done.live is not None:
            carrier.end()
        if guardian and done.live is not None:  # some parts are done, and nobody will confirm them
            guardian.revert()
        elif guardian and not journal.find(node, journal.JOURNAL):
            guardian.dismiss()
            rundir.remove(node, rundir.GUARDIAN)
        raise
    if guardian and done.live is None:
        guardian.dismiss()
        rundir.remove(node, rundir.GUARDIAN)
    elif guardian:
        guardian.applied()
        done.guardian = guardian
    with afterwards(order.writer.options):
        if done.live is not None and not order.trial:
            journal.take_over(node, meant=order.settles is not None)
        release(node, done.live)
    return done


def _guardian(node: str, token: str, seconds: float, writer: Writer) -> Guardian:
    from nkform.apply import guardian
    from nkform.kernel import rundir

    if guardian.has_tried(node):  # the other one goes on by its record until this run's takes its place
        rundir.remove(node, rundir.GUARDIAN)
    return guardian.start(node, token, seconds, writer.lock.leave)


def nothing_to_do(live: Node, writer: Writer, *, meant: bool = True) -> None:
    """The node is as the spec says, which somebody `meant` if no watch asks.

    If a run that was killed got that far, it is done now.
    """
    from nkform.apply import journal
    from nkform.apply.transaction import release

    if writer.earlier:
        journal.complete(live.name)
    with afterwards(writer.options):
        journal.take_over(live.name, meant=meant)
        release(live.name, live)


def _last_said(node: str) -> bool:
    """Whether grace periods may be expedited, as far as the last apply of a node tells."""
    from nkform.apply import journal

    last = journal.find(node, journal.PREVIOUS)
    return last is None or last.entry.expedite


def _forget(live: Node, options: argparse.Namespace) -> None:
    """Nothing of a node is left, nor a way back; what says so goes."""
    from nkform.apply import journal, owned
    from nkform.apply.transaction import release
    from nkform.observe import explanations, record

    owned.tidy(live.name, live.namespaces.values())
    journal.forget_all(live.name)
    for program in release(live.name, live, away=True):
        gone = f"program {program} was detached from a device that is in another network namespace by now"
        warn([Problem("NK0429", gone, severity="warning")], options)
    explanations.forget(live.name)
    record.forget(live.name)


class Progress:
    """Says on stderr how far a long run is, at most once a second."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            print(f"{done} of {total} actions done", file=sys.stderr)
