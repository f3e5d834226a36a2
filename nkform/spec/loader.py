"""From files to a Spec: read, parse, fill in variables, check, merge, decode; and all that is wrong, at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path as File
from typing import Any

from nkform.dataclass import replace
from nkform.document import names, scalars, yaml_events
from nkform.document.json_schema import Check, Found, Violation, compile_schema
from nkform.document.source import Source, read_all
from nkform.nearest import meant, nearest
from nkform.problem import NkformError, Path, Problem
from nkform.spec.decode import decode
from nkform.spec.loaded import Spec, find, locate
from nkform.spec.merge import Data, merge_files
from nkform.spec.schema import build, strict
from nkform.spec.variables import Variables, names_used

MAX_PROBLEMS = 200
"""Problems of one kind told at once. More help nobody, and explaining each takes time."""

MAX_MERGED = 4_000_000
"""Devices times the values in `defaults`: what the merged spec may grow to."""

SAVED = "nkform-plan"
"""What a saved plan says of its `format` (plan/saved.py)."""

_FATAL = frozenset({"NK0103", "NK0104", "NK0108", "NK0109", "NK0111", "NK0112", "NK0131"})
"""Faults after which the rest of a file has not been read: what it seems to lack may stand there."""


def load_files(
    files: Sequence[File], variables: Mapping[str, str], var_files: Sequence[File], *, twice: bool = False
) -> Spec:
    """See `nkform.spec.load`."""
    sources, problems = read_all(files)
    var_sources, var_problems = read_all(var_files)
    return load_sources(sources, variables, var_sources, [*problems, *var_problems], twice=twice)


def load_sources(
    sources: Sequence[Source],
    variables: Mapping[str, str],
    var_sources: Sequence[Source] = (),
    unread: Sequence[Problem] = (),
    *,
    twice: bool = False,
) -> Spec:
    """A Spec from texts. `unread` are problems with files that could not be read. Raises NkformError."""
    loading = _Loading(sources, list(unread), _both if twice else _own)
    merged, broken = loading.merge(variables, var_sources)
    node, found = decode(merged, broken, loading.where, complete=loading.complete, strangers=loading.strangers)
    loading.problems += found[: MAX_PROBLEMS * 2]
    placed = [loading.placed(p) for p in loading.problems]
    errors = _in_order([p for p in placed if p.severity == "error"], [*sources, *var_sources])
    if errors:
        raise NkformError(*_shortened(errors))
    for source in sources:
        source.forget()
    templates = tuple(dict.fromkeys(merged.get("templates", ())))
    return Spec(
        node,
        tuple(placed),
        tuple(sources),
        templates,
        engine=merged.get("engine", "auto"),
        expedite=merged.get("expedite", True),
    )


_HOLES = frozenset({"NK0106", "NK0107", "NK0110", "NK0113"})
"""Faults that leave a value out: what refers to it is not to blame."""

_OF_KEY = frozenset({"additionalProperties", "propertyNames"})
"""Keywords about a key of a value, not about the value."""

_AT_KEY = frozenset({"NK0306"})
"""Problems that are about a key, not about its value."""


class _Loading:
    """One load: the sources, and the problems found so far."""

    def __init__(self, sources: Sequence[Source], unread: list[Problem], judge: Judge) -> None:
        self.sources = sources
        self.judge = judge
        self.problems = unread
        self.complete = not unread
        self.strangers: set[Path] = set()
        """The mappings with keys that nobody knows, and of which it is not clear what they mean."""
        self.values: dict[str, object] = {}
        """Variables, as declared."""
        self.declared: dict[str, int] = {}
        """The variables of the spec itself, and the number of the file that declares each."""
        self.origins: dict[str, tuple[Source | None, Path]] = {}
        """The file that a variable's value is from, and its path there; no file for the command line."""

    def where(self, path: Path) -> str:
        position = locate(self.sources, path)
        return f"{position.file}, line {position.line}" if position else "the spec"

    def placed(self, problem: Problem) -> Problem:
        """The problem with its position and, if its value comes from variables, theirs."""
        if problem.path is None:
            return problem
        position = problem.position or locate(self.sources, problem.path, key=problem.code in _AT_KEY)
        hint = "\n".join(filter(None, [problem.hint, *self.notes(problem.path)]))
        return replace(problem, position=position, hint=hint)

    def notes(self, path: Path) -> list[str]:
        """Where the variables that stand at a path have their values from."""
        found = find(self.sources, path)
        if found is None:
            return []
        uses = names_used(found.place.raw) if found.place.raw else []
        default = [f"it is a default here, of the device {scalars.quoted(str(path[1]))}"] if found.default else []
        return default + [
            f"${{{name}}} is {_shown(self.values[name])}, from {self.origin(name)}"
            for name in uses
            if name in self.values
        ]

    def origin(self, name: str) -> str:
        source, path = self.origins[name]
        return f"{source.name}, line {source.find(path)[0].key_line}" if source else "--var"

    def merge(self, variables: Mapping[str, str], var_sources: Sequence[Source]) -> tuple[Data, Collection[Path]]:
        """The merged data, without the paths that are broken."""
        files = [self.parsed(source) for source in self.sources]
        filled = self.variables(files, variables, [(s, self.parsed(s)) for s in var_sources])
        broken: set[Path] = set()
        sound: list[Data] = []
        for source, data in zip(self.sources, files, strict=True):
            if "$" in source.text or "\\" in source.text:
                data = self.expanded(source, data, filled, broken)  # noqa: PLW2901
            sound.append(_rooted(self.checked(source, data, broken), source))
        self.warn_unused(variables, filled)
        merged = merge_files(sound, self.clash)
        if len(merged.get("devices", ())) * _size(merged.get("defaults")) > MAX_MERGED:
            self.problems.append(Problem("NK0109", "too many devices with too many defaults", path=("defaults",)))
            merged["defaults"] = {}
        return merged, broken

    def parsed(self, source: Source) -> Data:
        """A file's data: always a mapping."""
        data, _, faults = yaml_events.parse(source.text)
        if faults:
            faults = source.parsed.faults
            self.problems += [source.problem(fault) for fault in faults[:MAX_PROBLEMS]]
        fatal = any(fault.code in _FATAL for fault in faults)
        if data is not None and not isinstance(data, dict) and not fatal:
            hint = "for example version: 1"
            message = "a spec is a mapping of keys, and this is " + ("a list" if isinstance(data, list) else "text")
            self.problems.append(Problem("NK0112", message, position=source.position(1, 1), hint=hint))
            fatal = True
        elif isinstance(data, dict) and data.get("format") == SAVED:
            hint = f"`nkform apply {source.name}` carries it out, without a spec beside it"
            self.problems.append(Problem("NK0602", f"{source.name} is a saved plan, not a spec", hint=hint))
            fatal = True
        self.complete = self.complete and not fatal and all(fault.code not in _HOLES for fault in faults)
        return data if isinstance(data, dict) and not fatal else {}

    def variables(
        self, files: Sequence[Data], given: Mapping[str, str], var_files: Sequence[tuple[Source, Data]]
    ) -> Variables:
        """All variables: those of the command line before those of variable files before those of the spec."""
        for number, data in enumerate(files):
            declared = data.get("vars")
            for name, value in declared.items() if isinstance(declared, dict) else ():
                first = self.declared.setdefault(name, number)
                if first != number:
                    self.clash(f"the variable {scalars.quoted(name)}", first, number, ("vars", name))
                self.values[name] = value
                self.origins[name] = self.sources[number], ("vars", name)
        for source, data in var_files:
            for name, value in data.items():
                self.variable(name, value, source)
        for name, text in given.items():
            self.variable(name, scalars.resolve(text), None)

        def report(code: str, message: str, path: Path, hint: str) -> None:
            name = str(path[1])
            source, where = self.origins[name]
            position = source.spot(source.find((*where, *path[2:]))[0]) if source else None
            message = message if source else f"--var {name}: {message}"
            self.problems.append(Problem(code, message, position=position, hint=hint))

        return Variables(self.values, report, complete=self.complete)

    def variable(self, name: str, value: object, source: Source | None) -> None:
        """A variable from a file of variables, or from the command line."""
        if fault := names.variable_fault(name):
            position = source.spot(source.find((name,))[0], key=True) if source else None
            message = f"the variable's name {scalars.quoted(name)} {fault}"
            self.problems.append(Problem("NK0125", message if source else f"--var: {message}", position=position))
        self.values[name] = value
        self.origins[name] = source, (name,)

    def warn_unused(self, given: Mapping[str, str], variables: Variables) -> None:
        for name in sorted(given.keys() - variables.used - self.declared.keys()):
            if self.complete:
                near = nearest(name, variables.used | self.declared.keys())
                message, hint = f"--var {name}: nothing uses this variable", f"did you mean {near}?" if near else ""
                self.problems.append(Problem("NK0126", message, hint=hint, severity="warning"))

    def expanded(self, source: Source, data: Data, variables: Variables, broken: set[Path]) -> Data:
        failed: set[Path] = set()

        def report(code: str, message: str, path: Path, hint: str) -> None:
            failed.add(path)
            if len(failed) <= MAX_PROBLEMS:
                position = source.spot(source.find(path)[0])
                self.problems.append(Problem(code, message, path=path, position=position, hint=hint))

        rest = {key: value for key, value in data.items() if key != "vars"}
        result = variables.expand(rest, (), report, source.renamed)
        broken |= failed
        kept = without(result, failed)
        assert isinstance(kept, dict)
        return {**kept, "vars": data["vars"]} if "vars" in data else kept

    def checked(self, source: Source, data: Data, broken: set[Path]) -> Data:
        """The data that obeys the schema. What is `broken` already is no news."""
        found = self.judge(data, source)
        if not found:
            return data
        # A key that no device has is missing in each kind of device, too: that is told once.
        strangers = {(*v.path, v.key): v for v in reversed(found) if v.keyword == "additionalProperties"}
        found = [v for v in found if strangers.get((*v.path, v.key), v) is v or v.keyword != "additionalProperties"]
        unknown = strangers.keys()
        self.strangers |= {v.path for v in strangers.values() if _meant(v) is None}
        told = [
            v
            for v in found
            if not any(v.path[:depth] in unknown for depth in range(1, len(v.path) + 1)) and v.path not in broken
        ][:MAX_PROBLEMS]
        broken |= {(*v.path, key) for v in told if (key := _meant(v))}
        self.problems += [
            _explained(v, source) for v in told if v.keyword != "required" or (*v.path, v.key) not in broken
        ]
        wrong = {(*v.path, v.key) if v.keyword in _OF_KEY else v.path for v in found}
        broken |= wrong
        kept = without(data, wrong)
        return kept if isinstance(kept, dict) else {}

    def clash(self, what: str, first: int, second: int, path: Path) -> None:
        """Two files say different things."""
        a, b = self.sources[first], self.sources[second]
        place, other = a.find(path)[0], b.find(path)[0]
        message = f"{what} is given in {a.name}, line {place.key_line}, already"
        self.problems.append(
            Problem("NK0130", message, path=path, position=b.spot(other, key=True), hint="keep one of the two")
        )


