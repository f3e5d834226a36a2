"""Whole or not at all: carries a plan out, reads back, compares, and undoes what was done when anything is wrong."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from nkform.apply.before import noted
from nkform.apply.context import RunContext
from nkform.apply.executor import Executor
from nkform.apply.foreign_before import unnoted
from nkform.apply.foreign_state import ForeignItem, give_again, left_alone, losses, lost, renamed, still_there
from nkform.apply.journal import Found, Journal, State, begin
from nkform.apply.lines import STOPPED
from nkform.apply.sysctl_snapshot import with_every_hop, with_sysctls_of
from nkform.apply.undoing import Undoing, reasons
from nkform.dataclass import dataclass
from nkform.kernel.error import KernelError
from nkform.kernel.interrupt import Interrupted, Stopped
from nkform.model import Node
from nkform.namespace_key import ROOT
from nkform.observe.node import observe
from nkform.plan.actions import Action, CreatePair, SetMark
from nkform.plan.changes import Change, Plan
from nkform.plan.grace import are_worth_it
from nkform.plan.parts import NOTHING, Without
from nkform.plan.plan import build, left_in_place
from nkform.problem import NkformError, Problem, unexpected

if TYPE_CHECKING:
    from nkform.apply.chains import Chains


@dataclass(frozen=True, slots=True)
class Run:
    """What is run, for its journal.

    `origin` is what its way back leads to, None for the node as it is now. `earlier` is an interrupted run that this
    one follows, which a failure leaves as it was. `settles` is what the journal becomes once the run is done; None: it
    goes, and the way back stays what it was. `returns`: the run goes back, to programs that earlier runs held.
    `confirm`: within how many seconds it is to be confirmed, 0 if it is for good. `in_parts`: it is a part of what is
    to be done, so the record of the interrupted run stays. `goes_on`: more parts follow, so its journal stays as that
    of a run under way (journal.end_parts). `others`: what others had before the parts that came first.
    `spec`: what tells the spec of a run that is to be confirmed from others (journal.spec_key).
    """

    command: str
    token: str
    origin: Node | None = None
    earlier: Found | None = None
    settles: State | None = "previous"
    returns: bool = False
    confirm: float = 0
    in_parts: bool = False
    goes_on: bool = False
    others: tuple[ForeignItem, ...] = ()
    spec: str = ""


class _Steps:
    """Writes each step into the journal before it is taken, stops between steps, and counts what was done."""

    def __init__(self, context: RunContext, journal: Journal, total: int, *, holds: bool) -> None:
        self._context = context
        self._journal = journal
        self._total = total
        self._ahead = 0
        self.count = 0
        self.group = journal.entry.group
        self.holds = holds

    def ahead(self, count: int) -> None:
        self._context.interrupts.check()
        self._ahead += count
        self._journal.reach(self._ahead)

    def done(self, action: Action) -> None:  # noqa: ARG002
        self.count += 1
        if self._context.progress is not None:
            self._context.progress(self.count, self._total)

    def temporary(self, namespace: str, interface: str, key: str, value: str) -> None:
        self._journal.note_temporary(namespace, interface, key, value)


def apply(
    plan: Plan,
    desired: Node,
    before: Node,
    run: Run,
    context: RunContext,
    targets: Collection[str] = (),
    without: Without = NOTHING,
) -> Node:
    """Carries a plan out and returns the live node after it; what is held only for the way back is to be released.

    `targets` and `without` are those that the plan was made with.
    Raises NkformError when the kernel refuses an action or does not keep what it accepted, and when somebody asked to
    stop; the node is then as before, or the error says what is not and the journal stays. Stopped when somebody
    asked again: the node is then in between, and the journal stays.
    """
    now, others, many = noted(plan, before, context.namespaces)
    others = tuple(dict.fromkeys((*run.others, *others)))
    journal = begin(
        run.command,
        with_sysctls_of(run.origin, now) if run.origin else now,
        plan.actions,
        others,
        run.token,
        run.earlier,
        expedite=context.expedite,
        confirm=run.confirm,
        spec=run.spec,
    )
    journal.write(returns=run.returns)
    steps = _Steps(context, journal, len(plan.actions), holds=run.settles is not None or run.confirm > 0)
    cookies = {key: space.cookie for key, space in before.namespaces.items()}
    with ExitStack() as stack:
        stack.callback(journal.close)
        stack.push(partial(_note_stop, journal))
        chains: Chains | None = None

        def undone() -> list[Problem]:
            back, worth_it = with_every_hop(plan, before, now), are_worth_it(plan.actions)
            undoing = Undoing(before, back, others, desired, journal, context, chains, cookies, worth_it)
            return [*undoing.run(steps.count), *unnoted(many)]

        try:
            chains = context.chains(plan, stack, explained=(*desired.explained, *now.explained), returns=run.returns)
            executor = Executor(context.namespaces, plan.node, steps, chains, context.expedited, cookies)
            executor.run(plan.actions)
            for name, crowd in executor.left.items():
                context.warn(left_in_place(name, crowd))
            kept = renamed(left_alone(journal.entry.others, plan.actions), plan.changes)
            give_again(kept, context.namespaces, beside=False)  # what can be had with the spec
            live = observe(context.namespaces, plan.node, desired)
            _check_peers(plan.actions, cookies, live)
            shall, there = (without | _freed(plan)).trim(desired, live)
            resolved = {name: device for name, device in plan.devices.items() if name in shall.devices}
            present = [name for name in targets if name in shall.devices or name in there.devices]
            if present or not targets:  # a target that was to go has gone
                again = build(shall, there, features=context.features, targets=present, resolved=resolved)
                _verify(again, executor.deleted)
            context.interrupts.check()
            if chains is not None:
                chains.sweep(live)
            if run.in_parts:
                journal.undone()
            else:
                still_had = still_there(journal.entry.others, plan.actions, plan.changes, context.namespaces)
                _warn_of(lost(journal.entry.others, still_had, plan.actions, plan.changes), many, context)
                journal.others_have(still_had)  # not before all is well: a failed undoing has to give them all again
                if not run.goes_on:
                    journal.settle(run.settles)
        except (KernelError, MemoryError, NkformError, Interrupted) as error:
            raise NkformError(*reasons(error), *undone()) from error
        except Exception as error:
            raise NkformError(unexpected(error), *undone()) from error
        except Stopped:
            raise
        except BaseException as error:  # SystemExit and the like, of who listens: not ours to turn into anything else
            for problem in undone():
                error.add_note(f"{problem.code}: {problem.message}")
            raise
    return live


def _warn_of(gone: Sequence[str], many: Iterable[str], context: RunContext) -> None:
    """Warns of what others have no more, and of the namespaces where nobody knows."""
    for problem in (*losses(gone), *unnoted(many)):
        context.warn(problem)


def _note_stop(journal: Journal, _: object, error: BaseException | None, __: object) -> None:
    if isinstance(error, Stopped):
        journal.left(STOPPED)


def _check_peers(actions: Sequence[Action], cookies: Mapping[str, int], live: Node) -> None:
    """Raises KernelError (ESTALE) where a new peer was put into another namespace, which had taken over a key."""
    for action in actions:
        if isinstance(action, CreatePair) and action.device.peer is not None:
            key = action.device.peer.namespace
            there = live.namespaces.get(key)
            if there is not None and there.cookie and cookies.get(key, 0) not in (0, there.cookie):
                asked = f"put the peer of {action.device.name} into namespace {key}"
                raise KernelError(errno.ESTALE, asked, "that name leads to another namespace now")


def _freed(plan: Plan) -> Iterator[tuple[str, str]]:
    """The devices that are others' again after going back: nobody declares them any more."""
    for action in plan.actions:
        match action:
            case SetMark(namespace, name, False) if namespace == ROOT and name != "lo":
                yield "device", name


def _verify(again: Plan, deleted: Collection[str]) -> None:
    """Raises NkformError for all that is not as declared after all was done: what the kernel silently ignored.

    A namespace that was left in place, since somebody had devices there, may be empty by now: the next run deletes it.
    """
    wrong = [
        change
        for change in again.changes
        if (change.kind, change.operation) != ("namespace", "destroy") or change.name in deleted
    ]
    if problems := [problem for change in wrong for problem in _differences(change)]:
        raise NkformError(*problems)


def _differences(change: Change) -> list[Problem]:
    if change.operation in ("create", "destroy"):
        state = "is not there" if change.operation == "create" else "is still there"
        return [Problem("NK0502", f"{change.kind} {change.name} {state} after all was done")]
    return [
        Problem(
            "NK0502",
            f"the kernel accepted {'.'.join(field.path)} {field.after} for {change.name} but keeps {field.before}",
            path=(f"{change.kind}s", change.name, *field.path),
            hint="this kernel does not know it, or something else on the node sets it",
        )
        for field in change.fields
    ]
