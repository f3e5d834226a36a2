"""What programs were made of, each where it is: noted at each apply; read by `show` and `status`, and by a way back.

Explanations only: a plan compares digests and never looks here. They vanish at reboot, as links do. What a way back
needs of them is in its journal too, since here is only what is attached.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from nkform import serial
from nkform.dataclass import replace
from nkform.kernel import rundir
from nkform.model import Attached, Explanation, Node

FILE = "programs.json"


class Known:
    """Explanations, to be looked up. Of two that explain the same, the first counts."""

    def __init__(self, explained: Iterable[Explanation]) -> None:
        self._exact: dict[tuple[str, str, str, str], Explanation] = {}
        self._by_digest: dict[str, list[Explanation]] = {}
        for each in explained:
            for place in each.at:
                self._exact.setdefault((*place, each.digest), each)
            alike = self._by_digest.setdefault(each.digest, [])
            if not any(replace(each, at=()) == replace(other, at=()) for other in alike):
                alike.append(each)

    def get(self, device: str, hook: str, name: str, digest: str) -> Explanation | None:
        """What a program was made of. One of which nothing is on record where it is (its device was renamed, say) is
        made of what all others of its digest are made of, if that is one thing."""
        if found := self._exact.get((device, hook, name, digest)):
            return found
        alike = self._by_digest.get(digest, ())
        return alike[0] if len(alike) == 1 else None

    def of(self, device: str, hook: str, entry: Attached) -> Explanation | None:
        """What an attached program was made of."""
        return self.get(device, hook, entry.name, entry.identity)


def read(node: str) -> tuple[Explanation, ...]:
    """What is known. Raises KernelError where the folder cannot be trusted."""
    text = rundir.read(node, FILE)
    try:
        explained: tuple[Explanation, ...] = serial.read_any(tuple[Explanation, ...], json.loads(text)) if text else ()
        return explained
    except (ValueError, RecursionError):
        return ()  # written by another version


def note(live: Node, explained: Iterable[Explanation]) -> None:
    """Adds explanations, and forgets those of what is attached nowhere any more. Raises KernelError."""
    was = read(live.name)
    known = Known((*explained, *was))
    places: dict[int, list[tuple[str, str, str]]] = {}
    found: dict[int, Explanation] = {}
    for device in live.devices.values():
        for hook, chain in device.hooks.items():
            for entry in chain.ours:
                if explanation := known.of(device.name, hook, entry):
                    found[id(explanation)] = explanation
                    places.setdefault(id(explanation), []).append((device.name, hook, entry.name))
    kept = tuple(merged(replace(found[key], at=tuple(sorted(at))) for key, at in places.items()))
    if kept != was:
        rundir.write(live.name, FILE, serial.dumps(kept))


def merged(explained: Iterable[Explanation]) -> list[Explanation]:
    """Explanations that differ in nothing but where they are, as one."""
    found: dict[str, Explanation] = {}
    for each in explained:
        key = serial.dumps(replace(each, at=()))
        at = (*found[key].at, *each.at) if key in found else each.at
        found[key] = replace(each, at=tuple(sorted(set(at))))
    return [found[key] for key in sorted(found)]


def forget(node: str) -> None:
    """Raises KernelError."""
    rundir.remove(node, FILE)
