"""What was last applied here, and when: it tells a changed spec from a changed kernel.

Explanations only: a plan compares the spec with the kernel and never looks here. It vanishes at reboot, as links do.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from nkform import serial
from nkform.dataclass import dataclass, field
from nkform.kernel import rundir
from nkform.kernel.place import boot, place
from nkform.model import Node
from nkform.observe import managed

FILE = "applied.json"


@dataclass(frozen=True, slots=True)
class Record:
    """An apply that succeeded: when (seconds since 1970), from which files, and what its devices then were to be.

    `node` is as the plan resolved it: its devices have all defaults and digests. `features` are those that the plan
    was made with. `place` is where it was applied. `since`: when each value was first applied (plan/drift.py).
    """

    when: float
    files: tuple[str, ...]
    node: Node
    features: tuple[str, ...]
    place: str
    since: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def read(node: str, only: Collection[str] | None = None) -> Record | None:
    """The last apply of a node in this network namespace; with `only`, as if these devices had been all of it.

    Raises KernelError where the folder cannot be trusted.
    """
    try:
        data = _data(node)
        if data and only is not None:  # to make objects of all that is in the file takes long
            devices = data["node"]["devices"]
            data["node"]["devices"] = {name: devices[name] for name in devices if name in only}
        found = serial.read(Record, data) if data else None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None  # written by another version
    return found if found and found.place == place() else None


def is_of_another_place(node: str) -> bool:
    """Whether the last apply of a node was in another network namespace of this boot. Raises KernelError."""
    try:
        return (data := _data(node)) is not None and data["place"].split(":")[0] == boot() and data["place"] != place()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


def _data(node: str) -> dict[str, Any] | None:
    """Raises KernelError; ValueError and RecursionError for what is no JSON."""
    text = rundir.read(node, FILE)
    return json.loads(text) if text else None


def note(record: Record) -> None:
    """Raises KernelError."""
    rundir.write(record.node.name, FILE, serial.dumps(record))


def forget(node: str) -> None:
    """Nothing is applied any more. Raises KernelError."""
    rundir.remove(node, FILE, managed.FILE)
