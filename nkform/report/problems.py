"""Problems as text for people and as data for programs.

    error[NK0201]: there is no key `mtuu` in a device
      --> spec.yaml:7:5
       |
     7 |     mtuu: 1500
       |     ^
      hint: did you mean `mtu`?

What comes from a spec is shown so that a terminal cannot be harmed by it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nkform.problem import Position, Problem
from nkform.report.colour import Paint

WIDTH = 100
"""Columns of a source line that are shown, around the caret if there are more."""

_BEFORE = 60
"""Columns of a long line that are shown before the caret."""


def render(problems: Iterable[Problem], colour: bool = False) -> str:
    """The problems one after another, with an empty line between them."""
    paint = Paint(colour)
    return "\n\n".join(_one(problem, paint) for problem in problems)


def as_dicts(problems: Iterable[Problem]) -> list[dict[str, Any]]:
    """The problems as JSON-able data; what is not known is null."""
    return [
        {
            "severity": p.severity,
            "code": p.code,
            "message": p.message,
            "path": list(p.path) if p.path is not None else None,
            "file": p.position.file if p.position else None,
            "line": p.position.line if p.position else None,
            "column": p.position.column if p.position else None,
            "hint": p.hint or None,
        }
        for p in problems
    ]


def harmless(text: str) -> str:
    """The text with everything that a terminal might obey, or hide, spelled out."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _one(problem: Problem, paint: Paint) -> str:
    tone = {"error": "red", "warning": "yellow"}.get(problem.severity, "cyan")
    lines = [f"{paint(f'{problem.severity}[{problem.code}]', tone)}: {harmless(problem.message)}"]
    if problem.position is not None:
        lines += _source(problem.position, paint)
    if problem.hint:
        lines.append(f"  {paint('hint', 'cyan')}: {_indented(problem.hint)}")
    return "\n".join(lines)


def _indented(text: str) -> str:
    """A text that may have several lines."""
    return "\n        ".join(harmless(line) for line in text.split("\n"))


def _source(position: Position, paint: Paint) -> list[str]:
    place = f"  {paint('-->', 'cyan')} {harmless(position.file)}:{position.line}:{position.column}"
    if not position.text.strip():
        return [place]
    text, caret = _window(position.text, position.column - 1)
    number = str(position.line)
    bar = paint("|", "cyan")
    margin = " " * (len(number) + 3)
    return [
        place,
        f"{margin}{bar}",
        f"  {paint(number, 'cyan')} {bar} {text}",
        f"{margin}{bar} {' ' * caret}{paint('^', 'red')}",
    ]


def _window(line: str, index: int) -> tuple[str, int]:
    """The part of a line around a character, as it is shown, and the column of that character in it."""
    index = min(index, len(line))
    start = max(0, index - _BEFORE) if len(line) > WIDTH else 0
    end = start + WIDTH
    before = ("…" if start else "") + _shown(line[start:index])
    after = _shown(line[index:end]) + ("…" if end < len(line) else "")
    return (before + after).rstrip(), _columns(before)


def _shown(text: str) -> str:
    return harmless(text.replace("\t", " "))


def _escape(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text (PEP 383)
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _columns(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(c) else 2 if east_asian_width(c) in "WF" else 1 for c in text)
