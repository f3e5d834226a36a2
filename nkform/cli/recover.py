"""`nkform recover` and `nkform rollback`: back to what the node was."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from nkform.cli.common import agreed, session, show_plan
from nkform.dataclass import replace
from nkform.problem import fail
from nkform.report.drift_text import clock

if TYPE_CHECKING:
    from nkform.session.going_back import Command, GoingBack
    from nkform.session.session import Session


def run(options: argparse.Namespace) -> int:
    """Takes back a run that was killed, or that nobody confirmed."""
    return _back(options, "recover")


def rollback(options: argparse.Namespace) -> int:
    """Takes back the last apply, or the one that waits to be confirmed."""
    return _back(options, "rollback")


def _back(options: argparse.Namespace, command: Command) -> int:
    """Others need not wait while somebody is asked: what was shown is compared with what is to be done after it."""
    with session(options) as nkform:
        with nkform.lock(command, but=nkform.meant(command, options.node)):
            going = nkform.way_back(command, options.node)
            if going is None:
                return _nothing(nkform, command, options.node)
            _show(nkform, going, options)
            if options.yes or not going.plan.actions:
                return _go(nkform, going)
        if not agreed(command):
            return 1
        return _go(nkform, going)


def _run(going: GoingBack) -> str:
    """The run that is taken back, as messages call it."""
    entry = going.found.entry
    return f"the {entry.command} of {clock(entry.when)}"


def _show(nkform: Session, going: GoingBack, options: argparse.Namespace) -> None:
    if not going.was_killed:
        print(f"Going back to before {_run(going)} on {going.node}.")
    nkform.listener.warn([replace(problem, severity="warning") for problem in going.problems])
    if not (going.plan.empty and going.problems):
        show_plan(going.plan, options)


def _go(nkform: Session, going: GoingBack) -> int:
    nkform.go_back(going)
    print(f"\n{going.node} is as it was before {_run(going)}.")
    return 0


def _nothing(nkform: Session, command: Command, node: str | None) -> int:
    if command == "recover":
        print("Nothing to recover: no run was killed, or left anything half done.")
        return 0
    if away := nkform.applied_elsewhere(node):
        what = f"the last apply of {', '.join(away)} was in another network namespace"
        raise fail("NK0515", what, hint="go back from it there")
    raise fail("NK0515", "there is no apply to go back from", hint="the way back is lost at reboot and by `destroy`")
