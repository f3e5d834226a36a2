"""What a user can do, without a terminal: the Python API, which the command line is made of.

A session owns the way into namespaces, the programs of the specs that it plans, and while it changes something the
lock of the machine. It prints nothing and asks nothing: results are typed, warnings and progress go to its listener,
what cannot be is an NkformError with codes (docs/errors.md). What a call does not need is not imported.
"""

from __future__ import annotations

from _thread import get_ident  # threading takes a millisecond of each start
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nkform.dataclass import dataclass, replace
from nkform.model import Node
from nkform.problem import Problem, fail
from nkform.session import node as nodes
from nkform.session.listener import Listener, Once, Quiet
from nkform.session.prepared import PlanOptions, Prepared, placed, programs_of
from nkform.session.run_lock import RunLock, earlier_run, locked, refuse_pending

if TYPE_CHECKING:
    from nkform.apply.journal import State
    from nkform.apply.parts import Observation
    from nkform.kernel.netns import Namespaces
    from nkform.observe.node import Begun
    from nkform.plan.changes import Plan
    from nkform.plan.drift import Notes
    from nkform.plan.saved import Saved
    from nkform.plan.watch import Event
    from nkform.results import Finding, Status
    from nkform.session.going_back import Command, GoingBack
    from nkform.session.observed import Observed
    from nkform.session.running import Applied
    from nkform.spec import Spec

FOREVER = 1e9
"""Seconds; nobody waits so long for a confirmation."""
LOCK_SECONDS = 60.0
"""How long a change waits for another run to end, unless told otherwise."""
CONFIRM_SECONDS = 10.0
"""So long waits who confirms, at least: others who have the lock meanwhile are about to be refused."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan, and the look at the node that it came of. `run_lock`: the lock that was held meanwhile, if one was."""

    prepared: Prepared
    observation: Observation
    run_lock: RunLock | None = None

    @property
    def node(self) -> str:
        return self.prepared.node

    @property
    def plan(self) -> Plan:
        return self.observation.plan

    @property
    def live(self) -> Node:
        return self.observation.live

    @property
    def empty(self) -> bool:
        """Whether there is nothing to do."""
        return self.plan.empty

    @property
    def warnings(self) -> list[Problem]:
        """What to think of before it is applied, with positions in the spec."""
        return self.prepared.place(self.plan.warnings)

    @property
    def problems(self) -> list[Problem]:
        """With `keep_going`: what keeps some objects from being planned, with positions in the spec."""
        return self.prepared.place(self.observation.problems)


