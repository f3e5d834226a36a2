"""The one place that prints: what nkform writes to its standard streams is text that no terminal obeys.

Names out of the kernel are bytes that a workload has chosen, and specs, manifests and templates may come from anybody.
Whatever of it is no printable character is spelled out here, control characters and those that turn the direction of
text among them. Colours are nkform's own: they are marked by a number that nobody else knows (report/colour.py).
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable
from typing import IO, Any, BinaryIO, cast

from nkform.kernel import process
from nkform.kernel.standard_streams import Output, open_all
from nkform.report.colour import ESCAPE, Paint
from nkform.report.problems import harmless


class Harmless:
    """A text stream that spells out what is not printable."""

    def __init__(self, stream: IO[str], mark: str) -> None:
        self._stream = stream
        self._mark = mark
        self._codes = re.compile(f"({re.escape(mark)}[0-9;]+m)")

    def write(self, text: str) -> int:
        self._stream.write(text if _is_plain(text) else self._spelled(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def _spelled(self, text: str) -> str:
        if self._mark not in text:
            return _spelled(text)
        parts = self._codes.split(text)
        return "".join(
            ESCAPE + part.removeprefix(self._mark) if number % 2 else _spelled(part)
            for number, part in enumerate(parts)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def _spelled(text: str) -> str:
    if _is_plain(text):
        return text
    return re.sub(r"[^\n\t]+", lambda found: harmless(found[0]), text)


def install() -> None:
    """Has the standard streams print harmlessly, in whatever encoding; those that were closed lead nowhere."""
    open_all()
    mark = f"\0{process.chance(0, 1 << 64):x}:"
    Paint.mark = mark
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        stream.flush()
        text = io.TextIOWrapper(
            cast("BinaryIO", Output(stream)),
            stream.encoding,
            "backslashreplace",
            line_buffering=name == "stderr" or stream.line_buffering,
        )
        setattr(sys, name, Harmless(text, mark))
