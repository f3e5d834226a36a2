"""`nkform apply` and `nkform destroy`: plan, ask, carry out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from nkform.cli.common import agreed, part_of, plan_options, read_spec, seconds, session, show_plan
from nkform.dataclass import replace
from nkform.problem import NkformError, Problem, fail

if TYPE_CHECKING:
    from nkform.plan.saved import Saved
    from nkform.session.session import Planned, Session


def run(options: argparse.Namespace) -> int:
    with session(options) as nkform:
        saved = _saved(nkform, options)
        trial = _trial(options)
        prepared = nkform.prepare(saved) if saved else nkform.prepare(read_spec(options), plan_options(options))
        planned = None
        if not saved and not options.yes:
            planned = nkform.plan(prepared, to_apply=True)
            _show(nkform, planned, options)
            if not planned.empty and not agreed("apply"):
                return 1
        with nkform.lock("apply", prepared.node, in_part=bool(prepared.options.targets)):
            if planned is None:
                planned = nkform.plan(prepared)
                _show(nkform, planned, options)
            applied = nkform.apply(planned, confirm=trial)
            if planned.empty and applied.problems:
                raise NkformError(*applied.problems)
            if planned.empty and trial:
                print("Nothing was done, so nothing waits to be confirmed.")
            if not planned.empty:
                said = "Apply complete, but for what is in the way." if applied.problems else "Apply complete!"
                counts = f"{applied.added} added, {applied.updated} changed, {applied.destroyed} destroyed"
                print(f"\n{said} Objects: {counts}.", flush=True)
            if applied.problems and applied.trial is None:
                raise NkformError(*applied.problems)
        nkform.listener.warn([replace(problem, severity="warning") for problem in applied.problems])
        if applied.trial is None:
            return 0
        from nkform.cli.confirm import wait

        return wait(applied.trial, detach=options.detach) or int(bool(applied.problems))


def _saved(nkform: Session, options: argparse.Namespace) -> Saved | None:
    """The plan that the command line names in place of a spec, if it does. Raises NkformError."""
    path: Path = options.spec[0]
    saved = nkform.read_saved(path) if len(options.spec) == 1 else None
    if saved is None:
        return None
    given = [name for name in ("target", "var", "var_file", "adopt", "engine", "objects") if getattr(options, name)]
    if given:
        said = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise fail("NK0602", f"{said}: a saved plan has its own", hint="give options to `nkform plan -o`")
    if options.keep_going:
        raise fail("NK0602", "--keep-going: a saved plan is carried out as a whole", hint="apply the spec instead")
    return saved


def _trial(options: argparse.Namespace) -> float:
    """Within how many seconds the run is to be confirmed; 0: it is for good. Raises NkformError."""
    if options.confirm is None:
        if options.detach:
            raise fail("NK0602", "--detach goes with --confirm TIME: without it, there is nothing to wait for")
        return 0
    trial = seconds(options.confirm, "--confirm")
    if trial <= 0:
        raise fail("NK0602", f"--confirm {options.confirm}: the time must be more than 0", hint="try 60s, or 5m")
    return trial


def _show(nkform: Session, planned: Planned, options: argparse.Namespace) -> None:
    in_the_way = [replace(problem, severity="warning") for problem in planned.problems]
    nkform.listener.warn([*planned.warnings, *in_the_way])
    show_plan(planned.plan, options, nkform.drift(planned), about=part_of(planned))


def destroy(options: argparse.Namespace) -> int:
    if bool(options.spec) == bool(options.node):
        raise NkformError(Problem("NK0602", "destroy takes spec files or --node NAME, one of them"))
    what = read_spec(options) if options.spec else options.node
    with session(options) as nkform:
        if options.node:
            nkform.check_node(options.node)
        planned = None
        if not options.yes:
            planned = nkform.plan_destroy(what, to_apply=True)
            _show_destruction(nkform, planned, options)
            if not planned.empty and not agreed("destroy"):
                return 1
        with nkform.lock("destroy", options.node or what.node.name):
            if planned is None:
                planned = nkform.plan_destroy(what)
                _show_destruction(nkform, planned, options)
            applied = nkform.apply(planned)
    if not planned.empty:
        print(f"\nDestroy complete! Objects: {applied.destroyed} destroyed.")
    return 0


def _show_destruction(nkform: Session, planned: Planned, options: argparse.Namespace) -> None:
    nkform.listener.warn(planned.warnings)
    show_plan(planned.plan, options)
