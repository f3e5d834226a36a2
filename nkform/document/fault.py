"""Something wrong at a place of a text. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple


class Fault(NamedTuple):
    """Something wrong at a place of one text; line and column count from 1."""

    code: str
    message: str
    line: int
    column: int
    hint: str = ""


def split_lines(text: str) -> list[str]:
    """Lines as YAML counts them."""
    return re.split("\r\n|[\n\r\x85\u2028\u2029]", text)
