"""A validator for the part of JSON Schema that nkform's schemas keep to. It says all that is wrong, and where.

The schema is the truth; this compiles it to closures, in a millisecond, and checks a spec of a thousand devices in
twenty. It takes the keywords on which draft-07 and 2020-12 agree and refuses to compile any other, so that none is ever
silently ignored. That it judges like the `jsonschema` package is held by the tests, and by `nkform validate --strict`.
Schemas of others, which may say anything, go through `knows` first, and to second_judge.py if it says no. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from nkform.problem import Path

Schema = Mapping[str, Any]


Link = tuple[Any, str | int]
"""The end of a path: (the Link before or None, step). Only an error makes a path of it."""


class Violation(NamedTuple):
    """A keyword that a value does not obey. `key` is set if it is about a key of the value, there or missing."""

    link: Link | None
    keyword: str
    schema: Schema
    value: object
    key: str = ""

    @property
    def path(self) -> Path:
        steps: list[str | int] = []
        link = self.link
        while link:
            link, step = link
            steps.append(step)
        return tuple(reversed(steps))


Found = list[Violation]
Check = Callable[[object, Link | None, Found], None]

_ANNOTATIONS = frozenset({"$schema", "$id", "$defs", "$comment", "title", "description", "examples", "default"})

_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list,),
    "null": (type(None),),
}


def compile_schema(schema: Schema) -> Check:
    """A function that adds the violations of a value to a list. Raises ValueError for an unknown keyword."""
    return _Compiler(schema).compile(schema)


def knows(schema: object) -> bool:
    """Whether a stranger's schema is valid and made of nothing but what is judged here as JSON Schema 2020-12 says.

    A reference is not: those here stand alone and lead to definitions of the root.
    """
    if not isinstance(schema, dict) or "$ref" in schema or {"enum", "const"} <= schema.keys():
        return False
    if ("if" in schema) != ("then" in schema):
        return False
    return all(keyword in _FORMS and _FORMS[keyword](part) for keyword, part in schema.items())


class _Compiler:
    def __init__(self, root: Schema) -> None:
        self.root = root
        self.references: dict[str, Check] = {}

    def compile(self, schema: Schema) -> Check:
        if "$ref" in schema:
            return self.reference(schema["$ref"])
        if unknown := schema.keys() - _ANNOTATIONS - _KEYWORDS.keys():
            raise ValueError(f"schema keywords that are not supported: {sorted(unknown)}")
        keywords = [keyword for keyword in schema if keyword in _KEYWORDS]
        if len(keywords) > 1:
            keywords.sort(key=_ORDER.__getitem__)
        makers = dict.fromkeys([_KEYWORDS[keyword] for keyword in keywords])
        checks = [maker(self, schema) for maker in makers]
        if len(checks) == 1:
            return checks[0]
        typed = "type" in schema

        def check_all(value: object, link: Link | None, found: Found) -> None:
            before = len(found)
            for check in checks:
                check(value, link, found)
                if typed and len(found) != before and found[before].keyword == "type":
                    return

        return check_all

    def reference(self, name: str) -> Check:
        """The check of a definition, one for all who refer to it. A definition cannot contain itself."""
        if name not in self.references:
            self.references[name] = self.compile(self.root["$defs"][name.removeprefix("#/$defs/")])
        return self.references[name]


_Maker = Callable[[_Compiler, Schema], Check]


def _type(_: _Compiler, schema: Schema) -> Check:
    names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    allowed = frozenset(kind for name in names for kind in _TYPES[name])
    whole = "integer" in names and "number" not in names

    def check(value: object, link: Link | None, found: Found) -> None:
        if type(value) not in allowed and not (whole and type(value) is float and value.is_integer()):
            found.append(Violation(link, "type", schema, value))

    return check


def _enum(_: _Compiler, schema: Schema) -> Check:
    allowed = schema["enum"] if "enum" in schema else [schema["const"]]

    def same(value: object, other: object) -> bool:
        return value == other and isinstance(value, bool) == isinstance(other, bool)

    def check(value: object, link: Link | None, found: Found) -> None:
        for other in allowed:
            if same(value, other):
                return
        found.append(Violation(link, "enum", schema, value))

    return check


def _properties(compiler: _Compiler, schema: Schema) -> Check:
    """`properties` and `additionalProperties` of the same schema."""
    known = {name: compiler.compile(part) for name, part in schema.get("properties", {}).items()}
    more = schema.get("additionalProperties", True)
    rest = compiler.compile(more) if isinstance(more, Mapping) else None

    def check(value: object, link: Link | None, found: Found) -> None:
        if type(value) is not dict:
            return
        for key, item in value.items():
            part = known.get(key, rest)
            if part is not None:
                part(item, (link, key), found)
            elif more is False and key not in known:
                found.append(Violation(link, "additionalProperties", schema, item, key))

    return check


def _property_names(compiler: _Compiler, schema: Schema) -> Check:
    name = compiler.compile(schema["propertyNames"])

    def check(value: object, link: Link | None, found: Found) -> None:
        if type(value) is dict:
            for key in value:
                wrong: Found = []
                name(key, link, wrong)
                found.extend(v._replace(keyword="propertyNames", key=key) for v in wrong[:1])

    return check


def _required(_: _Compiler, schema: Schema) -> Check:
    keys = schema["required"]

    def check(value: object, link: Link | None, found: Found) -> None:
        if type(value) is dict:
            found.extend(Violation(link, "required", schema, value, key) for key in keys if key not in value)

    return check


def _items(compiler: _Compiler, schema: Schema) -> Check:
    item = compiler.compile(schema["items"])

    def check(value: object, link: Link | None, found: Found) -> None:
        if type(value) is list:
            for index, part in enumerate(value):
                item(part, (link, index), found)

    return check


def _range(_: _Compiler, schema: Schema) -> Check:
    """`minimum` and `maximum` of the same schema."""
    low, high = schema.get("minimum", float("-inf")), schema.get("maximum", float("inf"))
    keyword = "minimum" if "minimum" in schema else "maximum"

    def check(value: object, link: Link | None, found: Found) -> None:
        if type(value) in (int, float) and not low <= value <= high:
            found.append(Violation(link, keyword, schema, value))

    return check


def _size(kind: type, least: str, most: str) -> _Maker:
    def make(_: _Compiler, schema: Schema) -> Check:
        low, high = schema.get(least, 0), schema.get(most, float("inf"))
        keyword = least if least in schema else most

        def check(value: object, link: Link | None, found: Found) -> None:
            if type(value) is kind and not low <= len(value) <= high:  # type: ignore[arg-type]
                found.append(Violation(link, keyword, schema, value))

        return check

    return make


def _pattern(_: _Compiler, schema: Schema) -> Check:
    search: Callable[[str], object] | None = None

    def check(value: object, link: Link | None, found: Found) -> None:
        nonlocal search
        if type(value) is not str:
            return
        if search is None:  # most patterns of a schema meet no text in a run
            search = re.compile(schema["pattern"]).search
        if not search(value):
            found.append(Violation(link, "pattern", schema, value))

    return check


def _if(compiler: _Compiler, schema: Schema) -> Check:
    condition, then = compiler.compile(schema["if"]), compiler.compile(schema["then"])
    otherwise = compiler.compile(schema["else"]) if "else" in schema else None

    def check(value: object, link: Link | None, found: Found) -> None:
        failed: Found = []
        condition(value, link, failed)
        if not failed:
            then(value, link, found)
        elif otherwise is not None:
            otherwise(value, link, found)

    return check


_LENGTH = _size(str, "minLength", "maxLength")
_COUNT = _size(list, "minItems", "maxItems")
_KEYS = _size(dict, "minProperties", "maxProperties")

_KEYWORDS: dict[str, _Maker] = {
    "type": _type,
    "enum": _enum,
    "const": _enum,
    "properties": _properties,
    "additionalProperties": _properties,
    "propertyNames": _property_names,
    "required": _required,
    "items": _items,
    "minimum": _range,
    "maximum": _range,
    "minLength": _LENGTH,
    "maxLength": _LENGTH,
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "minProperties": _KEYS,
    "maxProperties": _KEYS,
    "pattern": _pattern,
    "if": _if,
    "then": _if,
    "else": _if,
}
"""Each keyword's maker, `type` first. Keywords with the same maker are checked together."""
_ORDER = {keyword: number for number, keyword in enumerate(_KEYWORDS)}


