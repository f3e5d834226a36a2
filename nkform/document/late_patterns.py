"""Regular expressions of a library that are compiled when they are first used. Pure.

PyYAML compiles a dozen when it is loaded, which takes as long as to load it otherwise: a tenth of a short command's
time. They belong to its reader and its resolver in Python, and nkform takes libyaml's events, which need neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_COMPILE = re.compile


class LatePattern:
    """A pattern, not compiled yet. It has all attributes of the compiled one."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def __getattr__(self, name: str) -> Any:
        return getattr(_COMPILE(*self._arguments), name)  # `re` remembers the patterns that it compiled last


@contextmanager
def late_patterns() -> Iterator[None]:
    """Within the block, `re.compile` makes late ones: for the import of a library whose patterns may not be needed."""
    re.compile = LatePattern  # type: ignore[assignment]
    try:
        yield
    finally:
        re.compile = _COMPILE
