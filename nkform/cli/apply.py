"""`nkform apply` and `nkform destroy`: plan, ask, carry out."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nkform.cli.common import Look, look, place_all, placed, programs_of, read_spec, timed, warn
from nkform.model import Node
from nkform.problem import NkformError, Problem
from nkform.report.colour import Paint, wanted
from nkform.report.plan_text import render

if TYPE_CHECKING:
    from nkform.bpf.programs import Programs
    from nkform.kernel.netns import Namespaces
    from nkform.plan.plan import Plan

PROGRESS_SECONDS = 1.0


def run(options: argparse.Namespace) -> int:
    from nkform.kernel.netns import Namespaces

    spec = read_spec(options)
    with Namespaces() as namespaces, placed(spec), programs_of(spec, options) as programs:
        found = look(namespaces, spec.node, programs=programs, adopt=options.adopt, targets=options.target)
        warn(place_all(found.plan.warnings, spec), options)
        _show(found.plan, options)
        if found.plan.empty:
            return 0
        if not _agreed(options, "apply"):
            return 1
        _carry_out(found, spec.node, namespaces, programs, options.target)
    added, changed, destroyed = found.plan.count()
    print(f"\nApply complete! Objects: {added} added, {changed} changed, {destroyed} destroyed.")
    return 0


def destroy(options: argparse.Namespace) -> int:
    from nkform.kernel.netns import Namespaces

    if bool(options.spec) == bool(options.node):
        raise NkformError(Problem("NK0602", "destroy takes spec files or --node NAME, one of them"))
    empty = Node(options.node or read_spec(options).node.name)
    with Namespaces() as namespaces:
        found = look(namespaces, empty)
        warn(found.plan.warnings, options)
        _show(found.plan, options)
        if found.plan.empty:
            return 0
        if not _agreed(options, "destroy"):
            return 1
        _carry_out(found, empty, namespaces)
    print(f"\nDestroy complete! Objects: {found.plan.count()[2]} destroyed.")
    return 0


def _show(plan: Plan, options: argparse.Namespace) -> None:
    paint = Paint(wanted(sys.stdout, options.no_color))
    sys.stdout.write(render(plan, paint, summary_only=options.summary))
    sys.stdout.flush()


def _agreed(options: argparse.Namespace, verb: str) -> bool:
    """Asks, where somebody can answer."""
    if options.yes:
        return True
    if not sys.stdin.isatty():
        raise NkformError(
            Problem("NK0603", f"nobody is here to be asked: run `nkform {verb} -y` to go ahead without a question")
        )
    answer = input(f"\nDo you want nkform to {verb} this? Only 'yes' goes ahead: ")
    if answer.strip() != "yes":
        print(f"{verb.capitalize()} cancelled, nothing was changed.", file=sys.stderr)
        return False
    return True


def _carry_out(
    found: Look,
    desired: Node,
    namespaces: Namespaces,
    programs: Programs | None = None,
    targets: Sequence[str] = (),
) -> None:
    from nkform.apply.transaction import apply

    with timed("apply"):
        live = apply(
            found.plan,
            desired,
            found.live,
            namespaces,
            features=found.features,
            programs=programs,
            targets=targets,
            progress=_Progress(),
        )
    if programs is not None:
        from nkform.observe import explanations

        explanations.note(live, found.plan.devices, programs.templates())


class _Progress:
    """Says on stderr how far a long run is, at most once a second."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= PROGRESS_SECONDS:
            self._told = now
            print(f"{done} of {total} actions done", file=sys.stderr)
