"""What several commands share: reading the spec, looking at the kernel, telling warnings and times."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from nkform.dataclass import dataclass, replace
from nkform.model import NODE_LENGTH, Node, is_node_name
from nkform.problem import NkformError, Problem, fail

if TYPE_CHECKING:
    from nkform.apply.journal import Found
    from nkform.bpf.programs import Programs
    from nkform.kernel.netns import Namespaces
    from nkform.observe.node import Begun
    from nkform.plan.changes import Plan
    from nkform.plan.drift import Notes
    from nkform.plan.parts import Without
    from nkform.spec import Spec


@contextmanager
def timed(phase: str) -> Iterator[None]:
    """With NKFORM_TIMINGS=1, says on stderr how many milliseconds a phase took."""
    start = time.perf_counter()
    try:
        yield
    finally:
        if os.environ.get("NKFORM_TIMINGS") == "1":
            print(f"timing: {phase} {(time.perf_counter() - start) * 1000:.1f}", file=sys.stderr)


def read_spec(options: argparse.Namespace) -> Spec:
    """The spec that the command line names. Raises NkformError."""
    from nkform.spec import load

    variables = {}
    for word in options.var:
        name, equals, value = word.partition("=")
        if not equals:
            raise NkformError(Problem("NK0602", f"--var {word}: expected NAME=VALUE"))
        variables[name] = value
    with timed("load"):
        twice = getattr(options, "strict", False)
        spec = load(options.spec, variables=variables, var_files=options.var_file, twice=twice)
    warn(spec.warnings, options)
    return spec


def warn(problems: Sequence[Problem], options: argparse.Namespace) -> None:
    """Warnings and notes go to stderr."""
    if problems:
        from nkform.report.colour import wanted
        from nkform.report.problems import render

        print(render(problems, wanted(sys.stderr, options.no_color)), file=sys.stderr)


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the kernel, and the plan that came of it. `desired` says what to look for in the maps of programs.

    `without`: what the plan leaves alone, because of `problems`.
    """

    desired: Node
    live: Node
    features: frozenset[str]
    plan: Plan
    without: Without
    problems: tuple[Problem, ...] = ()


def look(
    namespaces: Namespaces,
    desired: Node,
    *,
    programs: Programs | None = None,
    adopt: bool = False,
    targets: Collection[str] = (),
    begun: Begun | None = None,
    seen: Callable[[Node], None] = lambda _: None,
    without: Without | None = None,
) -> Look:
    """Observes and plans; `begun` is what a run that was killed left, `seen` gets the live node between the two.

    `without`: what stands in the way of some objects keeps only these from being planned, and those named are left
    alone as well; None: all is planned, or nothing. Raises NkformError with paths into the spec, KernelError.
    """
    from nkform.kernel.probe import probe, require_root
    from nkform.observe.node import observe
    from nkform.plan.parts import NOTHING, possible
    from nkform.plan.plan import build, leaving, replaced, with_losses
    from nkform.plan.resolve import needed_features

    require_root()
    if programs is not None:
        desired = programs.declared(desired)
    with timed("probe"):
        features = probe(namespaces, needed_features(desired) | (programs.needs(desired) if programs else set()))
    with timed("observe"):
        live = observe(namespaces, desired.name, desired, begun)
    seen(live)
    desired = desired.at_home(live.home)

    def plan(left: Without) -> Plan:
        shall, there = left.trim(desired, live)
        return build(shall, there, features=features, programs=programs, adopt=adopt, targets=targets)

    with timed("plan"):
        made, left, problems = (
            (plan(NOTHING), NOTHING, ()) if without is None else possible(plan, (desired, live), without)
        )
    if (anew := replaced(made)) + (moved := leaving(made)):
        from nkform.observe.baggage import baggage

        made = with_losses(made, baggage(namespaces, anew, moved))
    return Look(desired, live, features, made, left, problems)


