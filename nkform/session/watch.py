"""Follows a node: says how it drifts from its spec and, if asked to, brings it back.

What the kernel tells (kernel/monitor.py) is put together for a moment and then looked at once; what it does not tell
is found by a cheap look now and then (observe/fingerprint.py). Only a look that finds something new says or does
anything, and looking changes nothing: the watch cannot go round on its own changes. Where something else puts back
what was mended, the pauses between mending grow as they do when mending fails.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from nkform.dataclass import dataclass, replace
from nkform.kernel import clock
from nkform.kernel.error import KernelError
from nkform.kernel.monitor import Monitor
from nkform.kernel.netns import Namespaces
from nkform.kernel.probe import probe
from nkform.kernel.service import Signals, Waiting
from nkform.macs import live_macs
from nkform.model import Device, Node
from nkform.observe.fingerprint import Fingerprint, Scope, matters, scope, take
from nkform.observe.node import observe
from nkform.plan.changes import Plan
from nkform.plan.computed import read_from
from nkform.plan.drift import WHOLE, Difference, against, differences
from nkform.plan.parts import Without, concerned
from nkform.plan.plan import ProgramResolver, meaning
from nkform.plan.resolve import needed_features
from nkform.plan.watch import (
    Drifted,
    Event,
    Failed,
    Healed,
    Recovered,
    Reread,
    RetryBackoff,
    Settled,
    Stopped,
    Unapplied,
    Watching,
)
from nkform.problem import NkformError, Problem, fail
from nkform.session.drift import drift_of, was_applied
from nkform.session.prepared import placed
from nkform.session.running import Applied

if TYPE_CHECKING:
    from nkform.session.prepared import PlanOptions
    from nkform.session.session import Session
    from nkform.spec import Spec

T = TypeVar("T")

QUIET = 0.1
"""Seconds without a notice after which a burst of them is over."""
AT_MOST = 1.0
"""Seconds that a burst may put off a look."""
LOOKS = 3
"""A look is taken again while it widens what is felt; on a node that never sits still, this often."""

NOWHERE = Scope("", frozenset(), (), {})


Tell = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is watched: a spec's node, what the kernel can do for it, and its programs.

    `heal` makes the node as the spec says, as far as that can be (Session.heal); None: the watch only tells. It raises
    NkformError or KernelError.
    """

    node: Node
    features: Collection[str]
    programs: ProgramResolver | None = None
    heal: Callable[[], Applied] | None = None


