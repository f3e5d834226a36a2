"""Programs and chains of a spec that obeys the schema → the model's. Pure.

Which templates there are, and which parameters they take, is not the spec's to know: nkform.bpf checks that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from nkform.document.scalars import quoted
from nkform.kinds import KindName, kind_of
from nkform.model import After, Before, Chain, First, Last, Position, Program
from nkform.nearest import nearest
from nkform.problem import Path

Report = Callable[[str, str, Path, str], None]
"""Called with code, message, path and hint."""

RESERVED = frozenset({"default"})
"""The name of the program that ends a chain with `default: drop`."""


class Declared:
    """The programs that a spec names, and the chains that use them."""

    def __init__(
        self, programs: Mapping[str, Any], report: Report, broken: Collection[Path], *, complete: bool
    ) -> None:
        self._programs = programs
        self._report = report
        self._broken = broken
        self._complete = complete
        for name in programs:
            if name in RESERVED:
                report("NK0321", f"{quoted(name)} is the end of a chain that drops", ("programs", name), "rename it")

    def chains(self, kind: KindName, given: Mapping[str, Any], path: Path) -> dict[str, Chain]:
        """The chains of a device. A hook that its kind does not have is an error."""
        found = {}
        traits = kind_of(kind)
        for hook, chain in given.items():
            if hook not in traits.hooks:
                hooks = " and ".join(traits.hooks)
                self._report("NK0322", f"{traits.said} has no hook `{hook}`", (*path, hook), f"it has {hooks}")
            elif chain is not None:
                found[hook] = self._chain(chain, (*path, hook))
        return found

    def _chain(self, given: Any, path: Path) -> Chain:
        if isinstance(given, list):
            given, entries = {"chain": given}, path
        else:
            entries = (*path, "chain")
        programs: dict[str, Program] = {}
        for number, entry in enumerate(given.get("chain") or ()):
            where = (*entries, number)
            program = None if entry is None else self._entry(entry, where)
            if program is not None and programs.setdefault(program.name, program) is not program:
                hint = "each program has a name of its own in its chain: {use: count, as: count2}"
                self._report("NK0323", f"{quoted(program.name)} is in this chain already", where, hint)
        position = self._position(given.get("position"), (*path, "position"))
        return Chain(tuple(programs.values()), given.get("default", "pass"), position)

    def _position(self, given: Any, path: Path) -> Position | None:
        match given:
            case "first":
                return First()
            case "last":
                return Last()
            case {"before": _, "after": _}:
                hint = "keep one of the two"
                self._report("NK0325", "`position` can have `before` or `after`, not both", path, hint)
            case {"before": program}:
                return Before(program, given.get("optional") is True)
            case {"after": program}:
                return After(program, given.get("optional") is True)
            case {} if not any((*path, side) in self._broken for side in ("before", "after")):
                self._report("NK0325", "`position` needs `before` or `after`", path, "add before: X or after: X")
        return None

    def _entry(self, given: Any, path: Path) -> Program | None:
        entry: dict[str, Any] = {"use": given} if isinstance(given, str) else given
        used = entry.get("use")
        if used is None:
            return None
        if used not in self._programs:
            if self._complete and ("programs", used) not in self._broken:
                near = nearest(used, self._programs)
                hint = f"did you mean {near}? Otherwise " if near else ""
                hint += f"declare it:\nprograms:\n  {used}: {{template: …}}"
                self._report("NK0320", f"no program {quoted(used)} is declared", path, hint)
            return None
        base = self._programs[used] or {}
        common: dict[str, object] = base.get("params") or {}
        own: dict[str, object] = entry.get("params") or {}
        places: dict[str, Path] = {"": path, "template": ("programs", used, "template")}
        places |= {name: ("programs", used, "params", name) for name in common}
        places |= {name: (*path, "params", name) for name in own}
        params: dict[str, object] = {**common, **own}
        return Program(
            entry.get("as") or used,
            base.get("template") or "",
            params,
            places=places,
        )