def drift_of(found: Look) -> Notes:
    """Which of a plan is drift, as far as it is on record what was applied. Raises KernelError."""
    if found.plan.empty:
        return {}
    from nkform.observe import record
    from nkform.plan.drift import against, notes

    changed = {change.name for change in found.plan.changes if change.kind == "device"}
    known = record.read(found.plan.node, only=changed)
    if known is None:
        return {}
    live = found.live.with_devices({name: found.live.devices[name] for name in found.live.devices if name in changed})
    back, _ = against(known.node, known.node.devices, live, known.features)
    return notes(found.plan, back, known.since)


def remember(found: Look, live: Node, spec: Spec, options: argparse.Namespace, programs: Programs | None) -> None:
    """Puts on record what was applied, and what the programs were made of."""
    from nkform.apply import owned, record
    from nkform.observe import explanations

    with timed("record"), afterwards(options):
        owned.tidy(live.name, live.namespaces.values())
        if programs is not None:
            warn(programs.notes, options)
            explanations.note(live, programs.explained(found.plan.devices.values()))
        files = [source.name for source in spec.sources]
        targets = getattr(options, "target", ())
        if found.without and not targets:
            targets = tuple(found.plan.devices)
            if not targets:
                return  # nothing is as the spec says, so what was applied before is still what is on record
        record.note(found.plan, spec.node, features=found.features, files=files, targets=targets)


@contextmanager
def afterwards(options: argparse.Namespace) -> Iterator[None]:
    """What follows a run that is done: it stays done if this fails, which is said."""
    from nkform.kernel.error import KernelError

    try:
        yield
    except KernelError as error:
        said = f"the node is as it shall be, but nkform could not {error}"
        warn([Problem("NK0516", said, hint="mend the cause; the next apply clears it up", severity="warning")], options)


@contextmanager
def programs_of(spec: Spec, options: argparse.Namespace) -> Iterator[Programs | None]:
    """The programs that a spec's chains use, checked; None where it needs none. Raises NkformError."""
    from nkform.plan.chains import needs_programs

    objects = getattr(options, "objects", None)
    if objects is not None:  # even where nothing has to be loaded: it was asked for
        from nkform.bpf.store import Store

        Store(objects, create=False).close()
    if not any(needs_programs(device) for device in spec.node.devices.values()):
        if spec.templates:
            from nkform.bpf.catalogue import catalogue

            catalogue([Path(folder) for folder in spec.templates])
        yield None
        return
    from nkform.bpf.programs import Programs, Source

    engine = getattr(options, "engine", None) or spec.engine
    source = Source(tuple(Path(folder) for folder in spec.templates), engine, objects)
    with Programs(source) as programs:
        problems = programs.check(spec.node.devices)
        if problems:
            raise NkformError(*place_all(problems, spec))
        programs.begin()
        yield programs


def only_node(namespaces: Namespaces, name: str | None) -> str:
    """The node that is meant: the one named, or the only one here. Raises NkformError."""
    from nkform.kernel import bpffs
    from nkform.observe.nodes import nodes

    if name is not None:
        return known_node(namespaces, name)
    found = nodes(namespaces) or sorted(bpffs.nodes())  # a node may have no more than programs on devices of others
    if len(found) > 1:
        raise fail("NK0604", f"several nodes have devices here: {', '.join(found)}", hint="name one with --node")
    if not found:
        raise fail("NK0605", "nothing here carries a mark of nkform", hint="`nkform apply SPEC` makes what a spec says")
    return found[0]


def known_node(namespaces: Namespaces, name: str) -> str:
    """The name of a node, which has something here, be it no more than records. Raises NkformError, KernelError."""
    from nkform.kernel import bpffs, rundir
    from nkform.observe.nodes import nodes

    known: set[str] = set()
    for some in (rundir.nodes, lambda: nodes(namespaces), bpffs.nodes):  # the cheapest first, which knows most
        known.update(some())
        if name in known:
            return name
    hint = f"there are: {', '.join(sorted(known))}" if known else "nothing here carries a mark of nkform"
    raise fail("NK0605", f"there is no node {name} here", hint=hint)


