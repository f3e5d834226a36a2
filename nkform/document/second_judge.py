"""The second judge: all of JSON Schema 2020-12, by the `jsonschema` package (4.10, Debian 12's, or newer).

It judges what our own interpreter (json_schema.py) does not know, and, where that is asked for, what it does know once
more. To import the package takes a tenth of a second, so that nothing does it before there is something to judge.

Nothing is ever fetched: a reference leads to a place in the same schema, or is an error. What a stranger's schema may
take of time and memory is not bounded here, but by the process that this runs in (nkform.bpf.judge). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from nkform.dataclass import dataclass
from nkform.document.json_schema import Link, Violation
from nkform.document.sentences import named, sentence, shown
from nkform.nearest import nearest
from nkform.problem import Path

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Formats = Mapping[str, Callable[[str], bool]]
"""By name, whether a text has the format."""

_NONE, _ONE, _SEVERAL, _NAMED = range(4)

KEYWORDS: Mapping[str, int] = {
    **dict.fromkeys(("not", "if", "then", "else", "items", "contains", "propertyNames", "contentSchema"), _ONE),
    **dict.fromkeys(("additionalProperties", "unevaluatedItems", "unevaluatedProperties"), _ONE),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SEVERAL),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas", "$defs"), _NAMED),
    **dict.fromkeys(("$schema", "$id", "$anchor", "$dynamicAnchor", "$ref", "$dynamicRef", "$comment"), _NONE),
    **dict.fromkeys(("type", "enum", "const", "required", "dependentRequired", "format", "pattern"), _NONE),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _NONE),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _NONE),
    **dict.fromkeys(("uniqueItems", "minContains", "maxContains", "contentEncoding", "contentMediaType"), _NONE),
    **dict.fromkeys(("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"), _NONE),
}
"""The keywords of JSON Schema 2020-12, and where in their values schemas stand.

