"""Variables: `${name}` in text, in whole values and in keys.

A value that is nothing but one `${name}` takes the variable's value with its type, be it a list or a mapping; within
other text it stands for text. `$${` is a plain `${`. Values may use other variables. All is bounded: the depth, the
length of a text, and how many values come out in the end. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from nkform.document.names import variable_fault
from nkform.document.scalars import quoted
from nkform.document.yaml_events import MAX_DEPTH, MAX_NODES
from nkform.nearest import nearest
from nkform.problem import Path

MAX_TEXT = 65536
"""Longest text that may come out of filling in variables, in characters."""

_MANY = 200

_USE = r"\$?\$\{(?:([^{}]*)\})?"
_WHOLE = r"\$\{([^{}]*)\}"

Report = Callable[[str, str, Path, str], None]
"""Called with code, message, path and hint."""


def names_used(text: str) -> list[str]:
    """The variables that a text uses, each once; those of its beginning, if it is long."""
    uses = re.finditer(_USE, text[:1000])
    return list(dict.fromkeys(m[1].strip() for m in uses if m[1] and not m[0].startswith("$$")))


class _Value(NamedTuple):
    """A variable's value, with the number of values in it and how deep they nest."""

    data: object
    size: int
    height: int


class _FailedError(Exception):
    """This place cannot be filled in; the problem has been reported."""


class Variables:
    """Declared variables, ready to be filled in.

    `values` are as declared, `report` is told about those that cannot be resolved, once each. With `complete` unset
    (a file that may declare more could not be read), unknown variables are passed over in silence.
    """

    def __init__(self, values: Mapping[str, object], report: Report, *, complete: bool = True) -> None:
        self._declared = values
        self._complete = complete
        self._resolved: dict[str, _Value | None] = {}
        self._open: list[str] = []
        self._unknown: dict[str, str | None] = {}
        self._report = report
        self._nodes = 0
        self.used: set[str] = set()
        for name in values:
            self._resolve(name, 0)

    def expand(self, data: object, path: Path, report: Report, renamed: dict[Path, dict[str, str]]) -> object:
        """The data with variables filled in. What could not be is left as it was; `report` hears of each such place.

        `renamed` is told, by the path of a mapping, how its keys were spelled that had variables in them.
        """
        self._report = report
        return _Expansion(self, renamed).expand(data, path, 0).data

    def count(self, size: int, path: Path) -> None:
        self._nodes += size
        if self._nodes > MAX_NODES:
            self.fail("NK0123", f"variables grow to more than {MAX_NODES:,} values", path, "")

    def fail(self, code: str, message: str, path: Path, hint: str) -> None:
        self._report(code, message, path, hint)
        raise _FailedError

    def get(self, name: str, path: Path, depth: int) -> _Value:
        """The value of a variable for a use at a path and depth. Raises _FailedError."""
        self.used.add(name)
        if name not in self._declared:
            if not self._complete:
                raise _FailedError
            known = self._near(name)
            self.fail(
                "NK0120", f"no variable is called {quoted(name)}", path,
                f"did you mean ${{{known}}}?" if known
                else f"declare it (vars: {{{name}: …}}), pass --var {name}=…, or write $${{ for a plain ${{",
            )  # fmt: skip
        if depth > MAX_DEPTH:
            self.fail("NK0123", f"variables nest more than {MAX_DEPTH} deep", path, "")
        value = self._resolve(name, depth)
        if value is None:
            raise _FailedError
        if depth + value.height > MAX_DEPTH:
            self.fail("NK0123", f"variables nest more than {MAX_DEPTH} deep", path, "")
        return value

    def _near(self, name: str) -> str | None:
        """The variable that was probably meant; the search is made once for each name, and not for ever."""
        if name not in self._unknown:
            self._unknown[name] = nearest(name, self._declared) if len(self._unknown) < _MANY else None
        return self._unknown[name]

    def _resolve(self, name: str, depth: int) -> _Value | None:
        if name in self._open:
            chain = " → ".join([*self._open[self._open.index(name) :], name][:12])
            self._report("NK0121", f"variables refer to each other in a circle: {chain}", ("vars", name), "")
            return None
        if name not in self._resolved:
            self._open.append(name)
            value = None
            with suppress(_FailedError):
                value = _Expansion(self, {}, strict=True).expand(self._declared[name], ("vars", name), depth + 1)
            self._open.pop()
            self._resolved.setdefault(name, value)
        return self._resolved[name]


