"""What of a spec's data can be said in a spec: the rest is left out, and told. Pure.

`show` prints what it finds in the kernel. Who is root in a workload's namespace can add routes there, or give his end a
name, that no spec may have: that is no reason for the whole spec of the node to be refused.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nkform.document import names
from nkform.document.json_schema import Found
from nkform.document.scalars import quoted
from nkform.listing import few
from nkform.problem import Path, Problem
from nkform.spec.decode import decode
from nkform.spec.loader import checker, without
from nkform.spec.merge import Data

PASSES = 8
"""What is left out may be what other things lean on: so often they are looked at one by one, then whole devices go."""

_NAMED = 3
"""How many things of a device are named that are left out."""

PEER_NAME = ("peer", "name")

_KEEP = frozenset({"kind", "name", "namespace", "peer"})
"""What a device cannot do without, or would be another one."""


LEFT_OUT = (
    "somebody has added it, who is root here or in a namespace; `nkform apply` of the node's own spec takes it away"
)


def valid_part(data: Data) -> tuple[Data, list[Problem]]:
    """The part of a spec's data that is valid, with texts as they are meant; and warnings about the rest."""
    warnings: list[Problem] = []
    left: dict[str, list[tuple[str, Problem]]] = {}
    for count in itertools.count():
        problems = list(_problems(data))
        cuts: dict[Path, Problem] = {}
        for problem in problems:
            path = _cut(data, problem.path or ()) if count < PASSES else (problem.path or ())[:2]
            if len(path) > 1 and path[0] == "devices":
                cuts.setdefault(path, problem)
        if not cuts:
            break
        for path in [path for path in cuts if path[2:] == PEER_NAME]:
            data, warning = _renamed(data, path)
            warnings.append(warning)
            del cuts[path]
        for path, problem in cuts.items():
            left.setdefault(str(path[1]), []).append((_words(data, path), problem))
        data = _without(data, cuts)
    return data, [*warnings, *_told(left), *map(_unmended, problems)]


def _problems(data: Data) -> Iterator[Problem]:
    """What is wrong with a spec: errors only."""
    violations: Found = []
    checker()(data, None, violations)
    for each in violations:
        from nkform.document.explain import describe

        where = each.path if each.keyword != "additionalProperties" else (*each.path, each.key)
        yield Problem("NK0206", f"{describe(_at(data, where))} is none of the values that it can have", path=where)
    if not violations:
        _, found = decode(data, (), lambda path: ".".join(map(str, path)), complete=True)
        yield from (problem for problem in found if problem.severity == "error")


def _cut(data: Data, path: Path) -> Path:
    """What has to go for a problem: a route, an address, an attribute, or else the device."""
    rest = path[2:]
    for index, key in enumerate(rest):
        if key in ("routes", "addresses", "sysctl", "programs") and _at(data, path[: index + 3]) is not None:
            depth = {"routes": 2, "addresses": 2, "sysctl": 3, "programs": 1}[str(key)]
            return path[: index + 2 + depth]
    if rest == PEER_NAME and names.ifname_fault(str(_at(data, path))):
        return path
    if rest and rest[-1] not in _KEEP and _at(data, path) is not None:
        return path
    return path[:2]


def _at(data: Any, path: Path) -> Any:
    """What stands at a path; None if nothing does."""
    for key in path:
        if isinstance(data, Mapping):
            data = data.get(key)
        elif isinstance(data, list) and isinstance(key, int) and key < len(data):
            data = data[key]
        else:
            return None
    return data


def _without(data: Data, cuts: Mapping[Path, Problem]) -> Data:
    """The data without some paths; the items of lists move up."""
    left: Data = without(data, cuts.keys())
    for parent in {path[:-1] for path in cuts if isinstance(path[-1], int)}:
        items = _at(left, parent)
        if items is not None:
            items[:] = [item for item in items if item is not None]
    return left


def _renamed(data: Data, path: Path) -> tuple[Data, Problem]:
    """The data with a name for a peer that a spec can have, and a warning."""
    device = str(path[1])
    pair = data["devices"][device]
    name = str(pair["peer"]["name"])
    given = {**data["devices"], device: {**pair, "peer": {**pair["peer"], "name": sayable(name)}}}
    return {**data, "devices": given}, Problem(
        "NK0608",
        f"an end of {device} is called {quoted(name)}, which {names.ifname_fault(name)}: a spec cannot name it",
        hint="`nkform apply` of its spec gives it its name again",
        severity="warning",
    )


def sayable(name: str) -> str:
    """A name that is as like a device's as one in a spec can be."""
    escaped = name.encode("ascii", "backslashreplace").decode() if name.isprintable() else repr(name)[1:-1]
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    tries = (escaped, plain[: names.IFNAMSIZ - 1], f"_{plain}"[: names.IFNAMSIZ - 1])
    return next(each for each in tries if not names.ifname_fault(each))


def _words(data: Data, path: Path) -> str:
    """What is left out, in words."""
    rest = path[2:]
    if not rest:
        return "all of it"
    side = " of its peer" if rest[0] == "peer" else ""
    keys = [key for key in rest if key != "peer"]
    value = _at(data, path)
    match keys[0]:
        case "routes" if isinstance(value, Mapping):
            what = f"the route to {value.get('to')}" + (f" via {value['via']}" if "via" in value else "")
        case "addresses" if isinstance(value, str):
            what = f"the address {value}"
        case _:
            what = f"`{'.'.join(map(str, keys))}`"
    return what + side


def _told(left: Mapping[str, Sequence[tuple[str, Problem]]]) -> Iterator[Problem]:
    """A warning for each device of which something is left out."""
    for device, some in left.items():
        what = "; ".join(few([f"{words} ({problem.message})" for words, problem in some], _NAMED))
        yield Problem(
            "NK0619",
            f"{device} has what a spec cannot say, and what is shown leaves it out: {what}",
            hint=LEFT_OUT,
            severity="warning",
        )


def _unmended(problem: Problem) -> Problem:
    """What is wrong with the spec all the same."""
    told = f"what is shown is no valid spec: {problem.message}"
    return Problem("NK0619", told, hint=problem.hint, severity="warning")
