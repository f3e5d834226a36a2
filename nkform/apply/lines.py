"""A journal as lines of JSON: what the run is, then object by object the node as it was, what others had, and what
programs were made of.

Line by line, neither writing nor reading takes memory for the whole. Nearly all ends of a node have the same sysctls:
each set of them is written once, before the first device that has it, and is one object again when it is read.
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


Line = Namespace | Device | ForeignItem | Explanation | Sysctls


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


def read(kind: type[Entry], lines: Iterable[str]) -> tuple[Entry, list[object]]:
    """An entry, and the data of the lines that a run added to it. Raises ValueError.

    The last line may have been cut off in the middle.
    """
    entry: Entry | None = None
    namespaces: dict[str, Namespace] = {}
    devices: dict[str, Device] = {}
    others: list[ForeignItem] = []
    explained: list[Explanation] = []
    sets: list[Mapping[str, str]] = []
    added: list[object] = []
    for line in lines:
        if not line.endswith("\n"):
            break
        data = _parsed(line)
        if entry is None:
            entry = serial.read(kind, data)
        elif not isinstance(data, dict):
            added.append(_checked(data))
        else:
            match serial.read_any(Line, data):
                case Namespace() as namespace:
                    namespaces[namespace.name] = namespace
                case Device() as device:
                    devices[device.name] = _each_end(device, lambda end: sets[int(end.sysctl[_SAME])])
                case ForeignItem() as belonging:
                    others.append(belonging)
                case Explanation() as explanation:
                    explained.append(explanation)
                case Sysctls(values):
                    sets.append(values)
    if entry is None:
        raise ValueError("it is empty")
    before = replace(entry.before, namespaces=namespaces, devices=devices, explained=tuple(explained))
    return replace(entry, before=before, others=tuple(others)), added


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