class _Expansion:
    """One walk through data. With `strict`, a failure ends it; otherwise the failed place keeps what it had."""

    def __init__(self, variables: Variables, renamed: dict[Path, dict[str, str]], *, strict: bool = False) -> None:
        self.variables = variables
        self.renamed = renamed
        self.strict = strict

    def expand(self, data: object, path: Path, depth: int) -> _Value:
        if type(data) is str:
            return self.scalar(data, path, depth) if "${" in data else _Value(data, 1, 0)
        if type(data) is dict:
            return self.mapping(data, path, depth)
        if type(data) is list:
            return self.sequence(data, path, depth)
        return _Value(data, 1, 0)

    def scalar(self, text: str, path: Path, depth: int) -> _Value:
        try:
            if whole := re.fullmatch(_WHOLE, text):
                value = self.variables.get(self.name(whole[1], path), path, depth)
                self.variables.count(value.size, path)
                return value
            return _Value(self.text(text, path, depth), 1, 0)
        except _FailedError:
            if self.strict:
                raise
            return _Value(text, 1, 0)

    def mapping(self, data: dict[str, object], path: Path, depth: int) -> _Value:
        self.check_depth(path, depth)
        result: dict[str, object] = {}
        size, height = 1, 0
        for raw, item in data.items():
            key = self.key(raw, data, result, path, depth)
            if key is not None:
                value = self.expand(item, (*path, key), depth + 1)
                result[key] = value.data
                size += value.size + 1
                height = max(height, value.height)
        return _Value(result, size, height + 1)

    def sequence(self, data: list[object], path: Path, depth: int) -> _Value:
        self.check_depth(path, depth)
        values = [self.expand(item, (*path, index), depth + 1) for index, item in enumerate(data)]
        size, height = sum(v.size for v in values), max((v.height for v in values), default=0)
        return _Value([v.data for v in values], size + 1, height + 1)

    def check_depth(self, path: Path, depth: int) -> None:
        if depth > MAX_DEPTH:
            self.variables.fail("NK0123", f"variables nest more than {MAX_DEPTH} deep", path, "")

    def key(self, raw: str, data: dict[str, object], result: dict[str, object], path: Path, depth: int) -> str | None:
        """A key with its variables filled in, or None if that cannot be done."""
        if "${" not in raw:
            return raw
        where = (*path, raw)
        try:
            key = self.text(raw, where, depth)
            if key in data or key in result:
                message = f"the key {quoted(key)} is given twice, here with variables filled in"
                self.variables.fail("NK0105", message, where, "keep one of the two")
        except _FailedError:
            if self.strict:
                raise
            return None
        self.renamed.setdefault(path, {})[key] = raw
        return key

    def text(self, text: str, path: Path, depth: int) -> str:
        length = 0

        def fill(match: re.Match[str]) -> str:
            nonlocal length
            part = self.fill(match, path, depth)
            length += len(part)
            if length > MAX_TEXT:
                self.variables.fail("NK0123", f"variables make a text of more than {MAX_TEXT:,} characters", path, "")
            return part

        result = re.sub(_USE, fill, text)
        self.variables.count(1 + len(result) // 64, path)
        return result

    def name(self, text: str, path: Path) -> str:
        """The name between the braces."""
        name = text.strip()
        if fault := variable_fault(name):
            message = f"a variable's name {fault}" if name else "${} names no variable"
            self.variables.fail("NK0122", message, path, "write ${name}, or $${ for a plain ${")
        return name

    def fill(self, match: re.Match[str], path: Path, depth: int) -> str:
        name = match[1]
        if match[0].startswith("$$"):
            return match[0][1:]
        if name is None:
            self.variables.fail("NK0122", "${ without a closing }", path, "write ${name}, or $${ for a plain ${")
        name = self.name(name, path)
        value = self.variables.get(name, path, depth).data
        if isinstance(value, str):
            return value
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int):
            return str(value)
        what = {dict: "a mapping", list: "a list", float: "a fraction"}.get(type(value), "empty")
        hint = "write its value in quotes, so that it is taken as it is written" if isinstance(value, float) else ""
        if isinstance(value, dict | list):
            hint = f"let ${{{name}}} be the whole value"
        self.variables.fail("NK0124", f"the variable {name} is {what}, which cannot be part of a text", path, hint)
        raise AssertionError
