"""Which part of a plan can be carried out while something stands in the way of the rest. Pure.

An obstacle concerns an object of the spec, a device or a namespace. What does not depend on that object is planned as
if the object were in neither the spec nor the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING

from nkform.dataclass import dataclass, replace
from nkform.model import Device, Namespace, Node
from nkform.namespace_key import ROOT
from nkform.problem import NkformError, Problem

if TYPE_CHECKING:
    from nkform.plan.changes import Plan

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

        A namespace of ours that is left alone is there as it is; so is one that a device which is left alone has an end
        in. Any other one that is left alone is none of the plan's, and collides with nothing.
        """
        if not self.names:
            return desired, live
        left = {name for kind, name in self.names if kind == "device"}
        alone = {name for kind, name in self.names if kind == "namespace"}
        kept = {key for name in left if name in live.devices for key in _keys(live.devices[name])}
        spaces = {name: space for name, space in desired.namespaces.items() if name not in alone}
        ours = {name for name, space in live.namespaces.items() if space.owner == live.name}
        for name in ((alone & (ours | kept)) | (kept - spaces.keys())) & live.namespaces.keys():
            spaces[name] = Namespace(name, create=name in ours)
        devices = {name: device for name, device in desired.devices.items() if name not in left}
        there = {name: device for name, device in live.devices.items() if name not in left}
        return replace(desired, devices=devices, namespaces=spaces), live.with_devices(there)


NOTHING = Without()


def absent(desired: Node, live: Node) -> tuple[Without, tuple[Problem, ...]]:
    """What may be absent and is, with the devices that need it; and what to tell of that."""
    there = {*live.namespaces, *live.barred}
    spaces = [n for n, space in desired.namespaces.items() if space.optional and n not in there]
    devices = [n for n, device in desired.devices.items() if device.optional and n not in live.devices]
    if not spaces and not devices:
        return NOTHING, ()
    names: list[Name] = [*(("namespace", name) for name in spaces), *(("device", name) for name in devices)]
    left = NOTHING | dependent(names, (desired,))
    told: list[Problem] = []
    for kind, name in names:
        others = sorted(n for k, n in dependent([(kind, name)], (desired,)) if k == "device" and n not in devices)
        tail = f"; left out with it: {', '.join(others)}" if others else ""
        text = f"{kind} {name} is not there, which is no error (`optional`){tail}"
        told.append(Problem("NK0430", text, path=(f"{kind}s", name), severity="note"))
    return left, tuple(told)


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


def parts(plan: Plan, nodes: Collection[Node]) -> list[frozenset[Name]]:
    """The parts that a plan can be carried out in: each device with the namespaces that change and that it is in, and
    with those that it takes a name from.

    A namespace may be of several parts: it is made with the first of them, and goes with the last.
    """
    changed: list[Name] = [(change.kind, change.name) for change in plan.changes]
    keys: dict[str, set[str]] = {}
    for node in nodes:
        for device in node.devices.values():
            keys.setdefault(device.name, set()).update(_keys(device))
    found: dict[Name, frozenset[Name]] = {}
    taken: set[Name] = set()
    for kind, name in changed:
        if kind == "device":
            spaces = {("namespace", key) for key in keys.get(name, ())}.intersection(changed)
            found[kind, name] = frozenset({(kind, name), *spaces})
            taken |= spaces
    for one, other in _exchanges(nodes):
        if one in found and other in found:
            together = found[one] | found[other]
            found |= dict.fromkeys((name for name in found if name in together), together)
    alone = {name: frozenset({name}) for name in changed if name[0] == "namespace" and name not in taken}
    return [*alone.values(), *dict.fromkeys(found.values())]


def _exchanges(nodes: Collection[Node]) -> Iterator[tuple[Name, Name]]:
    """Devices that have an end of the same name in the same namespace, one before and the other after."""
    first, *others = nodes
    holders = {(end.namespace, end.name): name for name, device in first.devices.items() for end in device.ends}
    for node in others:
        for name, device in node.devices.items():
            for end in device.ends:
                other = holders.get((end.namespace, end.name), name)
                if other != name:
                    yield ("device", other), ("device", name)


def _keys(device: Device) -> set[str]:
    """The namespaces, the root one aside, that a device has ends in."""
    return {end.namespace for end in device.ends} - {ROOT}
