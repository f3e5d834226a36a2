"""Colour where a terminal shows it: never under NO_COLOR (no-color.org), never in a pipe."""

from __future__ import annotations

import os
from typing import TextIO

ESCAPE = "\x1b["
"""What a terminal takes a colour from (ECMA-48, 5.4: CSI)."""
CODES = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1"}


class Paint:
    """Colours text, or leaves it as it is. A colour begins with `mark`: a terminal's, or one that a stream knows."""

    mark = ESCAPE

    def __init__(self, on: bool) -> None:
        self.on = on

    def __call__(self, text: str, tone: str) -> str:
        return f"{self.mark}{CODES[tone]}m{text}{self.mark}0m" if self.on else text


def wanted(stream: TextIO, no_colour: bool = False) -> bool:
    """Whether a stream should get colours."""
    if no_colour or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()
