"""A journal as lines of JSON: what the run is, then object by object the node as it was, what others had, and what
programs were made of.

Line by line, neither writing nor reading takes memory for the whole. Nearly all ends of a node have the same sysctls:
each set of them is written once, before the first device that has it, and is one object again when it is read.

Then a line says how many there were, and that this is all: of a record whose end was lost, what is missing would count
as not there before the run, and going back would delete it. After it come the lines that the run adds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from nkform import serial
from nkform.apply.foreign_state import ForeignItem
from nkform.dataclass import dataclass, replace
from nkform.model import Device, Endpoint, Explanation, Namespace, Node

if TYPE_CHECKING:
    from nkform.apply.journal import Entry

KILLED = "was killed"
STOPPED = "was stopped at once"
STUCK = "failed and could not undo everything"
ENDS = (KILLED, STOPPED, STUCK)
"""How a run ended that left its journal, as the rest of a sentence."""

_SAME = "same"
"""The only key of the sysctls of an end as it is written, where sysctls have dots; its value says which set."""


@dataclass(frozen=True, slots=True)
class Sysctls:
    """One set of sysctls; the first is number 0."""

    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Whole:
    """The end of an entry; so many lines are before it."""

    lines: int


Line = Namespace | Device | ForeignItem | Explanation | Sysctls | Whole


class _Sets:
    """Numbers the sets of sysctls of a node, and says which of them are new."""

    def __init__(self) -> None:
        self._by_identity: dict[int, str] = {}
        self._by_values: dict[tuple[tuple[str, str], ...], str] = {}

    def new(self, device: Device) -> Iterator[Sysctls]:
        for end in device.ends:
            if end.sysctl and id(end.sysctl) not in self._by_identity:  # most ends share one object
                values, count = tuple(end.sysctl.items()), len(self._by_values)
                number = self._by_values.setdefault(values, str(count))
                self._by_identity[id(end.sysctl)] = number
                if len(self._by_values) > count:
                    yield Sysctls(end.sysctl)

    def numbered(self, end: Endpoint) -> dict[str, str]:
        return {_SAME: self._by_identity[id(end.sysctl)]}


def written(entry: Entry) -> Iterator[str]:
    """The lines of an entry, each with its end. What a way back needs not of the node as it was is left out."""
    count = 0
    for line in _lines(entry):
        count += 1
        yield line
    yield _line(Whole(count))


def _lines(entry: Entry) -> Iterator[str]:
    before, sets = entry.before, _Sets()
    yield _line(replace(entry, before=Node(before.name, covered=before.covered), others=()))
    yield from map(_line, before.namespaces.values())
    for device in before.devices.values():
        yield from map(_line, sets.new(device))
        yield _line(_each_end(device, sets.numbered))
    yield from map(_line, entry.others)
    yield from map(_line, before.explained)


def _line(value: object) -> str:
    return serial.dumps(value) + "\n"


class _Objects:
    """What the lines of an entry are about, taken up one by one."""

    def __init__(self) -> None:
        self.is_whole = False
        self.others: list[ForeignItem] = []
        self._namespaces: dict[str, Namespace] = {}
        self._devices: dict[str, Device] = {}
        self._explained: list[Explanation] = []
        self._sets: list[Mapping[str, str]] = []

    def take(self, line: Line, place: int) -> None:
        """`place`: how many lines come before it. Raises ValueError, LookupError."""
        if self.is_whole:
            raise ValueError("it goes on after its end")
        match line:
            case Namespace() as namespace:
                self._namespaces[namespace.name] = namespace
            case Device() as device:
                self._devices[device.name] = _each_end(device, lambda end: self._sets[int(end.sysctl[_SAME])])
            case ForeignItem() as belonging:
                self.others.append(belonging)
            case Explanation() as explanation:
                self._explained.append(explanation)
            case Sysctls(values):
                self._sets.append(values)
            case Whole(count):
                if count != place:
                    raise ValueError(f"{place} lines of {count} are there")
                self.is_whole = True

    def within(self, before: Node) -> Node:
        return replace(before, namespaces=self._namespaces, devices=self._devices, explained=tuple(self._explained))


def read(kind: type[Entry], lines: Iterable[str]) -> tuple[Entry, list[object]]:
    """An entry, and the data of the lines that a run added to it. Raises ValueError, LookupError.

    The last of those lines may have been cut off in the middle. An entry that is not whole is refused.
    """
    entry: Entry | None = None
    objects = _Objects()
    added: list[object] = []
    for place, line in enumerate(lines):
        if not line.endswith("\n"):
            break
        data = _parsed(line)
        if entry is None:
            entry = serial.read(kind, data)
        elif isinstance(data, dict):
            objects.take(serial.read_any(Line, data), place)
        else:
            added.append(_checked(data))
    if entry is None:
        raise ValueError("it is empty")
    if not objects.is_whole:
        raise ValueError("its end is missing")
    return replace(entry, before=objects.within(entry.before), others=tuple(objects.others)), added


def _parsed(line: str) -> Any:
    """JSON data. Raises ValueError."""
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("a line of it nests too deep") from None


def _checked(data: object) -> object:
    """A line that a run adds. Raises ValueError.

    How many actions it has reached, four words on a sysctl, which of what others had they have after it, or how it
    ended.
    """
    words = isinstance(data, list) and len(data) == 4 and all(isinstance(word, str) for word in data)
    places = isinstance(data, list) and len(data) > 0 and all(type(place) is int for place in data)
    if type(data) is int or words or places or (isinstance(data, str) and data in ENDS):
        return data
    raise ValueError(f"a line that no run writes: {data!r:.60}")


def _each_end(device: Device, sysctls: Callable[[Endpoint], Mapping[str, str]]) -> Device:
    """A device whose ends that have sysctls have other ones."""

    def other(end: Endpoint) -> Endpoint:
        return replace(end, sysctl=sysctls(end)) if end.sysctl else end

    return replace(device, primary=other(device.primary), peer=other(device.peer) if device.peer else None)
