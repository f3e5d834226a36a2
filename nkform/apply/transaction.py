"""Whole or not at all: carries a plan out, reads back, compares, and undoes what was done when anything is wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING

from nkform.apply.before import noted
from nkform.apply.executor import Executor
from nkform.apply.expedite import Expedited
from nkform.apply.foreign_state import ForeignItem, give_again, left_alone, lost, renamed, still_there
from nkform.apply.interrupt import Interrupted, Interrupts, Stopped
from nkform.apply.journal import STATES, Found, Journal, State, begin, find
from nkform.apply.lines import STOPPED, STUCK
from nkform.apply.visit import give_back
from nkform.dataclass import dataclass
from nkform.kernel import bpffs
from nkform.kernel.error import KernelError
from nkform.kernel.netns import Namespaces
from nkform.kernel.rundir import Lock
from nkform.model import ROOT, Explanation, Node
from nkform.observe.node import observe
from nkform.plan import restore
from nkform.plan.actions import Action, CreatePair, DeletePair, SetChain, SetMap, SetMark, device_of, undo
from nkform.plan.changes import Change, Plan
from nkform.plan.grace import are_worth_it
from nkform.plan.parts import NOTHING, Without
from nkform.plan.plan import build
from nkform.plan.state_diff import state_diff
from nkform.problem import NkformError, Problem, unexpected

if TYPE_CHECKING:
    from nkform.apply.chains import Chains
    from nkform.bpf.programs import Programs

Progress = Callable[[int, int], None]
"""Called with how many actions are done and how many there are."""

HINTS: Mapping[int, str] = {
    errno.EPERM: "nkform needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN",
    errno.EEXIST: "something of that name came up since the plan was made, or a route like it exists: plan again",
    errno.ENODEV: "the device has gone since the plan was made: plan again",
    errno.ENOENT: "it has gone since the plan was made: plan again",
    errno.ENOTEMPTY: "move or delete what is in the namespace, then plan again",
    errno.ESTALE: "plan again",
    errno.ENETUNREACH: "the gateway is not reachable through this device: add a route to it, or `onlink: true`",
    errno.ENOBUFS: "the kernel ran out of memory for it",
    errno.ENOMEM: "the kernel, or the limit on this process's memory (`ulimit -a`), has no more memory for it",
    errno.EMFILE: "this process may not open more files: raise `ulimit -n`",
    errno.ENOSPC: "make room where it says, then run nkform again",
}
CLEAR_UP = "mend the cause; `nkform recover`, or the next apply, clears up what is left"
RECOVER = "run `nkform recover` once the cause is mended; `nkform plan` shows what differs from the spec"


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


@dataclass(frozen=True, slots=True)
class Means:
    """What a run works with. The lock is there so that no run can be without it.

    `expedite`: whether the kernel's grace periods may be expedited while programs come and go (apply/expedite.py).
    `warn` is told what is worth a word of a run that is done.
    """

    lock: Lock
    namespaces: Namespaces
    features: Collection[str]
    interrupts: Interrupts
    programs: Programs | None = None
    progress: Progress | None = None
    expedite: bool = True
    warn: Callable[[Problem], None] | None = None

    @property
    def expedited(self) -> Expedited:
        return Expedited(self.lock if self.expedite else None)


class _Steps:
    """Writes each step into the journal before it is taken, stops between steps, and remembers what was done."""

    def __init__(self, means: Means, journal: Journal, total: int) -> None:
        self._means = means
        self._journal = journal
        self._total = total
        self._ahead = 0
        self.actions: list[Action] = []
        self.group = journal.entry.group

    def ahead(self, count: int) -> None:
        self._means.interrupts.check()
        self._ahead += count
        self._journal.reach(self._ahead)

    def done(self, action: Action) -> None:
        self.actions.append(action)
        if self._means.progress is not None:
            self._means.progress(len(self.actions), self._total)

    def lent(self, namespace: str, interface: str, key: str, value: str) -> None:
        self._journal.lend(namespace, interface, key, value)


class _Back:
    """The steps of an undoing: nothing stops them, and nothing undoes them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.group = journal.entry.group

    def ahead(self, count: int) -> None:
        pass

    def done(self, action: Action) -> None:
        pass

    def lent(self, namespace: str, interface: str, key: str, value: str) -> None:
        self._journal.lend(namespace, interface, key, value)


