"""Regular expressions of a library that are compiled when they are first used. Pure.

PyYAML compiles a dozen when it is loaded, which takes as long as to load it otherwise: a tenth of a short command's
time. They belong to its reader and its resolver in Python, and nkform takes libyaml's events, which need neither.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_COMPILE = re.compile


class LatePattern:
    """A pattern, not compiled yet. It has all attributes of the compiled one."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._arguments = arguments, named

    def __getattr__(self, name: str) -> Any:
        arguments, named = self._arguments
        return getattr(_COMPILE(*arguments, **named), name)  # `re` remembers the patterns that it compiled last


@contextmanager
def late_patterns(library: str) -> Iterator[None]:
    """Within the block, `re.compile` makes late ones for the modules of a library that is loaded in it, and for nobody
    else: other threads go on meanwhile. Does nothing where it is loaded already.
    """
    if library in sys.modules:
        yield
        return
    genuine = re.compile

    def compile_late(*arguments: Any, **named: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        make = LatePattern if caller.partition(".")[0] == library else genuine
        return make(*arguments, **named)

    re.compile = compile_late
    try:
        yield
    finally:
        re.compile = genuine