class Session:
    """One user's dealings with this machine. Use it in a `with` block, in the thread that made it: in another one its
    methods raise RuntimeError.

    `lock_timeout`: seconds that a change waits for another run to end. `expedite`: whether runs may expedite the
    kernel's grace periods, where their specs let them (docs/safety.md). All methods raise NkformError and KernelError;
    those that look at the kernel need root, or CAP_NET_ADMIN and CAP_SYS_ADMIN.
    """

    def __init__(
        self, listener: Listener | None = None, *, lock_timeout: float = LOCK_SECONDS, expedite: bool = True
    ) -> None:
        self.listener: Listener = listener or Quiet()
        self._once = Once(self.listener)
        self.lock_timeout = lock_timeout
        self.expedite = expedite
        self._stack = ExitStack()
        self._namespaces: Namespaces | None = None
        self._run_lock: RunLock | None = None
        self._locked_node: str | None = None
        self._thread = get_ident()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets go of all that the session and its plans hold. Once more does nothing."""
        self._namespaces = None
        self._stack.close()

    @property
    def namespaces(self) -> Namespaces:
        """The way into network namespaces, for which the session's thread goes from one to the other."""
        self._check_thread()
        if self._namespaces is None:
            from nkform.kernel.netns import Namespaces

            self._namespaces = self._stack.enter_context(Namespaces())
        return self._namespaces

    # --- planning ----------------------------------------------------------------------------

    def prepare(
        self, source: Spec | Saved, options: PlanOptions | None = None, stack: ExitStack | None = None
    ) -> Prepared:
        """A spec, or that of a saved plan, with its programs checked, ahead of `plan`; the lock is not needed for it.

        The programs are held by the session, or by a stack that is given. Raises NkformError.
        """
        from nkform.spec import Spec

        self._check_thread()
        stack = stack or self._stack
        if isinstance(source, Spec):
            options = options or PlanOptions()
            with placed(source):
                programs = stack.enter_context(programs_of(source, options.engine, options.objects))
            return Prepared(source, programs, options)
        from nkform.session.saved_plans import as_spec, options_of

        if options is not None:
            raise ValueError("a saved plan has its own options")
        return replace(self.prepare(as_spec(source.basis), options_of(source.basis), stack), saved=source)

    def plan(
        self, source: Spec | Saved | Prepared, options: PlanOptions | None = None, *, to_apply: bool = False
    ) -> Planned:
        """How the node differs from a spec, and what would make it so; or a saved plan, if it still holds.

        `to_apply`: somebody will be asked whether to apply it, so nothing may wait to be confirmed. Changes nothing,
        but for what runs that were killed left: guardians are replaced, what was borrowed of the machine is put back.
        """
        prepared = source if isinstance(source, Prepared) else self.prepare(source, options)
        with placed(prepared.spec):
            return self._planned(prepared, to_apply=to_apply)

    def plan_destroy(self, what: Spec | str, *, to_apply: bool = False) -> Planned:
        """What would remove all that carries the mark of a spec's node, or of a node by its name."""
        from nkform.spec import Spec

        if isinstance(what, str):
            from nkform.apply import journal

            self.check_node(what)
            last = journal.look(what, journal.PREVIOUS)
            spec = Spec(Node(what), expedite=not isinstance(last, journal.Found) or last.entry.expedite)
        else:
            spec = Spec(Node(what.node.name), expedite=what.expedite)
        return self._planned(Prepared(spec, None, PlanOptions(), destroys=True), to_apply=to_apply)

    def drift(self, planned: Planned) -> Notes:
        """Which of a plan is drift, as far as it is on record what was applied; and since when it was applied."""
        if planned.empty:
            return {}
        from nkform.session.drift import drift_of

        return drift_of(planned.plan, planned.live)

    def document(self, planned: Planned) -> dict[str, Any]:
        """A plan as data: what `nkform plan --json` prints (`nkform schema plan`)."""
        from nkform.report.plan_json import document

        return document(planned.plan, self.drift(planned))

    def saved_text(self, planned: Planned) -> str:
        """The text of a file that carries a plan to `read_saved`."""
        from nkform.session.saved_plans import text

        return text(planned, self.document(planned))

    def save(self, planned: Planned, path: Path) -> None:
        """Writes a plan into a file, which `apply` carries out later, or says what has changed."""
        from nkform.session.saved_plans import write

        write(path, self.saved_text(planned))

    def read_saved(self, path: Path) -> Saved | None:
        """The plan in a file; None where it holds none."""
        from nkform.session.saved_plans import load

        return load(path)

    # --- changing ----------------------------------------------------------------------------

    @contextmanager
    def lock(
        self, command: str, node: str | None = None, *, heals: bool = False, in_part: bool = False, but: str = ""
    ) -> Iterator[RunLock]:
        """The right to change the machine, and `node` on it, which one run has at a time; others wait for it.

        Within the block, what is planned is applied as it is: nobody can have changed the node through nkform since.
        The methods below take it by themselves where it is not held. `command` is what others are told who wait. Raises
        ValueError where it is held for another node, or for none: what waits there was not looked at.
        """
        self._check_thread()
        if self._run_lock is not None:
            if node is not None and node != self._locked_node:
                raise ValueError(f"the lock is held for {self._locked_node or 'no node'}, not for {node}")
            yield self._run_lock
            return
        nodes.look_after_guardians(self._once, but)
        timeout = max(self.lock_timeout, CONFIRM_SECONDS) if command == "confirm" else self.lock_timeout
        with locked(command, self.listener, timeout) as held:
            earlier = None
            if node is not None:
                earlier = earlier_run(node, command, self.namespaces, self._once, heals=heals, in_part=in_part)
            self._run_lock, self._locked_node = replace(held, earlier=earlier), node
            try:
                yield self._run_lock
            finally:
                self._run_lock = self._locked_node = None

    def apply(self, planned: Planned, *, confirm: float = 0) -> Applied:
        """Carries a plan out, whole or not at all; with `keep_going`, what can be of it.

        A plan that was not made under the lock is made again, and if it is another one now, nothing is done (NK0517).
        `confirm`: seconds within which the result's trial has to be confirmed; else a process of its own takes all
        back, whatever becomes of this one. 0: for good. Raises ValueError for what is no number of seconds, and for a
        trial of a plan to destroy.
        """
        if isinstance(confirm, bool) or not isinstance(confirm, int | float) or not 0 <= confirm < FOREVER:
            raise ValueError(f"confirm={confirm!r}: expected a number of seconds")
        prepared = planned.prepared
        if confirm and prepared.destroys:
            raise ValueError("a plan to destroy has no trial: nothing would be left to go back by")
        command = "destroy" if prepared.destroys else "apply"
        in_part = bool(prepared.options.targets)
        with placed(prepared.spec), self.lock(command, planned.node, in_part=in_part) as run_lock:
            observation = planned.observation
            if run_lock.used:  # a trial may wait since
                refuse_pending(planned.node, self._once, in_part=in_part)
            if planned.run_lock is not run_lock:
                from nkform.plan.saved import check_agreed, check_objects

                observation = self._observe(prepared)
                check_agreed(planned.live, observation.live, planned.plan, observation.plan)
                check_objects(planned.observation.given, observation.given)
            return self._carry_out(prepared, observation, run_lock, confirm=confirm)

    def destroy(self, what: Spec | str) -> Applied:
        """Removes all that carries the mark of a spec's node, or of a node by its name."""
        name = what if isinstance(what, str) else what.node.name
        if isinstance(what, str):
            self.check_node(name)
        with self.lock("destroy", name):
            return self.apply(self.plan_destroy(what))

    def heal(self, prepared: Prepared) -> Applied:
        """What `apply` with `keep_going` would do now, but that the way back stays what it was: to before the last
        apply, and not to what drifted."""
        from nkform.apply.journal import is_taken_back

        node = prepared.spec.node
        with placed(prepared.spec), self.lock("watch", node.name, heals=True) as run_lock:
            if is_taken_back(node):
                told = f"{node.name} went back from this spec, and nobody has applied it since: it is not healed to"
                raise fail("NK0614", told, hint="`nkform apply` makes it so")
            return self._carry_out(prepared, self._observe(prepared), run_lock, heals=True)

    def watch(
        self,
        read: Callable[[], Spec],
        tell: Callable[[Event], None],
        *,
        options: PlanOptions | None = None,
        heal: bool = False,
        interval: float = 5.0,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """Tells how the node drifts from a spec, as it does, until SIGTERM or SIGINT; and mends it if asked to.

        `read` reads the spec, again at each SIGHUP. `interval`: seconds between looks for what the kernel does not tell
        by itself. `ready` is called once, after the first look. Needs the main thread, for the signals.
        """
        from nkform.session.watch import follow

        follow(self, read, tell, options or PlanOptions(), heal=heal, interval=interval, ready=ready)

    def confirm(self, node: str | None = None) -> str:
        """Keeps what an apply on trial did to a node, or to the only one that waits; returns the node's name. An apply
        that had nothing to do is as good as confirmed."""
        from nkform.session.trial import confirm

        nodes.check_name(node)
        with self.lock("confirm"):
            return confirm(node, self._once)

    def way_back(self, command: Command = "rollback", node: str | None = None) -> GoingBack | None:
        """The way back: for `rollback` from the last apply, or the one that waits to be confirmed; for `recover` from a
        run that was killed, or that nobody confirmed. None where there is no such run."""
        from nkform.session.going_back import choose

        with self.lock(command, but=self.meant(command, node)):
            return choose(command, node, self._once)

    def meant(self, command: Command, node: str | None) -> str:
        """The node whose run `way_back` is about, as far as that is clear; or empty."""
        from nkform.session.going_back import meant

        nodes.check_name(node)
        return meant(command, node)

    def applied_elsewhere(self, node: str | None = None) -> list[str]:
        """The nodes, or the one that is named, whose last apply was in another network namespace."""
        from nkform.session.going_back import elsewhere

        return elsewhere(node)

    def go_back(self, going: GoingBack) -> None:
        """Goes that way back, if it still is the way (else NK0517): as a whole, or as much of it as can be."""
        from nkform.session.going_back import take

        with self.lock(going.command, but=going.node) as run_lock:
            take(going, run_lock, self._once, expedite=self.expedite)

    # --- looking ----------------------------------------------------------------------------

    def check_node(self, node: str) -> None:
        """Raises NkformError (NK0605) where a node has nothing here, be it no more than records."""
        from nkform.kernel.probe import require_root

        require_root()
        nodes.look_after_guardians(self._once)
        nodes.known(self.namespaces, node)

    def observe(self, node: str | None = None) -> Observed:
        """A node as it is, by its name or the only one here; and what is known of its programs."""
        from nkform.kernel.probe import require_root
        from nkform.session.observed import observed

        require_root()
        live = nodes.observed(self.namespaces, node)
        nodes.warn_of_killed_run(live.name, self._once)
        nodes.warn_of_pending(self._once)
        return observed(self.namespaces, live)

    def status(self, node: str | None = None) -> Status:
        """What the devices and programs of a node are doing, and how they drift from what was applied."""
        from nkform.kernel.probe import require_root
        from nkform.session.status import status

        require_root()
        found = status(self.namespaces, nodes.only(self.namespaces, node))
        nodes.warn_of_killed_run(found.node, self._once)
        return found

    def doctor(self) -> list[Finding]:
        """What this kernel and machine can do; for what they cannot, why and what to install."""
        from nkform.session.doctor import findings

        nodes.look_after_guardians(self._once)
        return findings()

    # --- inside ----------------------------------------------------------------------------

    def _check_thread(self) -> None:
        if get_ident() != self._thread:
            raise RuntimeError("a session is used in the thread that made it: make another one here")

    def _planned(self, prepared: Prepared, *, to_apply: bool) -> Planned:
        begun = None
        if self._run_lock is None:
            begun = nodes.warn_of_killed_run(prepared.node, self._once)
            if to_apply:
                refuse_pending(prepared.node, self._once)
            else:
                nodes.warn_of_pending(self._once)
        observation = self._observe(prepared, begun)
        if let_go := self._let_go(prepared, observation.plan):
            plan = replace(observation.plan, warnings=(*observation.plan.warnings, *let_go))
            observation = replace(observation, plan=plan)
        return Planned(prepared, observation, self._run_lock)

    def _let_go(self, prepared: Prepared, plan: Plan) -> list[Problem]:
        """What the spec does not say any more that it said when it was applied last."""
        if prepared.destroys or prepared.saved is not None:
            return []
        from nkform.observe import managed
        from nkform.plan.let_go import checksum, let_go

        if managed.read(plan.node) in (None, checksum(prepared.spec.node.devices)):
            return []
        from nkform.observe import record

        known = record.read(plan.node)
        return let_go(known.node.devices, plan) if known is not None else []

    def _observe(self, prepared: Prepared, begun: Begun | None = None) -> Observation:
        from nkform.plan.parts import NOTHING

        without = NOTHING if prepared.options.keep_going else None
        return prepared.observe(self.namespaces, self.listener, begun=begun, without=without)

    def _carry_out(
        self,
        prepared: Prepared,
        observation: Observation,
        run_lock: RunLock,
        *,
        confirm: float = 0,
        heals: bool = False,
    ) -> Applied:
        from nkform.session.running import Order, carry_out

        settles: State | None = None if heals or prepared.destroys else "previous"
        expedite = self.expedite and prepared.spec.expedite
        order = Order(
            prepared, self.namespaces, run_lock, self.listener, self.lock,
            expedite=expedite, settles=settles, trial=confirm,
        )  # fmt: skip
        try:
            return carry_out(order, observation)
        finally:  # what was planned before it under the same lock is to be looked at again
            if self._run_lock is not None:
                self._run_lock = replace(self._run_lock, earlier=None, used=True)
