"""`nkform watch`: follows the node, says how it drifts from the spec, and mends it if asked to."""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nkform.cli.common import plan_options, read_spec, seconds, session
from nkform.problem import fail

if TYPE_CHECKING:
    from nkform.plan.watch import Event

SHORTEST_INTERVAL = 0.1
LONGEST_INTERVAL = 86400.0
"""Seconds; poll(2) takes no more than 24 days."""


def run(options: argparse.Namespace) -> int:
    from nkform.kernel.probe import require_root
    from nkform.kernel.service import notify

    interval = seconds(options.interval, "--interval")
    if not SHORTEST_INTERVAL <= interval <= LONGEST_INTERVAL:
        told = f"--interval {options.interval}: {SHORTEST_INTERVAL:g} to {LONGEST_INTERVAL:g} seconds"
        raise fail("NK0602", told)
    require_root()
    gc.enable()  # short runs do without (cli/main.py); this one lasts
    with session(options) as nkform:
        nkform.watch(
            partial(read_spec, options),
            _teller(options),
            options=plan_options(options),
            heal=options.heal,
            interval=interval,
            ready=partial(notify, "READY=1"),
        )
    notify("STOPPING=1")
    return 0


def _teller(options: argparse.Namespace) -> Callable[[Event], None]:
    """Writes each event as a line at once: whoever reads a pipe or a journal waits for it."""
    from nkform.kernel import clock
    from nkform.report.watch_text import line, line_json

    written = line_json if options.json else line

    def tell(event: Event) -> None:
        sys.stdout.write(written(event, clock.now()) + "\n")
        sys.stdout.flush()

    return tell
