"""`nkform plan`."""

from __future__ import annotations

import argparse
import sys

from nkform.cli.common import (
    drift_of,
    look,
    place_all,
    placed,
    programs_of,
    read_spec,
    timed,
    warn,
    warn_interrupted,
)
from nkform.problem import fail

CHANGES = 2
"""Exit code of --detailed-exitcode when there is something to do."""


def run(options: argparse.Namespace) -> int:
    from nkform.kernel.netns import Namespaces

    aside = str(options.output) == "-"
    """Whether the plan for `apply` has the standard output, and what is to be read goes beside it."""
    if aside and options.json:
        raise fail("NK0602", "-o - and --json: both want the standard output", hint="give -o a file")
    spec = read_spec(options)
    begun = warn_interrupted(spec.node.name, options)
    with Namespaces() as namespaces, placed(spec), programs_of(spec, options) as programs:
        found = look(namespaces, spec.node, programs=programs, adopt=options.adopt, targets=options.target, begun=begun)
        given = programs.given() if programs and options.output else ""
    plan, drift = found.plan, drift_of(found)
    warn(place_all(plan.warnings, spec), options)
    if options.output:
        from nkform.cli.saved import save

        save(options.output, found, drift, spec, options, given)
    with timed("report"):
        if options.json:
            from nkform.report.plan_json import render as render_json

            sys.stdout.write(render_json(plan, drift))
        else:
            from nkform.report.colour import Paint, wanted
            from nkform.report.plan_text import lines

            stream = sys.stderr if aside else sys.stdout
            paint = Paint(wanted(stream, options.no_color))
            stream.writelines(lines(plan, paint, summary_only=options.summary, drift=drift))
            if options.output and not aside:
                print(f"\nSaved: `nkform apply {options.output}` carries out exactly this, or says what has changed.")
    return CHANGES if options.detailed_exitcode and not plan.empty else 0
