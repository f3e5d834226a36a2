"""The phases of a plan: in which order its actions are carried out, which is what keeps the promises. Pure."""

from __future__ import annotations

from nkform.dataclass import dataclass, field
from nkform.plan.actions import Action


@dataclass(slots=True)
class Phases:
    """Actions by phase. The order is what keeps the promises; see `ordered`."""

    close: list[Action] = field(default_factory=list)
    delete: list[Action] = field(default_factory=list)
    namespaces: list[Action] = field(default_factory=list)
    move: list[Action] = field(default_factory=list)
    create: list[Action] = field(default_factory=list)
    inside: dict[str, list[Action]] = field(default_factory=dict)
    inside_routes: dict[str, list[Action]] = field(default_factory=dict)
    outside: list[Action] = field(default_factory=list)
    raised: list[Action] = field(default_factory=list)
    routes: list[Action] = field(default_factory=list)
    carrier: list[Action] = field(default_factory=list)
    switch: list[Action] = field(default_factory=list)
    retire: list[Action] = field(default_factory=list)
    attach: list[Action] = field(default_factory=list)
    hold: list[Action] = field(default_factory=list)
    leave: list[Action] = field(default_factory=list)
    open: list[Action] = field(default_factory=list)

    def ordered(self) -> tuple[Action, ...]:
        """Close what shall be closed before anything else moves, open what shall be open after all else.

        Removals free names and addresses for what is made. The workload's end is complete before the node's end comes
        up, and a pair carries nothing until both are up; its programs are attached before. Namespaces go when nothing
        of ours is in them any more. Actions in one namespace stand together: each namespace is entered once. What was
        built beside an old pair takes over when all is made, device by device, and all old pairs go together
        (replacement.py).
        """
        keys = dict.fromkeys((*self.inside, *self.inside_routes))
        inside = [action for key in keys for some in (self.inside, self.inside_routes) for action in some.get(key, ())]
        return (
            *self.close, *self.delete, *self.namespaces, *self.move, *self.create, *self.attach,
            *inside, *self.outside, *self.raised, *self.routes, *self.carrier, *self.switch, *self.retire, *self.hold,
            *self.leave, *self.open,
        )  # fmt: skip
