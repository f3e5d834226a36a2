"""What the YAML parser complains of, said so that a newcomer can act on it. Pure."""

from __future__ import annotations

import re
from typing import Any

from nkform.document.fault import Fault, split_lines

# What libyaml and PyYAML's own parser say (a part of it) → message, hint. The first that fits is taken.
_SAYINGS: tuple[tuple[str, str, str], ...] = (
    ("tab character", "a tab in the indentation", "indent with spaces"),
    (
        "mapping values are not allowed",
        "a colon where no key can stand",
        "the line above may lack its colon; text that contains a colon and a space needs quotes",
    ),
    (
        "could not find expected ':'",
        "a key without a colon behind it",
        "write key: value, with a space after the colon",
    ),
    (
        "did not find expected key",
        "this line fits neither the mapping above it nor its parents",
        "keys of one mapping start in the same column, and text after a closing quote is not allowed",
    ),
    (
        "expected '-' indicator",
        "a list item without its dash, or a line whose indentation fits no list above",
        "items of one list start with a dash in the same column",
    ),
    (
        "block sequence entries are not allowed",
        "a list item where no list can start",
        "put the dash on a line of its own below the key",
    ),
    (
        "mapping keys are not allowed",
        "a key where none can stand",
        "check the indentation of this line and of the line above",
    ),
    (
        "expected ',' or ']'",
        "a list in [ ] that is not closed, or two items without a comma",
        "separate the items by commas and close the list with ]",
    ),
    (
        "expected ',' or '}'",
        "a mapping in { } that is not closed, or two entries without a comma",
        "separate the entries by commas and close the mapping with }",
    ),
    ("unexpected end of stream", "a quote that is never closed", "close it"),
    ("document separator", "a quote that is never closed", "close it"),
    ("document indicator", "a quote that is never closed", "close it"),
    (
        "unknown escape character",
        "an unknown escape in double quotes",
        "write the backslash twice, or take single quotes, in which it means itself",
    ),
    (
        "hexdecimal number",
        "an escape in double quotes without its hexadecimal digits",
        "write the backslash twice",
    ),
    ("invalid Unicode character", "an escape in double quotes that is no character", ""),
    ("undefined tag handle", "an unknown tag", "leave it out; text that begins with ! needs quotes"),
    (
        "alphabetic or numeric character",
        "a & or * without a name behind it",
        "text that begins with & or * needs quotes",
    ),
    ("expected node content", "a value is missing here", "text that begins with , ] or } needs quotes"),
    (
        "expected <document start>",
        "something stands behind the end of the document",
        "check the indentation of this line",
    ),
    (
        "expected <block end>",
        "this line fits neither the mapping above it nor its parents",
        "check its indentation",
    ),
    (
        "expected chomping or indentation",
        "an error in the header of a block of text",
        "write | or > and nothing else",
    ),
    ("maximum", "too much nesting", ""),
)


def syntax_fault(error: Any, text: str) -> Fault:
    """The fault that a yaml.YAMLError reports."""
    if bad := _forbidden(text):
        return bad
    said = str(getattr(error, "problem", None) or getattr(error, "reason", None) or error)
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return Fault("NK0104", f"this is not YAML: {said[:200]}", 1, 1)
    line, column = mark.line + 1, mark.column + 1
    if "cannot start any token" in said:
        message, hint = _bad_start(_char(text, line, column))
    else:
        message, hint = next(((m, h) for part, m, h in _SAYINGS if part in said), (f"this is not YAML: {said}", ""))
    if _char(text, line, column - 1) == "$" and _char(text, line, column) == "{":
        hint = 'within [ ] and { } a variable needs quotes: "${name}"'
    start = getattr(error, "context_mark", None)
    if start is not None and start.line != mark.line and "closed" in message:
        if not _char(text, line, column):
            line, column = start.line + 1, start.column + 1
        else:
            message += f" (it opens in line {start.line + 1})"
    elif not _char(text, line, column) and "expected node content" in said:
        message, hint = "the file ends where a value is expected", "close every [ and {"
    return Fault("NK0104", message, line, column, hint)


def _forbidden(text: str) -> Fault | None:
    """The first character that YAML 1.1 and libyaml do not allow (https://yaml.org/spec/1.1/#c-printable)."""
    pattern = "[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
    bad = re.search(pattern, text)
    if bad is None:
        return None
    before = split_lines(text[: bad.start()])
    hint = 'take it out; within double quotes it can be written as an escape, such as "\\x1b"'
    message = f"the character U+{ord(bad[0]):04X} is not allowed in YAML"
    return Fault("NK0103", message, len(before), len(before[-1]) + 1, hint)


def _bad_start(char: str) -> tuple[str, str]:
    if char == "\t":
        return "a tab in the indentation", "indent with spaces"
    if char in {"@", "`", "%"}:
        return f"text cannot begin with {char}", "put it in quotes"
    return "a character that cannot stand here", "put the text in quotes"


def _char(text: str, line: int, column: int) -> str:
    """The character at a place, or nothing."""
    lines = split_lines(text)
    return lines[line - 1][column - 1 : column] if 0 < line <= len(lines) and column > 0 else ""