def apply(
    plan: Plan,
    desired: Node,
    before: Node,
    run: Run,
    means: Means,
    targets: Collection[str] = (),
    without: Without = NOTHING,
) -> Node:
    """Carries a plan out and returns the live node after it; what is held only for the way back is to be released.

    `targets` and `without` are those that the plan was made with.
    Raises NkformError when the kernel refuses an action or does not keep what it accepted, and when somebody asked to
    stop; the node is then as before, or the error says what is not and the journal stays. Stopped when somebody
    asked again: the node is then in between, and the journal stays.
    """
    complete, now, others = noted(plan, before, means.namespaces)
    others = tuple(dict.fromkeys((*run.others, *others)))
    journal = begin(
        run.command,
        run.origin or now,
        complete.actions,
        others,
        run.token,
        run.earlier,
        expedite=means.expedite,
        confirm=run.confirm,
        spec=run.spec,
    )
    journal.write()
    steps = _Steps(means, journal, len(plan.actions))
    cookies = {key: space.cookie for key, space in before.namespaces.items()}
    with ExitStack() as stack:
        stack.callback(journal.close)
        stack.push(partial(_note_stop, journal))
        chains: Chains | None = None
        try:
            chains = _chains(complete, run, means, stack, (*desired.explained, *now.explained))
            Executor(means.namespaces, plan.node, steps, chains, means.expedited, cookies).run(complete.actions)
            kept = renamed(left_alone(journal.entry.others, complete.actions), plan.changes)
            give_again(kept, means.namespaces, beside=False)  # what can be had with the spec
            live = observe(means.namespaces, plan.node, desired)
            _check_peers(complete.actions, cookies, live)
            shall, there = (without | _freed(plan)).trim(desired, live)
            resolved = {name: device for name, device in plan.devices.items() if name in shall.devices}
            present = [name for name in targets if name in shall.devices or name in there.devices]
            if present or not targets:  # a target that was to go has gone
                _verify(build(shall, there, features=means.features, targets=present, resolved=resolved))
            means.interrupts.check()
            if chains is not None:
                chains.sweep(live)
            if run.in_parts:
                journal.undone()
            else:
                still_had = still_there(journal.entry.others, complete.actions, plan.changes, means.namespaces)
                _tell_losses(lost(journal.entry.others, still_had, complete.actions, plan.changes), means)
                journal.others_have(still_had)  # not before all is well: a failed undoing has to give them all again
                if not run.goes_on:
                    journal.settle(run.settles)
        except (KernelError, MemoryError, NkformError, Interrupted) as error:
            undone = _undone(steps, before, others, desired, journal, means, chains, cookies)
            raise NkformError(*_told(error), *undone) from error
        except Exception as error:
            undone = _undone(steps, before, others, desired, journal, means, chains, cookies)
            raise NkformError(unexpected(error), *undone) from error
    return live


def _tell_losses(texts: Sequence[str], means: Means) -> None:
    if texts and means.warn is not None:
        said = f"what others had could not be had again: {', '.join(texts)}"
        means.warn(Problem("NK0521", said, hint="put it back if it is needed; `rollback` does", severity="warning"))


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


def _told(error: BaseException) -> Sequence[Problem]:
    """Why a run failed."""
    match error:
        case NkformError():
            return error.problems
        case Interrupted():
            return [Problem("NK0507", f"stopped by {error}")]
        case MemoryError():
            return [Problem("NK0501", "this process ran out of memory", hint=HINTS[errno.ENOMEM])]
        case KernelError():
            return [Problem("NK0501", f"could not {error}", hint=HINTS.get(error.errno or 0, ""))]
    raise AssertionError(error)


def _chains(plan: Plan, run: Run, means: Means, stack: ExitStack, explained: Iterable[Explanation]) -> Chains | None:
    """What attaches programs, where the plan has any. `explained`: what those that are or were attached are made of."""
    for action in plan.actions:
        if isinstance(action, SetChain | SetMap) or (isinstance(action, DeletePair) and action.device.hooks):
            from nkform.apply.chains import Chains

            chains = stack.enter_context(Chains(plan.node, means.programs, explained=explained))
            if run.returns:
                chains.recall([a.device.name for a in plan.actions if isinstance(a, CreatePair)])
            return chains
    return None


