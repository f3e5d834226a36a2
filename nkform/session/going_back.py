"""Which run is to be taken back, the way that leads there, and taking it: `nkform recover` and `nkform rollback`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from nkform.apply import journal, lacking
from nkform.apply.journal import Fault, Found, State
from nkform.apply.tidy import tidy
from nkform.dataclass import dataclass
from nkform.kernel import rundir
from nkform.kernel.interrupt import Stopped
from nkform.kernel.netns import Namespaces
from nkform.problem import Problem, fail
from nkform.session import records
from nkform.session.node import chosen, killed_run
from nkform.session.recovery import WayBack, revert, way_back
from nkform.session.run_lock import refuse_all_elsewhere, refuse_pending, stopped

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nkform.plan.changes import Plan
    from nkform.session.listener import Listener
    from nkform.session.run_lock import RunLock

Command = Literal["recover", "rollback"]
STATES: dict[Command, tuple[State, State]] = {
    "recover": (journal.JOURNAL, journal.UNCONFIRMED),
    "rollback": (journal.UNCONFIRMED, journal.PREVIOUS),
}
"""Which runs each takes back, in the order of preference: `recover` one that was killed, or that nobody confirmed;
`rollback` one on trial, or the last apply."""


@dataclass(frozen=True, slots=True)
class GoingBack:
    """The run that is to be taken back (`found`, which is in `state`), and the way."""

    node: str
    command: Command
    state: State
    found: Found
    way: WayBack

    @property
    def plan(self) -> Plan:
        return self.way.plan

    @property
    def was_killed(self) -> bool:
        """Whether the run did not come to its end."""
        return self.state == journal.JOURNAL

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What keeps some of the node from going back."""
        return self.way.observation.problems


def meant(command: Command, node: str | None) -> str:
    """The node whose run is to be taken back, as far as it is clear before anybody else can be in between; or empty."""
    nodes = list(_looks(command))
    return node or (nodes[0] if len(nodes) == 1 else "")


def _looks(command: Command) -> dict[str, Found | Fault]:
    """The run of each node that the command could take back; or why it cannot be read, where there may be one."""
    looks: dict[str, Found | Fault] = {}
    for name in rundir.nodes():
        for state in STATES[command]:
            if name not in looks and (look := journal.look(name, state)) is not None:
                looks[name] = look
    return looks


def elsewhere(node: str | None) -> list[str]:
    """The nodes, or the one that is named, whose last apply was in another network namespace. Raises KernelError."""
    looks = {name: journal.look(name, journal.PREVIOUS) for name in rundir.nodes() if node in (None, name)}
    return [name for name, look in looks.items() if look is None and journal.is_elsewhere(name, journal.PREVIOUS)]


def choose(command: Command, name: str | None, listener: Listener) -> GoingBack | None:
    """Finds the run and the way back; None where there is no such run. The lock is held.

    Raises NkformError, KernelError.
    """
    looks = _looks(command)
    nodes = list(looks)
    if not nodes or (name and name not in nodes):
        refuse_all_elsewhere(name)
        if command == "rollback":
            _recover_first([each for each in rundir.nodes() if name in (None, each)])
    if not nodes:
        return None
    node = chosen(nodes, name)
    for other, fault in looks.items():
        if other != node and not isinstance(fault, Found):
            listener.warn(records.warnings(fault))
    refuse_pending(node, listener, goes_back=True)
    if command == "rollback":
        _recover_first([node])
    state, found = next((state, found) for state in STATES[command] if (found := journal.find(node, state)))
    with Namespaces() as namespaces:
        if state == journal.JOURNAL:
            listener.warn([killed_run(found, "the way back leads to before it")])
            tidy(found, namespaces)
            trial = journal.find(node, journal.UNCONFIRMED)
            if trial and found.entry.token == journal.token_back(trial.entry.token):  # all of it was on its way back
                state, found = journal.UNCONFIRMED, trial
        way = way_back(found.entry.before, namespaces)
        if state == journal.JOURNAL:
            listener.warn(list(lacking.warnings(found.entry.others, way.plan, namespaces)))
        return GoingBack(node, command, state, found, way)


def _recover_first(nodes: Iterable[str]) -> None:
    """Raises NkformError (NK0514) where a run on one of these nodes did not come to its end."""
    for node in nodes:
        left = journal.look(node, journal.JOURNAL)
        if isinstance(left, Found):
            raise fail("NK0514", f"a run on {node} {left.ended}: it comes first", hint="`nkform recover` takes it back")


def take(going: GoingBack, run_lock: RunLock, listener: Listener, *, expedite: bool) -> None:
    """Goes the way that was shown; another one is not taken. Raises NkformError, KernelError."""
    warnings: list[Problem] = []
    node, state = going.node, going.state
    refuse_pending(node, listener, goes_back=True)
    found = journal.find(node, state)
    if found is None or found.entry.token != going.found.entry.token:
        raise fail("NK0517", f"the run on {node} is not on record any more: nothing was done", hint="run it again")
    try:
        revert(
            node, state, found, run_lock.lock, run_lock.interrupts,
            expedite=expedite, shown=going.way, warn=warnings.append,
        )  # fmt: skip
    except Stopped as error:
        raise stopped(node) from error
    finally:
        listener.warn(list(dict.fromkeys(warnings)))
    rundir.remove(node, journal.UP_TO_DATE)
    if found.entry.command == "rollback":  # going back from a rollback is going forward again
        rundir.remove(node, journal.OUTCOME)
    elif found.entry.spec or state == journal.PREVIOUS:
        journal.note_outcome(node, found.entry.token, (), found.entry.spec or journal.ANY_SPEC)