def observe_meant(namespaces: Namespaces, name: str | None) -> Node:
    """The live state of the node that is meant: the one named, or the only one. Raises NkformError, KernelError."""
    from nkform.kernel import rundir
    from nkform.observe import record
    from nkform.observe.node import observe, observe_only

    on_record = rundir.nodes() if name is None else []
    live = observe_only(namespaces, on_record[0]) if len(on_record) == 1 else None
    if live is None:
        live = observe(namespaces, only_node(namespaces, name))
    applied = None
    if not live.devices or any(end.namespace.startswith("nsid:") for d in live.devices.values() for end in d.ends):
        applied = record.read(live.name)  # it says by which path or process a namespace without a name is reached
    return observe(namespaces, live.name, applied.node) if applied else live


def look_after(options: argparse.Namespace, but: str = "") -> None:
    """Takes the place of guardians that were killed, but for one node's: what nobody can confirm any more goes back."""
    from nkform.kernel import rundir

    if os.geteuid() != 0:
        return
    for node in rundir.nodes():
        if node != but and rundir.stamp(node, rundir.GUARDIAN) is not None:
            from nkform.apply import guardian

            problems = guardian.look_after(node, lambda text: print(text, file=sys.stderr))
            warn([replace(problem, severity="warning") for problem in problems], options)


def warn_interrupted(node: str, options: argparse.Namespace) -> Begun | None:
    """Says so if a run on the node was killed, and returns what it began.

    One that is under way is nobody's concern here. What a killed run had borrowed of the machine is put back.
    """
    from nkform.apply import expedite
    from nkform.kernel import rundir

    look_after(options)
    if expedite.put_back_if_idle(f"nkform (process {os.getpid()}), which puts {expedite.RECORD} back"):
        print(expedite.PUT_BACK, file=sys.stderr)
    if rundir.read(node, rundir.JOURNAL) is None:
        return None  # as nearly always: what reads one need not be loaded
    from nkform.apply import journal
    from nkform.observe.node import Begun

    found = journal.find(node, journal.JOURNAL)
    if not found or rundir.is_locked() or journal.find(node, journal.JOURNAL) is None:  # it has ended meanwhile
        return None
    warn([interrupted(found, "`nkform recover` takes back what it did, `nkform apply` goes on")], options)
    return Begun(found.entry.group, found.entry.made)


def interrupted(found: Found, hint: str) -> Problem:
    """What to tell of a run that left its journal."""
    entry = found.entry
    return Problem(
        "NK0511",
        f"nkform {entry.command} (process {entry.pid}) {found.ended} after about {found.reached} of"
        f" {entry.actions} actions on {entry.before.name}",
        hint=hint,
        severity="warning",
    )


def check_node(name: str | None) -> None:
    """Raises NkformError where `--node` says what no node can be called."""
    if name is not None and not is_node_name(name):
        rule = f"a node's name is made of 1 to {NODE_LENGTH} of the characters A-Z a-z 0-9 _ . -"
        raise fail("NK0605", f"there is no node {name} here: none can have that name", hint=rule)


def chosen_node(found: Sequence[str], name: str | None) -> str:
    """The node that is meant, of those that come into question, of which there is at least one. Raises NkformError."""
    if name is not None and name not in found:
        raise fail("NK0605", f"there is no such run on the node {name}", hint=f"there is one on: {', '.join(found)}")
    if name is None and len(found) > 1:
        raise fail("NK0604", f"several nodes come into question: {', '.join(found)}", hint="name one with --node")
    return name or found[0]


@contextmanager
def placed(spec: Spec) -> Iterator[None]:
    """Problems that leave the block know where in the spec they are."""
    from nkform.spec import place

    try:
        yield
    except NkformError as error:
        raise NkformError(*(place(problem, spec) for problem in error.problems)) from error


def place_all(problems: Iterable[Problem], spec: Spec) -> list[Problem]:
    from nkform.spec import place

    return [place(problem, spec) for problem in problems]