def release(node: str, live: Node | None = None, *, away: bool = False) -> list[str]:
    """Lets go of the programs that chains lost, but for those that a way back needs. Raises KernelError.

    With the node as it is, also of the pins of links whose devices are gone, which hold nothing. `away`: and of the
    programs at devices that are in another namespace by now. Returns them in words.
    """
    held = bpffs.has_node(node, top=bpffs.HELD)
    astray = live is not None and live.astray > 0
    if not held and not astray:
        return []
    from nkform.apply.chains import Chains

    detached = []
    with Chains(node, None) as chains:
        if astray:
            detached = chains.sweep(live, away=away)
        if held:
            ways = [found.entry.before for state in STATES if (found := find(node, state))]
            chains.release([device for before in ways for device in before.devices.values()])
    return [f"{pin.entry.partition('@')[0]} ({pin.device} {pin.hook})" for pin in detached]


def _verify(again: Plan) -> None:
    """Raises NkformError for all that is not as declared after all was done: what the kernel silently ignored."""
    if not again.empty:
        raise NkformError(*(problem for change in again.changes for problem in _differences(change)))


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


def _undone(
    steps: _Steps,
    before: Node,
    others: Sequence[ForeignItem],
    desired: Node,
    journal: Journal,
    means: Means,
    chains: Chains | None,
    cookies: dict[str, int],
) -> list[Problem]:
    """Undoes what was done, last first, and compares with the state before; returns what to tell.

    Goes on past what cannot be undone, so that as much as possible is; what is left then is gone about by comparison.
    The journal goes if the node is as before, and stays if it is not, or if this raises.
    """
    failed: list[Problem] = []
    if not give_back(journal.lent, means.namespaces):  # now, while interfaces have the names that it was lent under
        journal.lent.clear()
    done = list(steps.actions)
    executor = Executor(means.namespaces, before.name, _Back(journal), chains, means.expedited, cookies)
    # What undoes a change of a chain does not say what it will find there: the change does.
    with means.expedited.during(are_worth_it(done)):
        missing: set[str] = set()
        for actions in _runs(step for action in reversed(done) for step in undo(action)):
            some = [action for action in actions if device_of(action) not in missing]
            try:
                executor.run(some)
            except (KernelError, NkformError, MemoryError) as error:
                failed += (_while_undoing(problem.message) for problem in _told(error))
                # What has the name of an end that could not be had again is somebody else's.
                missing |= {action.device.name for action in some if isinstance(action, CreatePair)}
    if chains is not None:
        with suppress(KernelError):  # what holds no program any more is only clutter: the next run clears it up
            chains.sweep()
    doubtful = bool(failed)  # where all went well, what came meanwhile is not ours
    left = _left(before, others, desired, means, doubtful) if done else []
    if left:
        _compare(before, executor, means)
        left = _left(before, others, desired, means, doubtful)
    if kept := give_back(journal.lent, means.namespaces):
        failed += (_while_undoing(f"could not {error}") for error in kept)
        left.append("a sysctl that was to change for a moment only")
    if left:
        journal.left(STUCK)
        failed.append(Problem("NK0504", f"not as before: {', '.join(left)}", hint=RECOVER))
        return failed
    told = [Problem("NK0505", f"all {len(done)} actions were undone: the node is as before", severity="note")]
    try:
        journal.undone()
        release(before.name)
    except KernelError as error:
        said = f"the node is as before, but nkform could not {error}"
        return [Problem("NK0516", said, hint=CLEAR_UP, severity="warning")]
    return told if done else []


def _while_undoing(message: str) -> Problem:
    return Problem("NK0503", f"while undoing, {message}")


def _left(before: Node, others: Sequence[ForeignItem], desired: Node, means: Means, doubtful: bool) -> list[str]:
    """What is not as before, once others have again what they had."""
    lost = give_again(others, means.namespaces, beside=True)
    try:
        return lost + state_diff(before, observe(means.namespaces, before.name, desired), newcomers=doubtful)
    except KernelError as error:
        return [f"what cannot be seen, could not {error}"]


def _compare(before: Node, executor: Executor, means: Means) -> None:
    """A second way back: by what differs, whatever was done."""
    with suppress(KernelError, NkformError):  # what is left then says more than why
        live = observe(means.namespaces, before.name, before)
        executor.run(restore.plan(before, live, means.features).actions)


def _runs(actions: Iterable[Action]) -> Iterator[list[Action]]:
    """Actions of one type in a row: few batches where all goes well, little lost where one fails."""
    return (list(run) for _, run in groupby(actions, type))
