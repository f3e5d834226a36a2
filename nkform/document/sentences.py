"""What a value does not obey, as the rest of a sentence that begins with its name: for schemas that anybody can write.

explain.py says more of the schemas that nkform itself has. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nkform.document.explain import NOUNS, describe
from nkform.document.json_schema import Violation
from nkform.problem import Path

MOST = 60
"""Characters of a value that a message shows."""


def named(path: Path) -> str:
    """What a message calls a place in a schema: its last key, or an item of it."""
    key = next((step for step in reversed(path) if isinstance(step, str)), None)
    if key is None:
        return "the schema"
    return f"an item of `{key[:MOST]}`" if isinstance(path[-1], int) else f"`{key[:MOST]}`"


def shown(value: object) -> str:
    """A value as a message has room for it."""
    text = describe(value)
    return text if len(text) <= 2 * MOST else text[:MOST] + "…"


def sentence(violation: Violation) -> str:
    """What is wrong, in words."""
    say = _WORDS.get(violation.keyword)
    return say(violation.schema, violation.value) if say else f"does not obey `{violation.keyword}`"


def hint(violation: Violation, alternatives: Sequence[Sequence[Violation]]) -> str:
    """What to do: what each alternative asks for, or what the author of the schema says of a pattern and the like."""
    if alternatives:
        said = dict.fromkeys(f"it {sentence(each[0])}" for each in alternatives[:4])
        return "; or ".join(said) if len(alternatives) <= 4 else "; or ".join([*said, "more"])
    if violation.keyword == "oneOf":
        return "it fits several of them"
    description = violation.schema.get("description")
    return description.strip()[:200] if isinstance(description, str) and violation.keyword in _DESCRIBED else ""


_DESCRIBED = frozenset({"pattern", "not", "contains"})

_Say = Callable[[Mapping[str, Any], Any], str]


def _type(schema: Mapping[str, Any], value: object) -> str:
    wanted = schema["type"]
    nouns = [NOUNS.get(each, "nothing") for each in ([wanted] if isinstance(wanted, str) else wanted)]
    return f"must be {' or '.join(nouns)}, not {shown(value)}"


def _enum(schema: Mapping[str, Any], value: object) -> str:
    allowed = schema["enum"] if "enum" in schema else [schema["const"]]
    words = [str(each) if isinstance(each, str) else shown(each) for each in allowed[:10]]
    choice = ", ".join(words[:-1]) + " or " + words[-1] if len(words) > 1 else "".join(words)
    if len(allowed) > 10 or len(choice) > 2 * MOST:
        choice = f"one of {len(allowed)} values"
    return f"must be {choice}, not {shown(value)}" if allowed else "is not possible: no value is"


def _between(least: str, most: str, noun: str = "", count: Callable[[Any], object] | None = None) -> _Say:
    """A number, or the number of its parts, must be within bounds."""

    def say(schema: Mapping[str, Any], value: object) -> str:
        low, high = schema.get(least), schema.get(most)
        bounds = f"between {low} and {high}" if low is not None and high is not None else f"at least {low}"
        bounds = f"at most {high}" if low is None else bounds
        return f"must have {bounds} {noun}, not {count(value)}" if count else f"must be {bounds}, not {shown(value)}"

    return say


def _compared(words: str, keyword: str) -> _Say:
    return lambda schema, value: f"must be {words} {schema[keyword]}, not {shown(value)}"


def _pattern(schema: Mapping[str, Any], value: object) -> str:
    return f"must match the pattern {schema['pattern'][:200]}, which {shown(value)} does not"


def _format(schema: Mapping[str, Any], value: object) -> str:
    return f"must be of the format {schema['format']}, not {shown(value)}"


def _unique(_: Mapping[str, Any], value: Any) -> str:
    twice = next((item for place, item in enumerate(value[:1000]) if item in value[:place]), None)
    return "has an item twice" + (f": {shown(twice)}" if twice is not None else "")


def _contains(schema: Mapping[str, Any], _: object) -> str:
    least, most = schema.get("minContains", 1), schema.get("maxContains")
    bounds = f"at least {least}" + (f" and at most {most}" if most is not None else "")
    return f"must have {bounds} of the items that its schema asks for (`contains`)"


def _one(schema: Mapping[str, Any], _: object) -> str:
    return f"must fit exactly one of the {len(schema['oneOf'])} schemas of `oneOf`"


def _any(schema: Mapping[str, Any], _: object) -> str:
    return f"fits none of the {len(schema['anyOf'])} schemas of `anyOf`"


def _not(_: Mapping[str, Any], value: object) -> str:
    return f"must not be {shown(value)} (`not`)"


_RANGE = _between("minimum", "maximum")
_LENGTH = _between("minLength", "maxLength", "characters", len)
_COUNT = _between("minItems", "maxItems", "items", len)
_KEYS = _between("minProperties", "maxProperties", "keys", len)

_WORDS: Mapping[str, _Say] = {
    "type": _type,
    "enum": _enum,
    "const": _enum,
    "minimum": _RANGE,
    "maximum": _RANGE,
    "exclusiveMinimum": _compared("more than", "exclusiveMinimum"),
    "exclusiveMaximum": _compared("less than", "exclusiveMaximum"),
    "multipleOf": _compared("a multiple of", "multipleOf"),
    "minLength": _LENGTH,
    "maxLength": _LENGTH,
    "minItems": _COUNT,
    "maxItems": _COUNT,
    "minProperties": _KEYS,
    "maxProperties": _KEYS,
    "pattern": _pattern,
    "format": _format,
    "uniqueItems": _unique,
    "contains": _contains,
    "minContains": _contains,
    "maxContains": _contains,
    "oneOf": _one,
    "anyOf": _any,
    "not": _not,
    "false": lambda _, value: f"cannot be here: {shown(value)}",
}
