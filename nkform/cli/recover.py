"""`nkform recover` and `nkform rollback`: back to what the node was."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from nkform.apply import journal
from nkform.apply.interrupt import Stopped
from nkform.apply.journal import Found, State
from nkform.apply.recovery import WayBack, revert, tidy, way_back
from nkform.cli.apply import agreed, show_plan
from nkform.cli.common import check_node, chosen_node, interrupted, look_after, warn
from nkform.cli.writing import locked, refuse_all_elsewhere, refuse_pending, stopped
from nkform.dataclass import dataclass, replace
from nkform.kernel import rundir
from nkform.kernel.netns import Namespaces
from nkform.problem import fail

if TYPE_CHECKING:
    from nkform.apply.interrupt import Interrupts
    from nkform.kernel.rundir import Lock


@dataclass(frozen=True, slots=True)
class _Chosen:
    """The run that is to be taken back, and the way."""

    node: str
    state: State
    found: Found
    way: WayBack


def run(options: argparse.Namespace) -> int:
    """Takes back a run that was killed, or that nobody confirmed."""
    return _back(options, "recover", (journal.JOURNAL, journal.UNCONFIRMED))


def rollback(options: argparse.Namespace) -> int:
    """Takes back the last apply, or the one that waits to be confirmed."""
    return _back(options, "rollback", (journal.UNCONFIRMED, journal.PREVIOUS))


def _back(options: argparse.Namespace, command: str, states: tuple[State, State]) -> int:
    """Others need not wait while somebody is asked: what was shown is compared with what is to be done after it."""
    check_node(options.node)
    look_after(options, but=_meant(options, states))
    with locked(options, command) as (lock, interrupts):
        chosen = _choose(options, command, states)
        if chosen is None:
            return _nothing(command, options.node)
        if options.yes or not chosen.way.plan.actions:
            return _go(options, chosen, lock, interrupts)
    if not agreed(command):
        return 1
    with locked(options, command) as (lock, interrupts):
        return _go(options, chosen, lock, interrupts)


def _meant(options: argparse.Namespace, states: tuple[State, State]) -> str:
    """The node whose run is to be taken back, as far as it is clear before anybody else can be in between; or empty."""
    nodes = [name for name in rundir.nodes() if any(journal.find(name, state) for state in states)]
    return options.node or (nodes[0] if len(nodes) == 1 else "")


def _choose(options: argparse.Namespace, command: str, states: tuple[State, State]) -> _Chosen | None:
    """Finds the run and shows the way back; None where there is no such run. Raises NkformError, KernelError."""
    nodes = [name for name in rundir.nodes() if any(journal.find(name, state) for state in states)]
    if not nodes or (options.node and options.node not in nodes):
        refuse_all_elsewhere(options.node)
    if not nodes:
        return None
    node = chosen_node(nodes, options.node)
    refuse_pending(node, goes_back=True)
    if command == "rollback" and (left := journal.find(node, journal.JOURNAL)):
        raise fail("NK0514", f"a run on {node} {left.ended}: it comes first", hint="`nkform recover` takes it back")
    state, found = next((state, found) for state in states if (found := journal.find(node, state)))
    _tell(found, state, options)
    with Namespaces() as namespaces:
        if state == journal.JOURNAL:
            tidy(found, namespaces)
        way = way_back(found.entry.before, namespaces)
    warn([replace(problem, severity="warning") for problem in way.look.problems], options)
    if not (way.plan.empty and way.look.problems):
        show_plan(way.plan, options)
    return _Chosen(node, state, found, way)


def _go(options: argparse.Namespace, chosen: _Chosen, lock: Lock, interrupts: Interrupts) -> int:
    node, state = chosen.node, chosen.state
    refuse_pending(node, goes_back=True)
    found = journal.find(node, state)
    if found is None or found.entry.token != chosen.found.entry.token:
        raise fail("NK0517", f"the run on {node} is not on record any more: nothing was done", hint="run it again")
    try:
        revert(node, state, found, lock, interrupts, expedite=not options.no_expedite, shown=chosen.way)
    except Stopped as error:
        raise stopped(node) from error
    if found.entry.command == "rollback":  # going back from a rollback is going forward again
        rundir.remove(node, journal.OUTCOME)
    elif found.entry.spec or state == journal.PREVIOUS:
        journal.note_outcome(node, found.entry.token, (), found.entry.spec or journal.ANY_SPEC)
    print(f"\n{node} is as it was before.")
    return 0


def _nothing(command: str, node: str | None) -> int:
    if command == "recover":
        print("Nothing to recover: no run was killed, none waits to be confirmed.")
        return 0
    away = [name for name in rundir.nodes() if node in (None, name) and journal.is_elsewhere(name, journal.PREVIOUS)]
    if away:
        what = f"the last apply of {', '.join(away)} was in another network namespace"
        raise fail("NK0515", what, hint="go back from it there")
    raise fail("NK0515", "there is no apply to go back from", hint="the way back is lost at reboot and by `destroy`")


def _tell(found: Found, state: State, options: argparse.Namespace) -> None:
    entry = found.entry
    if state == journal.JOURNAL:
        warn([interrupted(found, "it is taken back")], options)
    else:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.when))
        print(f"Going back to before the {entry.command} of {when} on {entry.before.name}.")
