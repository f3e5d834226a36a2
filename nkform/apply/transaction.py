"""Whole or not at all: carries a plan out, reads back, compares, and undoes what was done when anything is wrong."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from nkform.apply.executor import Executor
from nkform.kernel.netlink import KernelError
from nkform.kernel.netns import Namespaces
from nkform.model import Device, Endpoint, Hook, Node
from nkform.observe.node import observe
from nkform.plan.actions import Action, DeletePair, SetChain, undo
from nkform.plan.plan import Change, Plan, build
from nkform.problem import NkformError, Problem

if TYPE_CHECKING:
    from nkform.apply.chains import Chains
    from nkform.bpf.programs import Programs

Progress = Callable[[int, int], None]
"""Called with how many actions are done and how many there are."""

HINTS: Mapping[int, str] = {
    errno.EPERM: "nkform needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN",
    errno.EEXIST: "something of that name came up since the plan was made, or a route like it exists: plan again",
    errno.ENODEV: "the device has gone since the plan was made: plan again",
    errno.ENOENT: "it has gone since the plan was made: plan again",
    errno.ENOTEMPTY: "move or delete what is in the namespace, then plan again",
    errno.ESTALE: "plan again",
    errno.ENETUNREACH: "the gateway is not reachable through this device: add a route to it, or `onlink: true`",
    errno.ENOBUFS: "the kernel ran out of memory for it",
}


def apply(
    plan: Plan,
    desired: Node,
    before: Node,
    namespaces: Namespaces,
    *,
    features: Collection[str],
    programs: Programs | None = None,
    targets: Collection[str] = (),
    progress: Progress | None = None,
) -> Node:
    """Carries a plan out and returns the live node after it.

    Raises NkformError when the kernel refuses an action or does not keep what it accepted; the node is then as before,
    or the error says what is not.
    """
    done: list[Action] = []

    def note(action: Action) -> None:
        done.append(action)
        if progress is not None:
            progress(len(done), len(plan.actions))

    with ExitStack() as stack:
        chains = _chains(plan, programs, stack)

        def back() -> list[Problem]:
            return roll_back(done, before, desired, namespaces, chains)

        try:
            Executor(namespaces, plan.node, note, chains).run(plan.actions)
            live = observe(namespaces, plan.node, desired)
            _verify(build(desired, live, features=features, targets=targets, resolved=plan.devices))
            if chains is not None:
                chains.sweep()
            return live
        except KernelError as error:
            problem = Problem("NK0501", f"could not {error}", hint=HINTS.get(error.errno or 0, ""))
            raise NkformError(problem, *back()) from error
        except NkformError as error:
            raise NkformError(*error.problems, *back()) from error
        except BaseException:
            back()
            raise


def _chains(plan: Plan, programs: Programs | None, stack: ExitStack) -> Chains | None:
    """What attaches programs, where the plan has any."""
    for action in plan.actions:
        if isinstance(action, SetChain) or (isinstance(action, DeletePair) and action.device.hooks):
            from nkform.apply.chains import Chains

            return stack.enter_context(Chains(plan.node, programs))
    return None


def _verify(again: Plan) -> None:
    """Raises NkformError for all that is not as declared after all was done: what the kernel silently ignored."""
    if not again.empty:
        raise NkformError(*(problem for change in again.changes for problem in _differences(change)))


def _differences(change: Change) -> list[Problem]:
    if change.operation in ("create", "destroy"):
        state = "is not there" if change.operation == "create" else "is still there"
        return [Problem("NK0502", f"{change.kind} {change.name} {state} after all was done")]
    return [
        Problem(
            "NK0502",
            f"the kernel accepted {'.'.join(field.path)} {field.after} for {change.name} but keeps {field.before}",
            path=(f"{change.kind}s", change.name, *field.path),
            hint="this kernel does not know it, or something else on the node sets it",
        )
        for field in change.fields
    ]


def roll_back(
    done: Sequence[Action], before: Node, desired: Node, namespaces: Namespaces, chains: Chains | None = None
) -> list[Problem]:
    """Undoes actions, last first, and compares with the state before; returns what to tell.

    Goes on past what cannot be undone, so that as much as possible is.
    """
    failed: list[Problem] = []
    executor = Executor(namespaces, before.name, lambda _: None, chains)
    for actions in _runs([step for action in reversed(done) for step in undo(action)]):
        try:
            executor.run(actions)
        except KernelError as error:
            failed.append(Problem("NK0503", f"while undoing, could not {error}"))
    left = [] if not done else unlike(before, observe(namespaces, before.name, desired))
    if left:
        hint = "run `nkform plan` to see what is left, and `nkform apply` once the cause is mended"
        failed.append(Problem("NK0504", f"not as before: {', '.join(left)}", hint=hint))
    elif done:
        failed = [Problem("NK0505", f"all {len(done)} actions were undone: the node is as before", severity="note")]
    return failed


def _runs(actions: Sequence[Action]) -> list[list[Action]]:
    """Actions of one type in a row: few batches where all goes well, little lost where one fails."""
    runs: list[list[Action]] = []
    for action in actions:
        if runs and type(runs[-1][-1]) is type(action):
            runs[-1].append(action)
        else:
            runs.append([action])
    return runs


def _unordered(end: Endpoint) -> Endpoint:
    """An end whose addresses and routes compare whatever their order: what is put back comes last."""
    addresses = tuple(sorted(end.addresses, key=lambda address: address.text))
    return replace(end, addresses=addresses, routes=tuple(sorted(end.routes, key=repr)))


def _renumbered(hook: Hook) -> Hook:
    """A hook without the numbers that attaching something again changes."""
    linked, filters = (
        tuple(replace(entry, place=0, program_id=0 if entry.ours else entry.program_id) for entry in entries)
        for entries in (hook.linked, hook.filters)
    )
    return Hook(linked, filters)


def unlike(before: Node, after: Node) -> list[str]:
    """The names of objects that are not the same in both; numbers that the kernel gives anew do not count."""

    def known(device: Device) -> Device:
        primary = _unordered(device.primary)
        hooks = {name: _renumbered(hook) for name, hook in device.hooks.items()}
        return replace(device, index=0, primary=primary, peer=device.peer and _unordered(device.peer), hooks=hooks)

    devices = {
        name
        for name in {*before.devices, *after.devices}
        if name not in before.devices
        or name not in after.devices
        or known(before.devices[name]) != known(after.devices[name])
    }
    namespaces = {
        name
        for name in {*before.namespaces, *after.namespaces}
        if before.namespaces.get(name) != after.namespaces.get(name)
    }
    return [f"device {name}" for name in sorted(devices)] + [
        f"namespace {name or 'root'}" for name in sorted(namespaces)
    ]
