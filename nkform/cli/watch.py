"""`nkform watch`: follows the node, says how it drifts from the spec, and mends it if asked to."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from nkform.cli.common import Look, look, placed, programs_of, read_spec, remember
from nkform.plan.parts import NOTHING, Without
from nkform.problem import NkformError, Problem

if TYPE_CHECKING:
    from nkform.apply.watch import Subject
    from nkform.bpf.programs import Programs
    from nkform.kernel.netns import Namespaces
    from nkform.plan.watch import Event
    from nkform.spec import Spec

SHORTEST_INTERVAL = 0.1
LONGEST_INTERVAL = 86400.0
"""Seconds; poll(2) takes no more than 24 days."""


def run(options: argparse.Namespace) -> int:
    from nkform.apply.watch import Watch
    from nkform.kernel.monitor import Monitor
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.probe import require_root
    from nkform.kernel.service import Signals, notify

    if not SHORTEST_INTERVAL <= options.interval <= LONGEST_INTERVAL:
        told = f"--interval {options.interval:g}: {SHORTEST_INTERVAL:g} to {LONGEST_INTERVAL:g} seconds"
        raise NkformError(Problem("NK0602", told))
    require_root()
    gc.enable()  # short runs do without (cli/main.py); this one lasts
    with Namespaces() as namespaces, Monitor() as monitor, Signals() as signals, ExitStack() as held:

        def read() -> Subject:
            """The spec as it is now. What the old one holds is let go of once the new one has proved fit."""
            with ExitStack() as stack:
                subject = _subject(options, namespaces, stack)
                held.close()
                held.push(stack.pop_all())
            return subject

        watch = Watch(namespaces, monitor, signals, _teller(options), interval=options.interval)
        watch.run(read(), read, lambda: notify("READY=1"))
        notify("STOPPING=1")
    return 0


def _subject(options: argparse.Namespace, namespaces: Namespaces, stack: ExitStack) -> Subject:
    """What the command line says to watch. Raises NkformError, KernelError."""
    from nkform.apply.watch import Subject
    from nkform.kernel.probe import probe
    from nkform.plan.resolve import needed_features

    spec = read_spec(options)
    with placed(spec):
        programs = stack.enter_context(programs_of(spec, options))
        features = probe(namespaces, needed_features(spec.node) | (programs.needs(spec.node) if programs else set()))
        node = programs.declared(spec.node) if programs else spec.node  # says which maps to look into
    heal = _healer(spec, namespaces, programs, options) if options.heal else None
    return Subject(node, features, programs, heal)


def _healer(
    spec: Spec, namespaces: Namespaces, programs: Programs | None, options: argparse.Namespace
) -> Callable[[], tuple[int, tuple[Problem, ...]]]:
    """What `nkform apply -y --keep-going` would do now; returns how many actions it took, and what was in the way."""
    from nkform.apply.journal import is_taken_back
    from nkform.cli.apply import Order, carry_out_parts, nothing_to_do
    from nkform.cli.writing import writing

    def see(without: Without = NOTHING) -> Look:
        return look(namespaces, spec.node, programs=programs, without=without)

    def heal() -> tuple[int, tuple[Problem, ...]]:
        """The way back stays what it was: to before the last apply, and not to what drifted."""
        with placed(spec), writing(options, "watch", spec.node.name, namespaces) as writer:
            if is_taken_back(spec.node):
                told = (
                    f"{spec.node.name} went back from this spec, and nobody has applied it since: it is not healed to"
                )
                raise NkformError(Problem("NK0614", told, hint="`nkform apply` makes it so"))
            found = see()
            if found.plan.empty:
                if not found.problems:
                    nothing_to_do(found.live, writer, meant=False)
                    remember(found, found.live, spec, options, programs)
                return 0, found.problems
            order = Order(namespaces, writer, programs, expedite=spec.expedite, settles=None)
            done = carry_out_parts(found, see, order)
            if done.live is not None and not done.problems:
                remember(found, done.live, spec, options, programs)
        return done.actions, done.problems

    return heal


def _teller(options: argparse.Namespace) -> Callable[[Event], None]:
    """Writes each event as a line at once: whoever reads a pipe or a journal waits for it."""
    from nkform.report.watch_text import line, line_json

    written = line_json if options.json else line

    def tell(event: Event) -> None:
        sys.stdout.write(written(event, time.time()) + "\n")
        sys.stdout.flush()

    return tell