# --- what `knows` knows -----------------------------------------------------------------


def _is_size(part: object) -> bool:
    return type(part) is int and part >= 0


def _is_bound(part: object) -> bool:
    return type(part) is int or (type(part) is float and abs(part) < float("inf"))


def _is_plain(part: object) -> bool:
    """A value that is equal to the same ones here and there: a list could hold `1` beside `true`."""
    return part is None or isinstance(part, str | bool) or _is_bound(part)


def _is_type(part: object) -> bool:
    names = part if isinstance(part, list) else [part]
    return bool(names) and all(isinstance(n, str) and n in _TYPES for n in names) and len(set(names)) == len(names)


def _are_keys(part: object) -> bool:
    return isinstance(part, list) and all(isinstance(key, str) for key in part) and len(set(part)) == len(part)


def _is_text(part: object) -> bool:
    return isinstance(part, str)


def _are_known(part: object) -> bool:
    return isinstance(part, dict) and all(map(knows, part.values()))


_FORMS: dict[str, Callable[[object], bool]] = {
    "type": _is_type,
    "enum": lambda part: isinstance(part, list) and all(map(_is_plain, part)),
    "const": _is_plain,
    "properties": _are_known,
    "additionalProperties": lambda part: isinstance(part, bool) or knows(part),
    "propertyNames": knows,
    "required": _are_keys,
    "items": knows,
    "minimum": _is_bound,
    "maximum": _is_bound,
    "minLength": _is_size,
    "maxLength": _is_size,
    "minItems": _is_size,
    "maxItems": _is_size,
    "minProperties": _is_size,
    "maxProperties": _is_size,
    "pattern": _is_text,
    "if": knows,
    "then": knows,
    "$comment": _is_text,
    "title": _is_text,
    "description": _is_text,
    "examples": lambda part: isinstance(part, list),
    "default": lambda _: True,
}
"""For keywords that are judged here, and annotations, whether a value is one that is valid and judged here."""