Judge = Callable[[Data, Source], Found]
"""What of a file's data does not obey the schema, once its variables are filled in."""


@cache
def checker() -> Check:
    """The check of one file's data against the schema, once its variables are filled in."""
    return compile_schema(strict(build()))


def _own(data: Data, _: Source) -> Found:
    found: Found = []
    checker()(data, None, found)
    return found


def _both(data: Data, source: Source) -> Found:
    """As `_own`, if the second judge is of the same mind. Raises NkformError."""
    from nkform.document.second_judge import SecondJudge

    found = _own(data, source)
    try:
        judge = SecondJudge(strict(build()))
    except ModuleNotFoundError as error:
        hint = f"install python3-{error.name}, or leave out --strict"
        raise NkformError(Problem("NK0601", f"the second judge is missing: {error}", hint=hint)) from None
    if judge.valid(data) == bool(found):
        minds = "finds something wrong, and jsonschema does not" if found else "finds nothing, and jsonschema does"
        raise NkformError(
            Problem(
                "NK0900",
                f"internal error: two judges of one schema differ about this file: nkform's own {minds}",
                position=source.position(1, 1),
                hint="this is a bug in nkform: report it, with the file",
            )
        )
    return found


def _rooted(data: Data, source: Source) -> Data:
    """The data with its folders of templates found from the file that names them."""
    if "templates" not in data:
        return data
    base = File(source.name).parent
    return {**data, "templates": [str((base / folder).absolute()) for folder in data["templates"] if folder]}


