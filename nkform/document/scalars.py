"""What a plain (unquoted) YAML scalar means, and what to say when it meant something else.

The rules are those of YAML 1.2's core schema, without its surprises: `true`, `false`, `null`, `~`, decimal and
hexadecimal integers without leading zeros, and decimal fractions. Everything else is text: `yes`, `0777`, `12:30`,
`1_000`, dates. Where a boolean or a number was meant, the error says what other YAML readers would have made of it.
Pure.
"""

from __future__ import annotations

import re

Scalar = str | int | float | bool | None

_WORDS: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,19})")
_HEX = re.compile(r"0x[0-9A-Fa-f]{1,16}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,3})?")
_MAYBE_NUMBER = frozenset("0123456789+-.")

_YES = frozenset({"yes", "y", "on", "true"})
_NO = frozenset({"no", "n", "off", "false"})
_OCTAL = r"([-+]?)0o?([0-7]+)"
_LEADING_ZERO = r"[-+]?0[0-9]+"
_SEXAGESIMAL = r"[-+]?[0-9]+(?::[0-5]?[0-9])+"
_UNDERSCORED = r"[-+]?[0-9][0-9_]*_[0-9_]*"
_WITH_UNIT = r"([0-9]+)\s*([kKmMgG]?i?[bB]?)"
_FACTORS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def resolve(text: str) -> Scalar:
    """The value of a plain scalar. A fraction that is a whole number is an integer, as in JSON Schema."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _MAYBE_NUMBER:
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _HEX.fullmatch(text):
        return int(text, 16)
    if _FLOAT.fullmatch(text) and len(text) <= 40:
        number = float(text)
        if abs(number) < 2**53:
            return int(number) if number.is_integer() else number
    return text


def quoted(text: str) -> str:
    """The text as a double-quoted YAML scalar, shortened, to show in a message."""
    if len(text) > 60:
        text = text[:57] + "…"
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def why_not_boolean(raw: str, plain: bool) -> str:
    """The hint for a scalar where true or false was expected."""
    word = raw.lower()
    if word in _YES | _NO:
        meant = "true" if word in _YES else "false"
        if word == meant and not plain:
            return f"without quotes: {meant}"
        if word == meant:
            return f"in lower case: {meant}"
        return f"YAML 1.1 would have read {raw} as {meant}, YAML 1.2 reads it as text; write {meant}"
    if raw in {"0", "1"}:
        return "write " + ("true" if raw == "1" else "false")
    return "write true or false"


def why_not_number(raw: str, plain: bool) -> str:
    """The hint for a scalar where an integer was expected."""
    text = raw.strip()
    if not plain and isinstance(resolve(text), int) and text:
        return f"in quotes it is text; write {text}"
    if match := re.fullmatch(_OCTAL, text):
        octal = int(match[1] + match[2], 8) if len(match[2]) < 30 else 0
        decimal = (match[1] + match[2]).lstrip("0") or "0"
        choice = decimal if decimal == str(octal) else f"{decimal} or {octal}"
        return f"YAML 1.1 would have read {raw} as octal, that is {octal}; write {choice}"
    if re.fullmatch(_LEADING_ZERO, text):
        return f"leave the leading zeros out: {text.lstrip('+-0') or '0'}"
    if re.fullmatch(_SEXAGESIMAL, text) and len(text) < 30:
        return f"YAML 1.1 would have read {raw} as a number to base 60; write {_base60(text)}"
    if re.fullmatch(_UNDERSCORED, text):
        return f"write it without underscores: {text.replace('_', '')}"
    match = re.fullmatch(_WITH_UNIT, text)
    if match and match[2] and len(match[1]) < 16:
        factor = _FACTORS.get(match[2].lower().rstrip("b").rstrip("i"), 1)
        return f"units are not understood; write {int(match[1]) * factor}"
    if text.lower() in _YES | _NO:
        number = 1 if text.lower() in _YES else 0
        return f"YAML 1.1 would have read {raw} as a boolean; where a number is meant write {number}"
    if isinstance(resolve(text), float):
        return "fractions are not possible here"
    return ""


def why_not_text(raw: str, value: Scalar) -> str:
    """The hint for a plain scalar where text was expected: what YAML made of it, and the quotes that prevent it."""
    what = "a boolean" if isinstance(value, bool) else "nothing (null)" if value is None else "a number"
    if raw == "":
        return "nothing stands here; write the text, or leave the key out"
    return f"without quotes YAML reads {raw} as {what}; write {quoted(raw)}"


def _base60(text: str) -> int:
    sign = -1 if text[0] == "-" else 1
    total = 0
    for part in text.lstrip("+-").split(":"):
        total = total * 60 + int(part)
    return sign * total