class Watch:
    """One run. Times are those of the monotonic clock, in seconds."""

    def __init__(
        self, namespaces: Namespaces, monitor: Monitor, signals: Signals, tell: Tell, *, interval: float
    ) -> None:
        self._namespaces = namespaces
        self._monitor = monitor
        self._signals = signals
        self._tell = tell
        self._interval = interval
        self._waiting = Waiting(monitor, signals)
        self._stop = self._again = False
        self._scope = NOWHERE
        self._fingerprint = Fingerprint(b"", frozenset())
        self._seen = Plan(""), Node("")
        """What came of the last look: the plan that leads to the spec, and the node."""
        self._found: tuple[Difference, ...] = ()
        self._told: tuple[Difference, ...] = ()
        self._trouble = RetryBackoff()
        self._resolved: tuple[object, Mapping[str, Device], tuple[Problem, ...]] | None = None

    def run(self, subject: Subject, reread: Callable[[], Subject], ready: Callable[[], None]) -> None:
        """Watches until a signal ends it. The first look raises NkformError or KernelError if it fails; no later one.

        `reread` reads the spec again, which SIGHUP asks for; `ready` is called once, after the first look.
        """
        self._look(subject)
        self._tell(Watching(subject.node.name, len(subject.node.devices)))
        ready()
        seen: object = self._found
        while not self._stop:
            if seen is not None:
                self._act(subject)
            self._wait()
            if self._again:
                self._again = False
                subject = self._reread(subject, reread)
            seen = None if self._stop else self._try(partial(self._look, subject))
        self._tell(Stopped())

    def _act(self, subject: Subject) -> None:
        """After a look."""
        self._report()
        if subject.heal is not None and self._found:
            self._mend(subject, subject.heal)
        elif self._trouble.over(self._found):
            self._tell(Recovered())

    def _look(self, subject: Subject) -> tuple[Difference, ...]:
        """One whole look: what differs. Raises NkformError, KernelError.

        The fingerprint is taken first, so that later ones show what changes while we look; where the look finds more
        that belongs to it, it is taken again.
        """
        for _ in range(LOOKS):
            before = self._scope
            self._fingerprint = take(self._namespaces, before)
            live = observe(self._namespaces, subject.node.name, subject.node)
            devices, wrong = self._meaning(subject, live)
            left = Without(frozenset(concerned(wrong)))
            desired, live = left.trim(subject.node.with_devices(devices).at_home(live.home), live)
            read = read_from(subject.node, live.root_devices)
            self._scope = scope(self._namespaces, live, desired, read)
            if self._scope == before:
                break
        plan, problems = against(desired, desired.devices, live, subject.features)
        self._seen = plan, live
        self._found = tuple(differences(plan, (*wrong, *problems)))
        return self._found

    def _meaning(self, subject: Subject, live: Node) -> tuple[Mapping[str, Device], tuple[Problem, ...]]:
        """What the spec means here, but for devices that it can mean nothing for here, and why.

        It is worked out anew only where the devices changed that values are computed from, that its programs name, or
        that are not its own, or MAC addresses that its programs may know. Raises NkformError for what is wrong with no
        device in particular.
        """
        needy = read_from(subject.node, live.root_devices)
        needy |= subject.programs.named(subject.node) if subject.programs else set()
        framings = {name: d.framing for name, d in live.devices.items() if d.traits.programs_only}
        chained = subject.node.devices.keys() & live.devices.keys() if subject.programs else ()
        known = {name: live_macs(live.devices[name]) for name in chained if subject.node.devices[name].chains}
        basis = (subject, {name: live.root_devices.get(name) for name in needy}, framings, known)
        if self._resolved is None or self._resolved[0] != basis:
            devices, problems = meaning(subject.node, live, features=subject.features, programs=subject.programs)
            errors = tuple(problem for problem in problems if problem.severity == "error")
            wrong = {name for _, name in concerned(errors)}
            if nowhere := [problem for problem in errors if not any(concerned([problem]))]:
                raise NkformError(*nowhere)
            fit = {name: device for name, device in devices.items() if name not in wrong}
            self._resolved = (basis, fit, errors)
        return self._resolved[1:]

    def _report(self) -> None:
        """Tells what is new and what is over.

        What differs in another way than before is not over; of an object that went nothing else is told.
        """
        if news := [each for each in self._found if each not in self._told]:
            plan, live = self._seen
            drift = drift_of(plan, live)
            for each in news:
                lost = was_applied(plan.node, each) if each.problem else each in drift
                self._tell(Drifted(each) if lost else Unapplied(each))
        still = {each.place for each in self._found}
        for each in self._told:
            if each.place not in still and (each.kind, each.name, WHOLE) not in still:
                self._tell(Settled(each))
        self._told = self._found

    def _mend(self, subject: Subject, heal: Callable[[], Applied]) -> None:
        """Brings the node back to the spec, unless it is too early to try that again, and looks what came of it."""
        now = clock.monotonic()
        if self._trouble.early(self._found, now):
            return
        if self._trouble.fought(self._found, now):
            self._fail((Problem("NK0520", "what the watch changed back was changed again: something else sets it"),))
            return
        asked = self._found
        done = self._try(heal)
        if done is None:
            return
        if done.changed:
            self._tell(Healed(done.actions))
        if done.problems:
            self._fail(done.problems)
        else:
            self._trouble.mended(asked, clock.monotonic())
        self._hear(0)  # our own changes, which the look is about to see
        if self._try(partial(self._look, subject)) is not None:
            self._report()
            if self._trouble.over(self._found):
                self._tell(Recovered())

    def _try(self, work: Callable[[], T]) -> T | None:
        """Does what may fail; says why it did, and that it will be tried again."""
        try:
            return work()
        except NkformError as error:
            self._fail(error.problems)
        except OSError as error:
            self._fail((Problem("NK0601", f"could not {error}" if isinstance(error, KernelError) else str(error)),))
        return None

    def _fail(self, problems: tuple[Problem, ...]) -> None:
        self._tell(Failed(problems, self._trouble.failed(self._found, clock.monotonic())))

    def _reread(self, subject: Subject, reread: Callable[[], Subject]) -> Subject:
        """The spec as it is now, or the old one if it is not fit to be used."""
        before = subject.node
        try:
            subject = reread()
        except NkformError as error:
            self._tell(Reread(error.problems))
        except OSError as error:
            self._tell(Reread((Problem("NK0601", str(error)),)))
        else:
            self._trouble = RetryBackoff()
            self._told = tuple(each for each in self._told if not _is_dropped(each, before, subject.node))
            self._tell(Reread())
        return subject

    def _wait(self) -> None:
        """Returns when there is reason to look: a notice, a signal, another fingerprint, or the time to try again."""
        felt = clock.monotonic() + self._interval
        while not (self._stop or self._again):
            again = self._trouble.not_before
            if self._hear(felt if again is None else min(felt, again)):
                self._let_pass()
                return
            now = clock.monotonic()
            if again is not None and now >= again:
                self._trouble.not_before = None
                return
            if now >= felt:
                if self._changed():
                    return
                felt = clock.monotonic() + self._interval

    def _let_pass(self) -> None:
        """Waits until a burst of notices is over."""
        end = clock.monotonic() + AT_MOST
        over = clock.monotonic() + QUIET
        while clock.monotonic() < min(over, end) and not self._stop:
            if self._hear(min(over, end)):
                over = clock.monotonic() + QUIET

    def _changed(self) -> bool:
        try:
            return take(self._namespaces, self._scope) != self._fingerprint
        except OSError:
            return True  # the look that follows says why

    def _hear(self, until: float) -> bool:
        """Waits for notices and signals, at most until a time; whether anything came that matters."""
        if self._signals.fileno() in self._waiting.wait(until - clock.monotonic()):
            asked = self._signals.caught()
            self._stop = self._stop or "stop" in asked
            self._again = self._again or "reread" in asked
        return sum(matters(notice, self._scope, self._fingerprint) for notice in self._monitor.notices()) > 0


