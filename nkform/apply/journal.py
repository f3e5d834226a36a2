"""What is written down before a node is changed, so that the change can be taken back whatever happens to us.

A journal holds the node as it was, and what the run may make that does not tell by itself whose it is; it is on disk
before the first action. While they are carried out, how far they got is added to it. A run that ends, whole or undone,
takes its journal away; one that is found by the next writer, who alone has the lock, is that of a run that was killed,
if it does not say otherwise.

After a successful run the journal becomes the way back (`nkform rollback`), at once or when the run is confirmed.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, TypeGuard

from nkform import __version__
from nkform.apply import lines
from nkform.apply.foreign_state import ForeignItem
from nkform.dataclass import dataclass, replace
from nkform.kernel import clock, process, rundir
from nkform.kernel.error import KernelError
from nkform.kernel.place import boot, place
from nkform.model import Node
from nkform.plan.actions import Action, CreateNamespace, CreatePair, DeleteNamespace, SetChain
from nkform.problem import NkformError, Problem

JOURNAL: Final = "journal"
UNCONFIRMED: Final = "unconfirmed"
PREVIOUS: Final = "previous"

State = Literal["journal", "unconfirmed", "previous"]
"""Under way or interrupted; done and waiting to be confirmed; done: the way back."""

OUTCOME: Final = "reverted.json"
"""What became of a run that nobody confirmed (session/guardian.py)."""

TemporarySetting = tuple[str, str, str, str]
"""A sysctl that is to change for a moment only: namespace, interface, key, and the value that it has otherwise."""

UP_TO_DATE: Final = "up-to-date"
"""Where it was, if the last apply was to be confirmed and had nothing to do."""

SPARES: Final = ("spare", *(f"spare.{number}" for number in range(1, 16)))
"""Room for going back, from before a run until nobody need go back: the file system may be full by then.

The first takes bytes, for the journal of the way back. Each takes an inode, for that and the records beside it, and for
the names of namespaces that come back.
"""

MORE = 1 << 16
"""Bytes for what is written beside that journal, and added to it."""

ANY_SPEC: Final = "*"
"""What the node went back from, where the run did not note its spec: none is healed to."""

STATES: tuple[State, ...] = (JOURNAL, UNCONFIRMED, PREVIOUS)


@dataclass(frozen=True, slots=True)
class Entry:
    """A run: what it set out to do, and from where.

    `before` is the live node before it. `actions` says how many there are. `pairs` are the names of devices that they
    may make, `namespaces` those that they may make or remove, `filtered` the devices of others that they may give a
    clsact qdisc. `group`: the link group (IFLA_GROUP) that devices of this run are in until they carry the node's mark,
    and those that are about to go. `when` in seconds since 1970. `token` tells the runs of a node apart. `others`: what
    others had that the run, or the interrupted one before it, may have taken away.
    `expedite`: whether grace periods may be expedited, also on the way back (apply/expedite.py). `confirm`: within how
    many seconds after it the run must be confirmed, else it goes back; 0: it is for good. `spec` tells then what the
    node was to be (`spec_key`).
    """

    nkform: str
    place: str
    command: str
    when: float
    pid: int
    group: int
    token: str
    before: Node
    actions: int
    pairs: tuple[str, ...]
    namespaces: tuple[str, ...]
    filtered: tuple[str, ...]
    others: tuple[ForeignItem, ...] = ()
    expedite: bool = True
    confirm: float = 0
    spec: str = ""

    @property
    def made(self) -> frozenset[str]:
        """The names of devices that the run may have made."""
        return frozenset(self.pairs)


@dataclass(frozen=True, slots=True)
class Found:
    """A journal that was left.

    `reached`: how many of its actions may have been carried out. `temporary`: what may not have been restored. `ended`:
    how, as far as it could still say so.
    """

    entry: Entry
    reached: int
    temporary: tuple[TemporarySetting, ...] = ()
    ended: str = lines.KILLED


class Journal:
    """The journal of a run under way. `earlier`: the interrupted run that it follows, whose journal it takes over."""

    def __init__(self, entry: Entry, earlier: Found | None) -> None:
        self.entry = entry
        self.temporary: list[TemporarySetting] = []
        self.reached = 0
        """How many of the actions may have been carried out."""
        self._earlier = earlier
        self._file: rundir.Lasting | None = None

    def write(self, *, returns: bool) -> None:
        """Writes it down, and takes the room that going back needs; where there is not enough, nothing of it is left.
        `returns`: this run goes back itself, and does with what there is. Raises KernelError."""
        node = self.entry.before.name
        free_room(node)
        rundir.write(node, JOURNAL, lines.written(self.entry))
        try:
            keep_room(node, JOURNAL)
        except KernelError:
            if not returns:
                self.undone()
                raise
        self._file = rundir.Lasting(node, JOURNAL, "the journal")

    def reach(self, count: int) -> None:
        """Notes that the first `count` actions may be carried out from now on. Raises KernelError."""
        self._add(count)
        self.reached = count

    def note_temporary(self, namespace: str, interface: str, key: str, value: str) -> None:
        """Notes the value of a sysctl that changes for a moment. Raises KernelError."""
        self._add((namespace, interface, key, value))
        self.temporary.append((namespace, interface, key, value))

    def others_have(self, places: Sequence[int]) -> None:
        """Notes which of what others had they have after the run: going back gives them only the rest again. Raises
        KernelError."""
        if places:
            self._add(list(places))

    def left(self, ended: str) -> None:
        """Notes how a run ended that does not take its journal away (lines.ENDS), as well as it can."""
        with suppress(KernelError):
            self._add(ended)

    def _add(self, line: object) -> None:
        if self._file is None:
            raise KernelError(errno.EBADF, "write the journal")
        self._file.add(json.dumps(line) + "\n")

    def close(self) -> None:
        """Leaves it where it is."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def undone(self) -> None:
        """What is on record is what was on record before the run, which may be an interrupted run."""
        self.close()
        node = self.entry.before.name
        if self._earlier:
            free_room(node)
            rundir.write(node, JOURNAL, _text(self._earlier))
            with suppress(KernelError):
                keep_room(node, JOURNAL)
        else:
            rundir.remove(node, JOURNAL, *SPARES)

    def settle(self, state: State | None) -> None:
        """The run is done: its journal becomes the way back, now or once it is confirmed, or goes.

        Raises KernelError, also where there is no room for going back from what waits to be confirmed; the journal is
        then still open, for the undoing to go on with.
        """
        _settle(self.entry.before.name, state)
        self.close()


