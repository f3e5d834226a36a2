"""`nkform plan`."""

from __future__ import annotations

import argparse
import sys

from nkform.cli.common import part_of, plan_options, read_spec, session, show_plan
from nkform.problem import fail
from nkform.session.listener import timed

CHANGES = 2
"""Exit code of --detailed-exitcode when there is something to do."""


def _check_destroy(options: argparse.Namespace) -> None:
    """Raises NkformError for options that say nothing about what is removed."""
    for name in ("output", "target", "adopt", "engine", "objects"):
        if getattr(options, name):
            told = f"--destroy and --{name}: everything of the node goes, by `nkform destroy`"
            raise fail("NK0602", told, hint=f"leave out --{name}")


def run(options: argparse.Namespace) -> int:
    aside = str(options.output) == "-"
    """Whether the plan for `apply` has the standard output, and what is to be read goes beside it."""
    if aside and options.json:
        raise fail("NK0602", "-o - and --json: both write to the standard output", hint="give -o a file")
    if options.destroy:
        _check_destroy(options)
    spec = read_spec(options)
    with session(options) as nkform:
        planned = nkform.plan_destroy(spec) if options.destroy else nkform.plan(spec, plan_options(options))
        nkform.listener.warn(planned.warnings)
        if aside:
            sys.stdout.write(nkform.saved_text(planned))
        elif options.output:
            nkform.save(planned, options.output)
        with timed(nkform.listener, "report"):
            if options.json:
                from nkform.report.plan_json import render

                sys.stdout.write(render(planned.plan, nkform.drift(planned)))
            else:
                show_plan(planned.plan, options, nkform.drift(planned), aside=aside, about=part_of(planned))
                if options.output and not aside:
                    told = f"`nkform apply {options.output}` carries out exactly this, or says what has changed."
                    print(f"\nSaved: {told}")
    return CHANGES if options.detailed_exitcode and not planned.empty else 0
