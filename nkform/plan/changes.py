"""What a plan is: the objects that change, and the actions that change them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from nkform.dataclass import dataclass, field
from nkform.model import Device, Namespace
from nkform.plan.actions import Action
from nkform.plan.compare import FieldChange
from nkform.problem import Problem

Operation = Literal["create", "update", "replace", "destroy"]

Aim = Literal["spec", "before", "nothing"]
"""What a plan leads to: what a spec says, what the node was before a run, or nothing of the node at all."""


@dataclass(frozen=True, slots=True)
class Change:
    """One object that changes. `before` and `after` are whole where an object comes or goes."""

    operation: Operation
    kind: Literal["namespace", "device"]
    name: str
    fields: tuple[FieldChange, ...] = ()
    reason: str = ""
    before: Device | Namespace | None = None
    after: Device | Namespace | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes in the order of the spec, actions in the order in which they are carried out.

    `devices` are those that the spec declares, as this node shall have them. `aim`: what it all leads to.
    """

    node: str
    changes: tuple[Change, ...] = ()
    actions: tuple[Action, ...] = ()
    warnings: tuple[Problem, ...] = ()
    devices: Mapping[str, Device] = field(default_factory=dict)
    aim: Aim = "spec"

    @property
    def empty(self) -> bool:
        return not self.changes

    def count(self) -> tuple[int, int, int]:
        """How many objects are added, changed and destroyed; a replacement is both an addition and a destruction."""
        tally = dict.fromkeys(("create", "update", "replace", "destroy"), 0)
        for change in self.changes:
            tally[change.operation] += 1
        return tally["create"] + tally["replace"], tally["update"], tally["destroy"] + tally["replace"]