def _settle(node: str, state: State | None) -> None:
    if state == UNCONFIRMED:
        keep_room(node, JOURNAL)  # it has grown
    if state is None:
        rundir.remove(node, JOURNAL)
    else:
        rundir.rename(node, JOURNAL, state)
    if state != UNCONFIRMED:
        free_room(node)


def spec_key(desired: Node) -> str:
    """What tells a declared node from any other."""
    import hashlib

    from nkform.serial import dumps

    return hashlib.sha256(dumps(desired).encode()).hexdigest()


def token_back(token: str) -> str:
    """The token of going back from a run on trial: killed half-way, that run's record leads further than its own."""
    return f"{token}-back"


class UnreadableError(NkformError):
    """A journal that was written by another version of nkform, or is damaged."""


Fault = UnreadableError | KernelError
"""Why a journal cannot be read."""


def begin(
    command: str,
    before: Node,
    actions: tuple[Action, ...],
    others: tuple[ForeignItem, ...],
    token: str,
    earlier: Found | None,
    *,
    expedite: bool,
    confirm: float = 0,
    spec: str = "",
) -> Journal:
    """The journal of a new run, not written yet. `before` is what its way back leads to."""
    group = process.chance(1 << 20, 1 << 31)
    now, pid = clock.now(), process.own_id()
    others = tuple(dict.fromkeys((*others, *(earlier.entry.others if earlier else ()))))
    entry = Entry(
        nkform=__version__,
        place=place(),
        command=command,
        when=now,
        pid=pid,
        group=group,
        token=token,
        before=before,
        actions=len(actions),
        pairs=tuple(a.device.primary.name for a in actions if isinstance(a, CreatePair)),
        namespaces=tuple(a.name for a in actions if isinstance(a, CreateNamespace | DeleteNamespace)),
        filtered=tuple(dict.fromkeys(a.device.name for a in actions if _gives_clsact(a))),
        others=others,
        expedite=expedite,
        confirm=confirm,
        spec=spec,
    )
    return Journal(entry, earlier)


def _gives_clsact(action: Action) -> TypeGuard[SetChain]:
    """Whether an action may give a device of others a clsact qdisc, which goes with no pair."""
    if not isinstance(action, SetChain) or not action.device.traits.programs_only:
        return False
    return action.backend == "tc" or action.before.legacy


def find(node: str, state: State) -> Found | None:
    """A journal of a node in this network namespace. Raises KernelError, UnreadableError."""
    found = _read(node, state)
    return found if found and found.entry.place == place() else None


def look(node: str, state: State) -> Found | Fault | None:
    """As `find`, but for what it raises: for a node that what is asked is not about, or not alone."""
    try:
        return find(node, state)
    except (UnreadableError, KernelError) as fault:
        return fault


def is_elsewhere(node: str, state: State) -> bool:
    """Whether a journal of a node is one of another network namespace of this boot. Raises as `find` does."""
    found = _read(node, state)
    return found is not None and found.entry.place != place() and found.entry.place.startswith(f"{boot()}:")


