"""The right to change the machine, which one run has at a time; and what keeps a run from beginning."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Literal

from nkform.dataclass import dataclass
from nkform.problem import NkformError, fail
from nkform.session.node import killed_run

if TYPE_CHECKING:
    from nkform.apply.journal import Fault, Found
    from nkform.kernel.interrupt import Interrupts
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.rundir import Lock
    from nkform.session.listener import Listener

ELSEWHERE = "see to it there; if that namespace is gone, remove /run/nkform/{}/{}"


@dataclass(frozen=True, slots=True)
class RunLock:
    """The right to change the machine. `earlier` is the run on the node that was killed before, if one was. `used`:
    something was carried out under it."""

    lock: Lock
    interrupts: Interrupts
    earlier: Found | None = None
    used: bool = False


@contextmanager
def locked(command: str, listener: Listener, timeout: float) -> Iterator[RunLock]:
    """The lock, for which it waits at most `timeout` seconds, and signals that stop a run between its steps.

    Raises NkformError, KernelError.
    """
    from nkform.apply.lock import take
    from nkform.kernel.descriptors import enough_files
    from nkform.kernel.interrupt import Halts, Interrupts
    from nkform.kernel.probe import require_root

    def asked(signal: str) -> None:
        listener.say(f"{signal}: stopping after this step, and undoing; once more stops at once")

    require_root()
    beginning = command not in ("confirm", "rollback", "recover")
    with (
        Halts(),
        take(command, timeout, listener.say) as lock,
        enough_files(refuse=beginning),  # the process's: within the lock, so that no other thread puts it back
        Interrupts(asked) as interrupts,
    ):
        yield RunLock(lock, interrupts)


def earlier_run(
    node: str, command: str, namespaces: Namespaces, listener: Listener, *, heals: bool = False, in_part: bool = False
) -> Found | None:
    """What a run on the node that was killed left, made fit to be planned against; the lock is held.

    `heals`, `in_part`: see `refuse_pending`. Raises NkformError (NK0611: an earlier run waits to be confirmed),
    KernelError.
    """
    from nkform.apply import journal
    from nkform.apply.tidy import tidy

    refuse_pending(node, listener, heals=heals, in_part=in_part)
    refuse_elsewhere(node)
    earlier = journal.find(node, journal.JOURNAL)
    if earlier:
        listener.warn([killed_run(earlier, f"this {command} goes on from there")])
        tidy(earlier, namespaces)
    return earlier


def refuse_elsewhere(node: str) -> None:
    """Raises NkformError where what is on record of a node in another network namespace would be lost: a way back that
    is not settled. /run may be shared between namespaces."""
    from nkform.apply import journal

    if journal.is_elsewhere(node, journal.UNCONFIRMED):
        hint = ELSEWHERE.format(node, journal.UNCONFIRMED)
        raise fail("NK0611", f"an apply of {node} waits to be confirmed in another network namespace", hint=hint)
    if journal.is_elsewhere(node, journal.JOURNAL):
        hint = ELSEWHERE.format(node, journal.JOURNAL)
        raise fail("NK0615", f"a run on {node} in another network namespace did not end", hint=hint)


def refuse_all_elsewhere(node: str | None) -> None:
    """As `refuse_elsewhere`, of the node that is named, or of all whose records can be read."""
    from nkform.apply.journal import UnreadableError
    from nkform.kernel import rundir
    from nkform.kernel.error import KernelError

    for name in rundir.nodes():
        if node in (None, name):
            with nullcontext() if node else suppress(UnreadableError, KernelError):
                refuse_elsewhere(name)


def refuse_pending(
    node: str, listener: Listener, *, heals: bool = False, goes_back: bool = False, in_part: bool = False
) -> None:
    """Raises NkformError (NK0611) where a run waits to be confirmed, whichever node's it is: it may yet go back.

    Where it has gone back as far as it can, it keeps nobody waiting: a workload could be in the way of the rest, for
    ever. Another run on its own `node` takes its place, unless it only `heals`, which would undo what is tried again,
    or is about some devices alone (`in_part`), which would end it for the others. `goes_back`: the run is to take back
    what was done to the node. A record of another node that cannot be read, and that no guardian waits for, leads
    nowhere: that is told, and keeps nobody waiting either.
    """
    from nkform.kernel import rundir
    from nkform.session import guardian_record, records

    for name in rundir.nodes():
        if goes_back and name == node:
            continue
        pending, fault = _pending(name)
        if fault is not None and name == node:
            raise fault
        if fault is not None:
            listener.warn(records.warnings(fault))
        if pending == "nothing":
            continue
        if pending == "waits":
            raise fail(
                "NK0611", f"an apply of {name} waits to be confirmed, or goes back", hint=guardian_record.PENDING
            )
        if name == node and heals:
            raise fail("NK0611", f"an apply of {name} goes back, as far as it can", hint=guardian_record.IN_THE_WAY)
        if name == node and in_part:
            hint = "apply the whole spec, which takes its place; or see `nkform recover` for what is in the way"
            raise fail("NK0611", f"an apply of {name} goes back, as far as it can", hint=hint)


def _pending(node: str) -> tuple[Literal["nothing", "waits", "tried"], Fault | None]:
    """Whether a run on a node waits to be confirmed, or has gone back as far as it can; and why its record cannot be
    read, if it cannot."""
    from nkform.apply import journal
    from nkform.kernel.error import KernelError
    from nkform.session import guardian_record

    found = journal.look(node, journal.UNCONFIRMED)
    fault = None if isinstance(found, journal.Found) else found
    try:
        if guardian_record.has_tried(node):
            return "nothing" if found is None and not guardian_record.is_alive(node) else "tried", fault
        waits = guardian_record.is_alive(node) or isinstance(found, journal.Found)
    except KernelError as error:
        return "nothing", error
    return "waits" if waits else "nothing", fault


def stopped(node: str) -> NkformError:
    """What to say when a second signal stopped a run at once."""
    return fail(
        "NK0508",
        f"stopped at once: {node} is between before and after",
        hint="`nkform recover` takes back what was done, `nkform apply` goes on",
    )
