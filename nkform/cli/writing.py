"""What commands that change the node share: the machine's lock, and what an earlier run left behind."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nkform.cli.common import interrupted, look_after, warn
from nkform.dataclass import dataclass
from nkform.problem import NkformError, fail

if TYPE_CHECKING:
    from nkform.apply.interrupt import Interrupts
    from nkform.apply.journal import Found
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.rundir import Lock

ELSEWHERE = "see to it there; if that namespace is gone, remove /run/nkform/{}/{}"
UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Writer:
    """The right to change the node, for a command line; `earlier` is the run that was killed before, if one was."""

    options: argparse.Namespace
    lock: Lock
    interrupts: Interrupts
    earlier: Found | None


def seconds(text: str, option: str) -> float:
    """A duration as `90`, `90s`, `5m` or `1h`, in seconds. Raises NkformError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise fail("NK0602", f"{option} {text}: expected a number of seconds, or 90s, 5m, 1h")
    return float(found[1]) * UNITS[found[2]]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextmanager
def locked(options: argparse.Namespace, command: str) -> Iterator[tuple[Lock, Interrupts]]:
    """The lock, and signals that stop a run between its steps. Raises NkformError, KernelError."""
    from nkform.apply.interrupt import Interrupts
    from nkform.apply.lock import take
    from nkform.kernel.probe import require_root

    require_root()
    wait = seconds(options.lock_timeout, "--lock-timeout")
    with take(command, wait, say) as lock, Interrupts(_asked) as interrupts:
        yield lock, interrupts


@contextmanager
def writing(options: argparse.Namespace, command: str, node: str, namespaces: Namespaces) -> Iterator[Writer]:
    """The right to change a node, once what an earlier run left is fit to be planned against.

    Nobody is to be asked anything within the block: others wait. Raises NkformError (NK0611: an earlier run waits to be
    confirmed), KernelError.
    """
    from nkform.apply import journal
    from nkform.apply.recovery import tidy

    look_after(options)
    with locked(options, command) as (lock, interrupts):
        refuse_pending(node, heals=command == "watch", in_part=bool(getattr(options, "target", None)))
        refuse_elsewhere(node)
        earlier = journal.find(node, journal.JOURNAL)
        if earlier:
            warn([interrupted(earlier, f"this {command} goes on from there")], options)
            tidy(earlier, namespaces)
        yield Writer(options, lock, interrupts, earlier)


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
    """As `refuse_elsewhere`, of the node that is named, or of all."""
    from nkform.kernel import rundir

    for name in rundir.nodes():
        if node in (None, name):
            refuse_elsewhere(name)


def refuse_pending(node: str, *, heals: bool = False, goes_back: bool = False, in_part: bool = False) -> None:
    """Raises NkformError (NK0611) where a run waits to be confirmed, whichever node's it is: it may yet go back.

    Where it has gone back as far as it can, it keeps nobody waiting: a workload could be in the way of the rest, for
    ever. Another run on its own `node` takes its place, unless it only `heals`, which would undo what is tried again,
    or is about some devices alone (`in_part`), which would end it for the others. `goes_back`: the run is to take back
    what was done to the node.
    """
    from nkform.apply import guardian, journal
    from nkform.kernel import rundir

    for name in rundir.nodes():
        if not journal.find(name, journal.UNCONFIRMED) and not guardian.is_alive(name):
            continue
        if goes_back and name == node:
            continue
        if not guardian.has_tried(name):
            raise fail("NK0611", f"an apply of {name} waits to be confirmed, or goes back", hint=guardian.PENDING)
        if name == node and heals:
            raise fail("NK0611", f"an apply of {name} goes back, as far as it can", hint=guardian.IN_THE_WAY)
        if name == node and in_part:
            hint = "apply the whole spec, which takes its place; or see `nkform recover` for what is in the way"
            raise fail("NK0611", f"an apply of {name} goes back, as far as it can", hint=hint)


def _asked(name: str) -> None:
    say(f"{name}: stopping after this step, and undoing; once more stops at once")


def stopped(node: str) -> NkformError:
    """What to say when a second signal stopped a run at once."""
    return fail(
        "NK0508",
        f"stopped at once: {node} is between before and after",
        hint="`nkform recover` takes back what was done, `nkform apply` goes on",
    )