def _read(node: str, state: State) -> Found | None:
    text = rundir.lines(node, state)
    if text is None:
        return None
    try:
        entry, added = lines.read(Entry, text)
    except (ValueError, LookupError) as error:
        what = f"the record {rundir.RUN / node / state} of an earlier run cannot be read: {error}"
        hint = "another nkform wrote it, or it was damaged: remove it, then `nkform plan` shows what is to do"
        raise UnreadableError(Problem("NK0510", what, hint=hint)) from error
    reached = max((line for line in added if isinstance(line, int)), default=0)
    lists = [line for line in added if isinstance(line, list) and line]
    temporary = tuple((line[0], line[1], line[2], line[3]) for line in lists if isinstance(line[0], str))
    kept = {place for line in lists if isinstance(line[0], int) for place in line}
    if kept:
        lost = (item for place, item in enumerate(entry.others) if place not in kept)
        entry = replace(entry, others=tuple(lost))
    ended = next((line for line in reversed(added) if isinstance(line, str)), lines.KILLED)
    return Found(entry, reached, temporary, ended)


def _text(found: Found) -> Iterator[str]:
    yield from lines.written(found.entry)
    for line in (found.reached, *found.temporary, found.ended):
        yield json.dumps(line) + "\n"


def keep_room(node: str, state: State) -> None:
    """Takes the room that going back needs, by the record that it goes by. Raises KernelError."""
    rundir.reserve(node, SPARES, state, MORE)


def free_room(node: str) -> None:
    """Gives it back, to go back with. Raises KernelError."""
    rundir.remove(node, *SPARES)


def forget(node: str, *states: State) -> None:
    """Raises KernelError."""
    rundir.remove(node, *states, *(SPARES if {JOURNAL, UNCONFIRMED} & set(states) else ()))


def forget_all(node: str) -> None:
    """No run of a node is on record any more. Raises KernelError."""
    rundir.remove(node, *STATES, *SPARES, OUTCOME, UP_TO_DATE, rundir.GUARDIAN)


def take_over(node: str, *, meant: bool) -> None:
    """Another run has taken the place of what nobody confirmed and could not all go back. Raises KernelError.

    `meant`: somebody asked for it, so that its spec may be healed to, even if nobody confirmed it before.
    """
    if meant:
        rundir.remove(node, OUTCOME)
    if rundir.stamp(node, UNCONFIRMED) is not None or rundir.stamp(node, rundir.GUARDIAN) is not None:
        rundir.remove(node, UNCONFIRMED, *SPARES, OUTCOME, rundir.GUARDIAN)


def is_taken_back(desired: Node) -> bool:
    """Whether the node went back from this spec, and nobody has applied any since. Raises KernelError."""
    spec = read_outcome(desired.name).get("spec", "")
    return bool(spec) and spec in (ANY_SPEC, spec_key(desired))


def read_outcome(node: str) -> Mapping[str, Any]:
    """What `note_outcome` wrote; empty where it wrote nothing, or what is there is not its. Raises KernelError."""
    text = rundir.read(node, OUTCOME)
    try:
        noted = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) and isinstance(noted.get("problems"), list) else {}


def note_outcome(node: str, token: str, problems: Sequence[Problem], spec: str) -> None:
    """Notes that what a run did has been taken back, and why some of it could not be. Raises KernelError."""
    told = {"token": token, "problems": [problem.message for problem in problems], "spec": spec}
    rundir.write(node, OUTCOME, json.dumps(told))


def note_up_to_date(node: str) -> None:
    """Notes that an apply was to be confirmed and had nothing to do. Raises KernelError."""
    rundir.write(node, UP_TO_DATE, place())


def up_to_date(name: str | None) -> str | None:
    """The node that is named, or any, whose last apply was to be confirmed and had nothing to do; None where another
    run followed, or where something went back since that nobody confirmed. Raises KernelError."""
    nodes = rundir.nodes()
    noted = {node: _written(node, UP_TO_DATE) for node in nodes if rundir.read(node, UP_TO_DATE) == place()}
    node = name or max(noted, key=lambda node: noted[node], default="")
    gone_back = max((_written(each, OUTCOME) for each in nodes if name in (None, each)), default=0)
    return node if node in noted and noted[node] > gone_back else None


def _written(node: str, file: str) -> int:
    """When a file was last written, in ns; 0: there is none."""
    return (rundir.stamp(node, file) or (0, 0))[1]


def confirm(node: str) -> None:
    """What waits to be confirmed becomes the way back. Raises KernelError (ENOENT)."""
    rundir.rename(node, UNCONFIRMED, PREVIOUS)
    rundir.remove(node, *SPARES, rundir.GUARDIAN)


def end_parts(node: str, state: State | None) -> None:
    """The last part of a run is done: its journal becomes the way back, as `Journal.settle` has it, unless a part of it
    failed and could not be undone. Raises KernelError."""
    found = find(node, JOURNAL)
    if found is None or found.ended == lines.STUCK:
        return
    _settle(node, state)


def complete(node: str) -> None:
    """A run that was killed has done all that it was to do: its journal becomes the way back. Raises KernelError."""
    _settle(node, PREVIOUS)
