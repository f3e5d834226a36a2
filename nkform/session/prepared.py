"""A spec that is ready to be planned: its programs are checked, and compiled beside what else is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nkform.dataclass import dataclass
from nkform.model import Device, Node
from nkform.namespace_key import is_unnamed
from nkform.problem import NkformError, Problem
from nkform.session.listener import Listener, timed

if TYPE_CHECKING:
    from nkform.apply.parts import Observation
    from nkform.bpf.programs import Programs
    from nkform.kernel.netns import Namespaces
    from nkform.observe.node import Begun
    from nkform.plan.changes import Plan
    from nkform.plan.parts import Without
    from nkform.plan.saved import Saved
    from nkform.spec import Spec


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """How a spec is to be planned.

    `adopt`: take over devices, namespaces, addresses and routes that exist unmarked. `targets`: only these devices.
    `engine` (auto, clang, bcc) compiles instead of the spec's; `objects` is a folder of programs that were compiled
    elsewhere. `keep_going`: what stands in the way of some objects keeps only these from being planned and applied.
    """

    adopt: bool = False
    targets: Sequence[str] = ()
    engine: str | None = None
    objects: Path | None = None
    keep_going: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """A spec, its programs (None: it needs none), and how it is to be planned.

    `saved`: the plan in a file that has to come of it. `destroys`: nothing of the node is to be left.
    """

    spec: Spec
    programs: Programs | None
    options: PlanOptions
    saved: Saved | None = None
    destroys: bool = False

    @property
    def node(self) -> str:
        return self.spec.node.name

    def place(self, problems: Iterable[Problem]) -> list[Problem]:
        """The problems with their positions in the spec."""
        from nkform.spec import place

        return [place(problem, self.spec) for problem in problems]

    def observe(
        self, namespaces: Namespaces, listener: Listener, *, begun: Begun | None = None, without: Without | None = None
    ) -> Observation:
        """Observes the node and plans. `begun` is what a run that was killed left.

        `without`: what stands in the way of some objects keeps only these from being planned, and those named are left
        alone as well; None: all is planned, or nothing. Raises NkformError with paths into the spec, KernelError.
        """
        if self.saved is None:
            return _observe(self, namespaces, listener, begun, without, lambda _: None)
        from nkform.plan.saved import check_given, check_live, check_plan

        found = _observe(self, namespaces, listener, begun, without, partial(check_live, self.saved.basis))
        check_plan(self.saved, found.plan)
        check_given(self.saved.basis, found.given)
        return found


@contextmanager
def placed(spec: Spec) -> Iterator[None]:
    """Problems that leave the block know where in the spec they are."""
    try:
        yield
    except NkformError as error:
        from nkform.spec import place

        raise NkformError(*(place(problem, spec) for problem in error.problems)) from error


@contextmanager
def programs_of(spec: Spec, engine: str | None = None, objects: Path | None = None) -> Iterator[Programs | None]:
    """The programs that a spec's chains use, checked; None where it needs none. Raises NkformError.

    `engine` is used instead of the spec's; `objects` is a folder of programs that were compiled elsewhere.
    """
    from nkform.plan.chains import needs_programs

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

    source = Source(tuple(Path(folder) for folder in spec.templates), engine or spec.engine, objects)
    with Programs(source) as programs:
        problems = programs.check(spec.node.devices)
        if problems:
            from nkform.spec import place

            raise NkformError(*(place(problem, spec) for problem in problems))
        programs.begin()
        yield programs


def _with_switches(live: Node, anew: Sequence[Device], namespaces: Namespaces) -> Node:
    """The node with what keeps devices that are made anew from having IPv6, which is looked for only then."""
    if not anew:
        return live
    from nkform.dataclass import replace
    from nkform.observe.taken import switched_off

    off = switched_off(namespaces, anew)
    also = {name: (*live.taken.get(name, ()), *some) for name, some in off.items()}
    return replace(live, taken={**live.taken, **also}) if also else live


def _observe(
    prepared: Prepared,
    namespaces: Namespaces,
    listener: Listener,
    begun: Begun | None,
    without: Without | None,
    check: Callable[[Node], None],
) -> Observation:
    from nkform.apply.parts import observation
    from nkform.dataclass import replace
    from nkform.kernel.probe import probe, require_root
    from nkform.observe.node import observe
    from nkform.plan.losses import leaving, remade, replaced, with_losses, without_ipv6
    from nkform.plan.plan import build
    from nkform.plan.resolve import needed_features

    require_root()
    programs, options, desired = prepared.programs, prepared.options, prepared.spec.node
    if programs is not None:
        desired = programs.declared(desired)
    with timed(listener, "probe"):
        features = probe(namespaces, needed_features(desired) | (programs.needs(desired) if programs else set()))
    with timed(listener, "observe"):
        live = observe(namespaces, desired.name, desired, begun)
        if any(device.peer and is_unnamed(device.peer.namespace) for device in live.devices.values()):
            from nkform.observe.nameless import on_record

            if also := on_record(namespaces, live):
                live = observe(namespaces, desired.name, desired, begun, also=also)
    check(live)
    if prepared.destroys and live.astray:
        from nkform.apply.tidy import require_here

        require_here(live.name)
    desired = desired.at_home(live.home)

    def plan(left: Without) -> Plan:
        shall, there = left.trim(desired, live)
        return build(
            shall, there, features=features, programs=programs, adopt=options.adopt, targets=options.targets,
            aim="nothing" if prepared.destroys else "spec",
        )  # fmt: skip

    with timed(listener, "plan"):
        found = observation(desired, live, features, plan, without)
    if (closer := _with_switches(live, remade(found.plan), namespaces)) is not live:
        live = closer
        found = observation(desired, live, features, plan, without)
    if found.plan.actions:
        from nkform.apply.lasting import require_lasting

        require_lasting(found.plan)
    gone, moved, small = replaced(found.plan), leaving(found.plan), without_ipv6(found.plan)
    if gone or moved or small:
        from nkform.observe.baggage import baggage

        found = replace(found, plan=with_losses(found.plan, baggage(namespaces, gone, moved, small)))
    return replace(found, given=programs.given()) if programs is not None and options.objects else found