def _is_dropped(told: Difference, before: Node, after: Node) -> bool:
    """Whether a difference is over for the one reason that the spec says nothing of its object any more."""
    if told.kind == "namespace":
        return told.name in before.namespaces and told.name not in after.namespaces
    return told.name in before.devices and told.name not in after.devices


def follow(
    session: Session,
    read: Callable[[], Spec],
    tell: Tell,
    options: PlanOptions,
    *,
    heal: bool,
    interval: float,
    ready: Callable[[], None],
) -> None:
    """Watches what a spec says, as `Session.watch` describes. Raises NkformError, KernelError."""
    with Monitor() as monitor, Signals() as signals, ExitStack() as held:

        def subject(node: str = "") -> Subject:
            """The spec as it is now, of that node. What the old one holds is let go of once the new one has proved
            fit."""
            spec = read()
            if node and spec.node.name != node:
                message = f"the spec is of the node {spec.node.name} now, and what is watched is {node}"
                raise fail("NK0602", message, hint=f"start another watch for {spec.node.name}")
            with ExitStack() as stack:
                made = _subject(session, spec, options, stack, heal=heal)
                held.close()
                held.push(stack.pop_all())
            return made

        first = subject()
        again = partial(subject, first.node.name)
        Watch(session.namespaces, monitor, signals, tell, interval=interval).run(first, again, ready)


def _subject(session: Session, spec: Spec, options: PlanOptions, stack: ExitStack, *, heal: bool) -> Subject:
    """What is to be watched. Raises NkformError, KernelError."""
    prepared = session.prepare(spec, replace(options, keep_going=True), stack)
    programs, node = prepared.programs, spec.node
    with placed(spec):
        features = probe(
            session.namespaces, needed_features(node) | (programs.needs(node) if programs else set())
        )  # fmt: skip
        node = programs.declared(node) if programs else node  # says which maps to look into
    return Subject(node, features, programs, partial(session.heal, prepared) if heal else None)
