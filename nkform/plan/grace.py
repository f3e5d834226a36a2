"""How many RCU grace periods the kernel will wait for while actions are carried out. Pure.

One for each link that is attached or detached, none for a link's update, for filters of legacy tc or for entries of
maps; and one for each hook of a device that goes with programs attached (dev_tcx_uninstall in kernel/bpf/tcx.c,
netkit_uninit in drivers/net/netkit.c).
"""

from __future__ import annotations

from collections.abc import Iterable

from nkform.plan.actions import Action, Attach, DeletePair, Detach, SetChain

WORTH_IT = 2
"""Grace periods ahead for which it is worth it to have them expedited."""


def are_worth_it(actions: Iterable[Action]) -> bool:
    """Whether actions wait for so many grace periods that these are to be expedited."""
    total = 0
    for action in actions:
        total += grace_periods(action)
        if total >= WORTH_IT:
            return True
    return False


def grace_periods(action: Action) -> int:
    """An estimate: what others have attached, and what a program that closes a hook for a moment adds, is left out."""
    match action:
        case DeletePair(device):
            return sum(bool(hook.linked) for hook in device.hooks.values())
        case SetChain(steps=steps):
            return sum(isinstance(step, Attach | Detach) and step.backend == "link" for step in steps)
        case _:
            return 0
