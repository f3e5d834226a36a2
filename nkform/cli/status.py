"""`nkform status`: devices and programs at work."""

from __future__ import annotations

import argparse
import sys

from nkform.cli.common import session
from nkform.report.status_text import render, render_json


def run(options: argparse.Namespace) -> int:
    with session(options) as nkform:
        found = nkform.status(options.node)
    if options.json:
        sys.stdout.write(render_json(found))
    else:
        from nkform.report.colour import Paint, wanted

        sys.stdout.write(render(found, Paint(wanted(sys.stdout, options.no_color))))
    return 0
