"""`nkform doctor`: what this kernel and machine can do; for what they cannot, why and what to install."""

from __future__ import annotations

import argparse
import sys

from nkform.cli.common import session
from nkform.report.state_text import render, render_json


def run(options: argparse.Namespace) -> int:
    with session(options) as nkform:
        findings = nkform.doctor()
    if options.json:
        sys.stdout.write(render_json(findings))
    else:
        from nkform.report.colour import Paint, wanted

        sys.stdout.write(render(findings, Paint(wanted(sys.stdout, options.no_color))))
    return 0