`$vocabulary` is for those who make a JSON Schema of their own.
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a schema, and where in it."""

    path: Path
    message: str
    hint: str = ""
    of_key: bool = False


class SecondJudge:
    """Judges by one schema. `formats` are those that count: a schema with another one is at fault."""

    def __init__(self, schema: object, formats: Formats | None = None) -> None:
        self._schema = schema
        self._formats = formats or {}
        self._judge = _validator(schema, self._formats)

    def valid(self, value: object) -> bool:
        """Whether a value obeys the schema, which must be without fault."""
        return bool(self._judge.is_valid(value))

    def violations(self, value: object) -> Iterator[tuple[Violation, Sequence[Sequence[Violation]]]]:
        """What a value does not obey; and of alternatives that it fits none of, what it does not obey of each."""
        for error in self._judge.iter_errors(value):
            yield _violation(error), _alternatives(error)

    def faults(self) -> list[Fault]:
        """What is wrong with the schema itself: all of its form, or else what is found when it is tried."""
        from jsonschema import Draft202012Validator

        found = list(_misused(self._schema, self._formats))
        wrong = {fault.path for fault in found}
        for error in Draft202012Validator(Draft202012Validator.META_SCHEMA).iter_errors(self._schema):
            violation = _violation(error)
            if violation.path not in wrong:  # each vocabulary says the same
                wrong.add(violation.path)
                found.append(Fault(violation.path, f"{named(violation.path)} {sentence(violation)}"))
        return (
            found or list(self._astray()) or [Fault((), f"it {fault}") for fault in [self._lost(self._schema)] if fault]
        )

    def _astray(self) -> Iterator[Fault]:
        """Patterns that are none, references that lead nowhere or in circles."""
        yield from pattern_faults(self._schema)
        for schema, path in _subschemas(self._schema, ()):
            for keyword in ("$ref", "$dynamicRef"):
                if keyword in schema and (fault := self._lost({keyword: schema[keyword]})):
                    yield Fault((*path, keyword), f"`{keyword}` {fault}", "write #/$defs/NAME, with NAME under `$defs`")

    def _lost(self, schema: object) -> str:
        """What happens to whoever follows the references of a schema, if it is bad."""
        try:
            for _ in self._judge.evolve(schema=schema).iter_errors(None):  # all of it, whatever is wrong
                pass
        except RecursionError:
            return "refers to itself without end"
        except lost_references():
            return "leads to nothing in this schema, and nothing else is looked at"
        return ""


@cache
def lost_references() -> tuple[type[Exception], ...]:
    """What `jsonschema` raises where a reference leads nowhere."""
    if _has_registries():
        from referencing.exceptions import Unresolvable

        return (Unresolvable,)
    from jsonschema import RefResolutionError

    return (RefResolutionError,)


@cache
def _has_registries() -> bool:
    """Whether the package is 4.18 or newer: before, it followed references by itself."""
    from inspect import signature

    from jsonschema import Draft202012Validator

    return "registry" in signature(Draft202012Validator).parameters


def _validator(schema: object, formats: Formats) -> Any:
    """A validator that knows these formats and no others, and finds what the schema says and nothing elsewhere."""
    import jsonschema

    checker = jsonschema.FormatChecker(formats=())
    checker.checkers = {name: (_of_texts(check), ()) for name, check in formats.items()}
    found: dict[str, Any] = {}
    if _has_registries():
        from referencing import Registry

        found["registry"] = Registry()  # one that retrieves nothing
    else:
        found["resolver"] = _local_resolver(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=checker, **found)  # type: ignore[arg-type]


def _local_resolver(schema: object) -> Any:
    from jsonschema import RefResolutionError, RefResolver

    class Local(RefResolver):
        def resolve_remote(self, uri: str) -> Any:
            raise RefResolutionError(uri)

    return Local(schema.get("$id", "") if isinstance(schema, dict) else "", schema)  # type: ignore[arg-type]


def _of_texts(check: Callable[[str], bool]) -> Callable[[object], bool]:
    """Formats say nothing of what is no text."""
    return lambda value: not isinstance(value, str) or check(value)


def _violation(error: Any) -> Violation:
    """An error of `jsonschema` as one of ours; the keyword of the schema `false` is `false`."""
    link: Link | None = None
    for step in error.absolute_path:
        link = (link, step)
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    return Violation(link, error.validator or "false", schema, error.instance)


def _alternatives(error: Any) -> list[list[Violation]]:
    """By alternative, what a value does not obey of it."""
    found: dict[int, list[Violation]] = {}
    if error.validator in {"anyOf", "oneOf"}:
        for each in error.context:
            found.setdefault(each.schema_path[0], []).append(_violation(each))
    return list(found.values())


# --- schemas ----------------------------------------------------------------------------


def _subschemas(schema: object, path: Path) -> Iterator[tuple[Mapping[str, Any], Path]]:
    """All mappings that are schemas, with their paths: as far as they have the form of schemas."""
    if not isinstance(schema, Mapping):
        return
    yield schema, path
    for keyword, part in schema.items():
        where = (*path, keyword)
        form = KEYWORDS.get(keyword)
        if form == _ONE:
            yield from _subschemas(part, where)
        elif form == _SEVERAL and isinstance(part, list):
            for place, each in enumerate(part):
                yield from _subschemas(each, (*where, place))
        elif form == _NAMED and isinstance(part, Mapping):
            for name, each in part.items():
                yield from _subschemas(each, (*where, name))


def _misused(root: object, formats: Formats) -> Iterator[Fault]:
    """What JSON Schema would pass over without a word (unknown keywords, formats), and what leads out of the schema."""
    for schema, path in _subschemas(root, ()):
        for keyword, part in schema.items():
            where = (*path, keyword)
            if keyword not in KEYWORDS:
                near = nearest(keyword, KEYWORDS)
                hint = f"did you mean `{near}`?" if near else "it has those of draft 2020-12"
                yield Fault(where, f"JSON Schema has no keyword `{keyword[:60]}`", hint, of_key=True)
            elif keyword in {"$ref", "$dynamicRef"} and isinstance(part, str) and not part.startswith("#"):
                message = f"`{keyword}` leads out of this schema, and nothing else is looked at"
                yield Fault(where, message, "write #/$defs/NAME, with NAME under `$defs`")
            elif keyword == "$schema" and part != DIALECT:
                yield Fault(where, f"`$schema` must be {DIALECT}", "or leave it out")
            elif keyword == "$id" and path:
                yield Fault(where, "`$id` is for a whole schema, not for a part of one", of_key=True)
            elif keyword == "format" and isinstance(part, str) and part not in formats:
                near = nearest(part, formats)
                hint = f"did you mean {near}?" if near else "known here: " + ", ".join(formats)
                yield Fault(where, f"`format` is {shown(part)}, which is no format of a parameter", hint)


def pattern_faults(root: object) -> Iterator[Fault]:
    """The patterns of a schema that Python's regular expressions do not read."""
    for schema, path in _subschemas(root, ()):
        if fault := _pattern_fault(schema.get("pattern", "")):
            yield Fault((*path, "pattern"), f"`pattern` is no pattern: {fault}")
        for pattern in schema.get("patternProperties", ()):
            if fault := _pattern_fault(pattern):
                where = (*path, "patternProperties", pattern)
                yield Fault(where, f"a key of `patternProperties` is no pattern: {fault}", of_key=True)


def _pattern_fault(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return ""
