"""Which part of a plan can be carried out while something stands in the way of the rest. Pure.

An obstacle concerns an object of the spec, a device or a namespace. What does not depend on that object is planned as
if the object were in neither the spec nor the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from nkform.dataclass import dataclass, replace
from nkform.model import ROOT, Device, Namespace, Node
from nkform.plan.plan import Plan
from nkform.problem import NkformError, Problem

Name = tuple[str, str]
"""An object: "device" or "namespace", and its name."""


@dataclass(frozen=True, slots=True)
class Without:
    """Objects that a plan leaves alone."""

    names: frozenset[Name] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.names)

    def __or__(self, names: Iterable[Name]) -> Without:
        return Without(self.names | frozenset(names))

    def trim(self, desired: Node, live: Node) -> tuple[Node, Node]:
        """Both nodes, so that a plan from one to the other leaves the objects alone.

        A namespace that is left alone is there as it is; so is one that a device which is left alone has an end in.
        """
        if not self.names:
            return desired, live
        left = {name for kind, name in self.names if kind == "device"}
        alone = {name for kind, name in self.names if kind == "namespace"}
        kept = {key for name in left if name in live.devices for key in _keys(live.devices[name])}
        spaces = {name: space for name, space in desired.namespaces.items() if name not in alone}
        for name in (alone | (kept - spaces.keys())) & live.namespaces.keys():
            spaces[name] = Namespace(name, create=live.namespaces[name].owner == live.name)
        devices = {name: device for name, device in desired.devices.items() if name not in left}
        there = {name: device for name, device in live.devices.items() if name not in left}
        return replace(desired, devices=devices, namespaces=spaces), live.with_devices(there)


NOTHING = Without()


def possible(
    build: Callable[[Without], Plan], nodes: Collection[Node], without: Without = NOTHING
) -> tuple[Plan, Without, tuple[Problem, ...]]:
    """The plan of all that nothing stands in the way of, what it leaves alone, and why.

    `build` plans without some objects. `nodes` are the desired and the live one: they say what is where. Raises
    NkformError where an obstacle concerns no object, and so all of them.
    """
    problems: list[Problem] = []
    while True:
        try:
            return build(without), without, tuple(dict.fromkeys(problems))
        except NkformError as error:
            more = without | dependent(concerned(error.problems), nodes)
            if more == without:
                raise
            problems += [problem for problem in error.problems if problem.severity == "error"]
            without = more


def concerned(problems: Iterable[Problem]) -> Iterator[Name]:
    """The objects that problems are about."""
    for problem in problems:
        match problem.path:
            case ("devices", str(name), *_):
                yield "device", name
            case ("namespaces", str(name), *_):
                yield "namespace", name


def dependent(names: Iterable[Name], nodes: Collection[Node]) -> frozenset[Name]:
    """The objects, and the devices that have an end in one of the namespaces among them."""
    found = set(names)
    gone = {name for kind, name in found if kind == "namespace"}
    if gone:
        found |= {("device", d.name) for node in nodes for d in node.devices.values() if _keys(d) & gone}
    return frozenset(found)


def groups(plan: Plan, nodes: Collection[Node]) -> list[frozenset[Name]]:
    """The objects that a plan changes, those together that depend on one another, in the order of the plan."""
    changed: list[Name] = [(change.kind, change.name) for change in plan.changes]
    leader = {name: name for name in changed}

    def head(name: Name) -> Name:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    for node in nodes:
        for device in node.devices.values():
            for key in _keys(device):
                some = [name for name in (("device", device.name), ("namespace", key)) if name in leader]
                if len(some) == 2:
                    leader[head(some[1])] = head(some[0])
    found: dict[Name, set[Name]] = {}
    for name in changed:
        found.setdefault(head(name), set()).add(name)
    return [frozenset(names) for names in found.values()]


def _keys(device: Device) -> set[str]:
    """The namespaces, the root one aside, that a device has ends in."""
    return {end.namespace for end in device.ends} - {ROOT}
