"""Judges parameters by the JSON Schemas of a template's manifest, as far as these say more than a parameter's kind.

A manifest may say anything that JSON Schema 2020-12 knows, and who wrote it is not trusted: patterns that take for
ever, references in circles and the like are met in a child, within limits. There our own interpreter judges what it
knows, and the `jsonschema` package all else, which takes a tenth of a second to import and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

from nkform.bpf.parameters import KINDS, Kind, RefusedError
from nkform.kernel.child import Answer, ChildError, Limits, Worker
from nkform.model import Program
from nkform.problem import NkformError, Path, Position, Problem

if TYPE_CHECKING:
    from nkform.bpf.template import Template
    from nkform.document.json_schema import Found

LIMITS = Limits(seconds=20, cpu=5, memory=256 << 20, output=16 << 20)
"""Of looking through one manifest, and of judging all that a spec gives to one template."""

MOST = 20
"""Violations of one schema that are told."""

FORMATS = tuple(name for name in KINDS if name not in {"integer", "boolean", "enumeration"})
"""Formats that a text can have, in any part of a schema."""

OURS = frozenset({"role", "map"})
"""What a manifest says of a parameter that is not JSON Schema's."""

Schemas = Mapping[str, Mapping[str, Any]]
"""By parameter. Those are left out of which the parameter's kind says all."""

_OF_KIND = frozenset({
    *OURS, "description", "type", "format", "enum", "minimum", "maximum", "minItems", "maxItems", "items", "default",
    "examples",
})  # fmt: skip


def schemas(parameters: Mapping[str, Mapping[str, Any]]) -> Schemas:
    """The schemas of a manifest's parameters that say more than their kinds."""
    return {
        name: {key: part for key, part in raw.items() if key not in OURS}
        for name, raw in parameters.items()
        if _says_more(raw) or _says_more(raw.get("items") or {})
    }


def rules(schema: Mapping[str, Any]) -> str:
    """A parameter's schema for people, without what its manual says of it otherwise."""
    return json.dumps({key: part for key, part in schema.items() if key not in {"description", "default", "examples"}})


def _says_more(raw: Mapping[str, Any]) -> bool:
    return not raw.keys() <= _OF_KIND or (raw["type"] != "string" and "enum" in raw if "type" in raw else False)


class Judge:
    """Its child is forked when there is something to judge. Close it."""

    def __init__(self) -> None:
        self._worker = Worker(_serve, LIMITS)

    def close(self) -> None:
        self._worker.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def faults(self, manifest: File, some: Schemas) -> list[Problem]:
        """What is wrong with the schemas of a manifest and with their defaults; paths begin at its top."""
        if not some:
            return []
        return [
            Problem("NK0712" if path[:1] == ["default"] else "NK0702", message, ("parameters", name, *path), hint=hint)
            for name, path, message, hint in self._ask(manifest, some, None)
        ]

    def programs(
        self, templates: Mapping[str, Template], programs: Sequence[Program]
    ) -> Iterator[tuple[Program, Problem]]:
        """What the parameters of programs do not obey; paths begin at the parameters.

        They are of their kinds. Raises NkformError where that takes too much.
        """
        by_template: dict[str, list[Program]] = {}
        for program in programs:
            if templates[program.template].schemas:
                by_template.setdefault(program.template, []).append(program)
        for name, some in by_template.items():
            manifest, more = templates[name].manifest, templates[name].schemas
            given = [json.dumps({n: value for n, value in each.params.items() if n in more}) for each in some]
            each_once = list(dict.fromkeys(given))
            answers = self._ask(manifest, more, [json.loads(text) for text in each_once])
            found = dict(zip(each_once, answers, strict=True))
            for program, text in zip(some, given, strict=True):
                for parameter, path, message, hint in found[text]:
                    yield program, Problem("NK0712", message, (parameter, *path), hint=hint)

    def _ask(self, manifest: File, some: Schemas, params: Sequence[Mapping[str, object]] | None) -> Any:
        try:
            answer, _ = self._worker.ask(json.dumps([some, params]).encode())
        except ChildError as error:
            how = f"failed: {error}" if error.reason == "failed" else str(error)
            said = f"the schemas of the parameters of {manifest.parent.name} are no use: to judge by them {how}"
            hint = "they need simpler patterns, fewer references or shorter lists"
            hint = "install python3-jsonschema" if "No module named" in how else hint
            raise NkformError(Problem("NK0767", said, position=Position(str(manifest), 1, 1), hint=hint)) from None
        return json.loads(answer)


# --- what the child does ----------------------------------------------------------------

_Told = tuple[str, Path, str, str]
"""A parameter, a path, what is wrong, what to do."""


def _serve(request: bytes) -> Answer:
    some, params = json.loads(request)
    if params is None:
        return json.dumps([told for name, schema in some.items() for told in _faults(name, schema)]).encode(), ()
    checks = {name: _check(schema) for name, schema in some.items()}
    answers = [
        [(name, *told) for name, value in given.items() for told in _wrong(checks[name], value, f"`{name}`")]
        for given in params
    ]
    return json.dumps(answers).encode(), ()


_Check = Callable[[object], Iterator[tuple[Path, str, str]]]
"""What a value does not obey: its path, the rest of a sentence about it, what to do."""


def _check(schema: Mapping[str, Any]) -> _Check:
    from nkform.document import sentences
    from nkform.document.json_schema import compile_schema, knows

    if knows(schema):
        own = compile_schema(schema)

        def by_own(value: object) -> Iterator[tuple[Path, str, str]]:
            found: Found = []
            own(value, None, found)
            for violation in found:
                yield violation.path, sentences.sentence(violation), sentences.hint(violation, ())

        return by_own
    from nkform.document.second_judge import SecondJudge

    judge = SecondJudge(schema, _formats())

    def by_second(value: object) -> Iterator[tuple[Path, str, str]]:
        for violation, alternatives in judge.violations(value):
            yield violation.path, sentences.sentence(violation), sentences.hint(violation, alternatives)

    return by_second


def _wrong(check: _Check, value: object, noun: str) -> list[tuple[Path, str, str]]:
    found: dict[tuple[Path, str], str] = {}
    try:
        for path, said, hint in check(value):
            item = "an item of " * bool(path and isinstance(path[-1], int))
            found.setdefault((path, f"{item}{noun} {said}"), hint)
            if len(found) == MOST:
                break
    except RecursionError:
        found[(), f"{noun} cannot be judged: its schema refers to itself without end"] = "see the template's manifest"
    return [(path, message, hint) for (path, message), hint in found.items()]


def _faults(name: str, schema: Mapping[str, Any]) -> Iterator[_Told]:
    from nkform.document.json_schema import knows
    from nkform.document.second_judge import SecondJudge, pattern_faults

    faults = list(pattern_faults(schema)) if knows(schema) else SecondJudge(schema, _formats()).faults()
    for fault in faults[:MOST]:
        yield name, fault.path, f"in the schema of the parameter `{name}`: {fault.message}", fault.hint
    if not faults and "default" in schema and not isinstance(schema["default"], dict):
        for path, message, hint in _wrong(_check(schema), schema["default"], f"the default of `{name}`"):
            yield name, ("default", *path), message, hint


def _formats() -> Mapping[str, Callable[[str], bool]]:
    def has(name: str) -> Callable[[str], bool]:
        def check(text: str) -> bool:
            try:
                KINDS[name](Kind(name), text)
            except RefusedError:
                return False
            return True

        return check

    return {name: has(name) for name in FORMATS}
