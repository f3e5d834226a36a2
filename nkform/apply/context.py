"""What a run works with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from nkform.apply.expedite import Expedited
from nkform.dataclass import dataclass
from nkform.kernel.interrupt import Interrupts
from nkform.kernel.netns import Namespaces
from nkform.kernel.rundir import Lock
from nkform.model import Explanation
from nkform.plan.actions import CreatePair, DeletePair, SetChain, SetMap
from nkform.plan.changes import Plan
from nkform.problem import Problem

if TYPE_CHECKING:
    from nkform.apply.chains import Chains
    from nkform.bpf.programs import Programs

Progress = Callable[[int, int], None]
"""Called with how many actions are done and how many there are."""


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a run works with. The lock is there so that no run can be without it.

    `expedite`: whether the kernel's grace periods may be expedited while programs come and go (apply/expedite.py).
    `warn` is told what is worth a word of a run that is done.
    """

    lock: Lock
    namespaces: Namespaces
    features: Collection[str]
    interrupts: Interrupts
    programs: Programs | None = None
    progress: Progress | None = None
    expedite: bool = True
    warn: Callable[[Problem], None] = lambda _: None

    @property
    def expedited(self) -> Expedited:
        return Expedited(self.lock if self.expedite else None)

    def chains(
        self, plan: Plan, stack: ExitStack, *, explained: Iterable[Explanation], returns: bool = False
    ) -> Chains | None:
        """What attaches programs, where a plan has any; the stack closes it. Raises KernelError.

        `explained`: what those that are or were attached are made of. `returns`: to programs that earlier runs held.
        """
        for action in plan.actions:
            if isinstance(action, SetChain | SetMap) or (isinstance(action, DeletePair) and action.device.hooks):
                from nkform.apply.chains import Chains

                chains = stack.enter_context(Chains(plan.node, self.programs, explained=explained))
                if returns:
                    chains.recall()
                    chains.made_anew(action.device.name for action in plan.actions if isinstance(action, CreatePair))
                return chains
        return None
