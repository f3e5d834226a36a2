"""Which node is meant, and what earlier runs left on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nkform.dataclass import replace
from nkform.model import NODE_LENGTH, Node, is_node_name
from nkform.namespace_key import is_unnamed
from nkform.problem import NkformError, Problem, fail

if TYPE_CHECKING:
    from nkform.apply.journal import Found
    from nkform.kernel.netns import Namespaces
    from nkform.observe.node import Begun
    from nkform.results import Pending
    from nkform.session.listener import Listener


def check_name(name: str | None) -> None:
    """Raises NkformError where somebody names what no node can be called."""
    if name is not None and not is_node_name(name):
        rule = f"a node's name is made of 1 to {NODE_LENGTH} of the characters A-Z a-z 0-9 _ . -"
        raise fail("NK0605", f"{name} cannot be the name of a node", hint=rule)


def chosen(found: Sequence[str], name: str | None) -> str:
    """The node that is meant, of those that come into question, of which there is at least one. Raises NkformError."""
    if name is not None and name not in found:
        raise fail("NK0605", f"there is no such run on the node {name}", hint=f"there is one on: {', '.join(found)}")
    if name is None and len(found) > 1:
        raise fail("NK0604", f"several nodes match: {', '.join(found)}", hint="name one with --node")
    return name or found[0]


def only(namespaces: Namespaces, name: str | None) -> str:
    """The node that is meant: the one named, or the only one here. Raises NkformError."""
    from nkform.kernel import bpffs
    from nkform.observe.nodes import nodes

    if name is not None:
        return known(namespaces, name)
    found = nodes(namespaces) or sorted(bpffs.nodes())  # a node may have no more than programs on devices of others
    if len(found) > 1:
        raise fail("NK0604", f"several nodes have devices here: {', '.join(found)}", hint="name one with --node")
    if not found:
        raise fail("NK0605", "nothing here carries a mark of nkform", hint="`nkform apply SPEC` makes what a spec says")
    return found[0]


def known(namespaces: Namespaces, name: str) -> str:
    """The name of a node, which has something here, be it no more than records. Raises NkformError, KernelError."""
    from nkform.kernel import bpffs, rundir
    from nkform.observe.nodes import nodes

    recorded, marked = rundir.nodes(), set[str]()
    if name in recorded:
        return name
    for some in (lambda: nodes(namespaces), bpffs.nodes):
        marked.update(some())
        if name in marked:
            return name
    hint = f"there are: {', '.join(sorted(marked))}" if marked else "nothing here carries a mark of nkform"
    if left := sorted(set(recorded) - marked):
        hint += f"; of {', '.join(left)} there are only records"
    raise fail("NK0605", f"there is no node {name} here", hint=hint)


def observed(namespaces: Namespaces, name: str | None) -> Node:
    """The live state of the node that is meant, the one named or the only one, with sysctls that no spec names, too.

    Raises NkformError, KernelError.
    """
    from nkform.kernel import rundir
    from nkform.observe import record
    from nkform.observe.node import observe, observe_only

    on_record = rundir.nodes() if name is None else []
    live = observe_only(namespaces, on_record[0], all_sysctls=True) if len(on_record) == 1 else None
    if live is None:
        live = observe(namespaces, only(namespaces, name), all_sysctls=True)
    applied = None
    if not live.devices or any(is_unnamed(end.namespace) for d in live.devices.values() for end in d.ends):
        applied = record.read(live.name)  # it says by which path or process a namespace without a name is reached
    return observe(namespaces, live.name, applied.node, all_sysctls=True) if applied else live


def look_after_guardians(listener: Listener, but: str = "") -> None:
    """Takes the place of guardians that were killed, but for one node's: what nobody can confirm any more goes back."""
    from nkform.kernel import rundir
    from nkform.kernel.error import KernelError
    from nkform.kernel.process import is_root
    from nkform.session import records

    if not is_root():
        return
    listener.warn(records.untrusted())
    for node in rundir.nodes():
        if rundir.stamp(node, rundir.GUARDIAN) is not None:
            from nkform.session import guardian

            try:
                if node == but:
                    guardian.make_way(node, listener.say)
                    continue
                problems = guardian.look_after(node, listener.say)
            except (NkformError, KernelError) as fault:  # where it is this node's command, it says so itself
                listener.warn(records.warnings(fault))
            else:
                listener.warn([replace(problem, severity="warning") for problem in problems])


def pending() -> tuple[Pending, ...]:
    """What waits to be confirmed on this machine, or goes back. Raises KernelError."""
    from nkform.kernel import rundir

    if all(rundir.stamp(node, "unconfirmed") is None for node in rundir.nodes()):
        return ()  # as nearly always: what reads one need not be loaded
    from nkform.session import trial

    return tuple(trial.pending())


def warn_of_pending(listener: Listener) -> None:
    """Tells what waits to be confirmed: nothing else may change until then. Raises KernelError."""
    if waiting := pending():
        from nkform.report.status_text import on_trial
        from nkform.session.guardian_record import IN_THE_WAY, PENDING

        listener.warn(
            [
                Problem("NK0611", on_trial(each), hint=IN_THE_WAY if each.problems else PENDING, severity="warning")
                for each in waiting
            ]
        )


def warn_of_killed_run(node: str, listener: Listener) -> Begun | None:
    """Tells if a run on the node was killed, and returns what it began.

    One that is under way is nobody's concern here. What a killed run had borrowed of the machine is put back.
    """
    from nkform.apply import expedite
    from nkform.kernel import rundir
    from nkform.kernel.process import own_id

    look_after_guardians(listener)
    if expedite.put_back_if_idle(f"nkform (process {own_id()}), which puts {expedite.RECORD} back"):
        listener.say(expedite.PUT_BACK)
    if rundir.read(node, rundir.JOURNAL) is None:
        return None  # as nearly always: what reads one need not be loaded
    from nkform.apply import journal
    from nkform.observe.node import Begun

    found = journal.find(node, journal.JOURNAL)
    if not found or rundir.is_locked() or journal.find(node, journal.JOURNAL) is None:  # it has ended meanwhile
        return None
    listener.warn([killed_run(found, "`nkform recover` takes back what it did, `nkform apply` goes on")])
    return Begun(found.entry.group, found.entry.made)


def killed_run(found: Found, hint: str) -> Problem:
    """What to tell of a run that left its journal."""
    entry = found.entry
    return Problem(
        "NK0511",
        f"nkform {entry.command} (process {entry.pid}) {found.ended} after about {found.reached} of"
        f" {entry.actions} actions on {entry.before.name}",
        hint=hint,
        severity="warning",
    )
