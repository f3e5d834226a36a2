"""Takes back a run that failed: by the difference to the node as it was, as all other ways back lead.

Nothing is remembered of what was done: what is there is compared with what was there. So a run that failed, one that
was killed and one that is regretted go back alike (session/recovery.py), and where something is in the way of one
object, the others go back all the same (apply/parts.py).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from nkform.apply import parts
from nkform.apply.context import RunContext
from nkform.apply.executor import Executor
from nkform.apply.foreign_state import ForeignItem, give_again
from nkform.apply.journal import Journal
from nkform.apply.lines import STUCK
from nkform.apply.parts import Observation
from nkform.apply.tidy import release, tidy_entry
from nkform.apply.visit import restore_settings
from nkform.dataclass import dataclass
from nkform.kernel.error import KernelError
from nkform.kernel.interrupt import Interrupted
from nkform.kernel.netns import Namespaces
from nkform.kernel.probe import probe
from nkform.listing import MANY, enumerated
from nkform.model import Node
from nkform.namespace_key import ROOT, is_unnamed
from nkform.observe.node import observe
from nkform.plan import restore
from nkform.plan.actions import Action, CreatePair
from nkform.plan.parts import NOTHING, Without
from nkform.plan.state_diff import sent_from_others, state_diff
from nkform.problem import NkformError, Problem, unexpected

if TYPE_CHECKING:
    from nkform.apply.chains import Chains

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
TRIES = 2
CLEAR_UP = "mend the cause; `nkform recover`, or the next apply, clears up what is left"
RECOVER = "run `nkform recover` once the cause is mended; `nkform plan` shows what differs from the spec"


def reasons(error: BaseException) -> Sequence[Problem]:
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


def way_back(before: Node, namespaces: Namespaces, features: frozenset[str], without: Without = NOTHING) -> Observation:
    """A look at the node, and what leads back to what it was, as far as nothing of others is in the way.

    Raises KernelError, NkformError.
    """
    live = observe(namespaces, before.name, before)
    build = partial(restore.plan, before, live, features)
    return parts.observation(restore.declared(before, live), live, features, build, without)


@dataclass(frozen=True, slots=True)
class Undoing:
    """What a run that failed is taken back with.

    `before` is the node as it was, `now` the same with all that only going back needs (apply/before.py), `others` what
    others had. `desired` says what to look for in maps. `cookies` are the numbers of namespaces, by their keys.
    `worth_it`: grace periods are expedited, as they were for the run.
    """

    before: Node
    now: Node
    others: Sequence[ForeignItem]
    desired: Node
    journal: Journal
    context: RunContext
    chains: Chains | None
    cookies: dict[str, int]
    worth_it: bool

    def run(self, done: int) -> list[Problem]:
        """Goes back, and returns what to tell. `done`: how many actions were carried out.

        The journal goes if the node is as before, and stays if it is not, or if this raises.
        """
        journal, namespaces = self.journal, self.context.namespaces
        if not restore_settings(journal.temporary, namespaces):  # while interfaces have the old names
            journal.temporary.clear()
        failed, left, told = self._go_back() if journal.reached else ([], [], [])
        if kept := restore_settings(journal.temporary, namespaces):
            failed += (_while_undoing(f"could not {error}") for error in kept)
            left.append("a sysctl that was to change for a moment only")
        if left:
            journal.left(STUCK)
            return [*failed, Problem("NK0504", f"not as before: {enumerated(left, MANY)}", hint=RECOVER)]
        try:
            journal.undone()
            release(self.before.name)
        except KernelError as error:
            said = f"the node is as before, but nkform could not {error}"
            return [Problem("NK0516", said, hint=CLEAR_UP, severity="warning")]
        text = f"all {done} actions were undone: the node is as before"
        return [*told, Problem("NK0505", text, severity="note")] if done else []

    def _go_back(self) -> tuple[list[Problem], list[str], list[Problem]]:
        """What failed on the way, what is not as before, and what else is to be told. What fails may go well once more:
        it is tried twice."""
        if self.chains is not None:
            self.chains.turn_back()
        for _ in range(TRIES):
            failed = [_while_undoing(problem.message) for problem in self._try()]
            left, told = self._left(doubtful=bool(failed))  # where all went well, what came meanwhile is not ours
            if not left:
                break
        return failed, left, told

    def _try(self) -> Sequence[Problem]:
        try:
            tidy_entry(self.journal.entry, self.context.namespaces, self.chains)
            work = _Return(self)
            with self.context.expedited.during(self.worth_it):
                problems: Sequence[Problem] = parts.carry_out(work, work.observe(NOTHING))
        except (KernelError, NkformError, MemoryError) as error:
            problems = reasons(error)
        except Exception as error:
            problems = [unexpected(error)]  # what others had is given back all the same, and the rest is told
        if self.chains is not None:
            with suppress(KernelError):  # what holds no program any more is only clutter: the next run clears it up
                self.chains.sweep()
        return problems

    def _left(self, *, doubtful: bool) -> tuple[list[str], list[Problem]]:
        """What is not as before, once others have again what they had, and what can only be told."""
        namespaces, before = self.context.namespaces, self.before
        lost = give_again(self.others, namespaces, beside=True)
        try:
            also = {device.peer.namespace for device in before.devices.values() if device.peer} - {ROOT}
            live = observe(namespaces, before.name, self.desired, also={key for key in also if not is_unnamed(key)})
        except KernelError as error:
            return [f"what cannot be seen, could not {error}"], []
        return lost + state_diff(before, live, newcomers=doubtful), list(sent_from_others(before, live))


class _Return:
    """The way back, as work that can be done in parts (apply/parts.py)."""

    def __init__(self, undoing: Undoing) -> None:
        self._undoing = undoing
        self._before = undoing.now
        self._namespaces = undoing.context.namespaces
        self._chains = undoing.chains
        features = frozenset(undoing.context.features)
        # The spec of the run may have needed less of the kernel than what was there before it.
        chained = any(hook.ours for device in self._before.devices.values() for hook in device.hooks.values())
        self._features = features | probe(self._namespaces, {"tcx"}) if chained else features

    def observe(self, without: Without) -> Observation:
        return way_back(self._before, self._namespaces, self._features, without)

    def carry_out(self, observation: Observation, *, whole: bool) -> None:  # noqa: ARG002 - each part goes back for good
        actions = observation.plan.actions
        with ExitStack() as stack:
            chains = self._chains or self._undoing.context.chains(
                observation.plan, stack, explained=self._before.explained, returns=True
            )
            if chains is not None:
                chains.made_anew(action.device.name for action in actions if isinstance(action, CreatePair))
            context, cookies = self._undoing.context, self._undoing.cookies
            back = _Back(self._undoing.journal)
            executor = Executor(self._namespaces, self._before.name, back, chains, context.expedited, cookies)
            executor.run(actions)
            if executor.left:
                name, others = next(iter(executor.left.items()))
                raise KernelError(errno.ENOTEMPTY, f"delete namespace {name}, which holds {enumerated(others)}")


class _Back:
    """The steps of an undoing: nothing stops them, and nothing undoes them."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.group = journal.entry.group
        self.holds = False

    def ahead(self, count: int) -> None:
        pass

    def done(self, action: Action) -> None:
        pass

    def temporary(self, namespace: str, interface: str, key: str, value: str) -> None:
        self._journal.note_temporary(namespace, interface, key, value)


def _while_undoing(message: str) -> Problem:
    return Problem("NK0503", f"while undoing, {message}")