def _meant(violation: Violation) -> str | None:
    """The key that an unknown one was probably meant to be: it is then not missing."""
    if violation.keyword != "additionalProperties":
        return None
    return meant(violation.key, violation.schema.get("properties", {}))


def _explained(violation: Violation, source: Source) -> Problem:
    from nkform.document.explain import explain

    return explain(violation, source)


def without(data: Any, paths: Collection[Path]) -> Any:
    """A copy of the data without some paths; what is not on the way to them is shared.

    An item of a list becomes None, so that the others keep their numbers.
    """
    if () in paths:
        return None
    if not paths:
        return data
    below: dict[str | int, set[Path]] = {}
    for path in paths:
        below.setdefault(path[0], set()).add(path[1:])
    if isinstance(data, dict):
        return {key: without(item, below.get(key, ())) for key, item in data.items() if () not in below.get(key, ())}
    if isinstance(data, list):
        return [without(item, below.get(index, ())) for index, item in enumerate(data)]
    return data


def _shown(value: object) -> str:
    from nkform.document.explain import describe

    return describe(value)


def _size(data: object) -> int:
    if isinstance(data, dict):
        return 1 + sum(map(_size, data.values()))
    return 1 + sum(map(_size, data)) if isinstance(data, list) else 1


def _in_order(problems: Iterable[Problem], sources: Sequence[Source]) -> list[Problem]:
    """By file and place, each thing said once."""
    rank = {source.name: index for index, source in enumerate(sources)}

    def place(problem: Problem) -> tuple[int, int, int]:
        at = problem.position
        return (rank.get(at.file, -1), at.line, at.column) if at else (-1, 0, 0)

    return sorted({(p.code, p.message, p.position): p for p in problems}.values(), key=place)


def _shortened(problems: list[Problem]) -> list[Problem]:
    more = len(problems) - MAX_PROBLEMS
    if more <= 0:
        return problems
    return [*problems[:MAX_PROBLEMS], Problem("NK0131", f"and at least {more} more problems")]
