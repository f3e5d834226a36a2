"""What a guardian loads ahead: going back must not depend on code that may have gone by then."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[2]
BEGINNING = ("nkform.session.guardian", "nkform.session.recovery")
LATER = {
    "bcc": "the compiler itself, which has to be there where a program is compiled anew",
    "dataclasses": "what the standard library is told of our data classes, when it asks",
}
"""What the way back may import when it is needed, and why."""


def modules() -> dict[str, Path]:
    found = {}
    for path in (TOP / "nkform").rglob("*.py"):
        parts = path.relative_to(TOP).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


OURS = modules()


def imported(node: ast.AST) -> Iterator[str]:
    """All that code imports, wherever it stands, but for what only type checkers see."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            child = ast.Module(child.orelse, [])  # noqa: PLW2901
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            names = (f"{child.module}.{alias.name}" for alias in child.names)
            yield from (name for name in names if name in OURS)
        yield from imported(child)


def way_back() -> set[str]:
    """The modules that a guardian can come to import: ours, and those that ours import."""
    found: set[str] = set()
    left = list(BEGINNING)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            if name in OURS:
                left += imported(ast.parse(OURS[name].read_text(encoding="utf-8")))
    return found


def test_all_that_going_back_may_need_is_loaded_before_a_guardian_waits() -> None:
    code = "from nkform.session import guardian, preload\npreload.load()\nimport sys\nprint(*sys.modules)"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    )
    assert sorted(way_back() - loaded - LATER.keys()) == [], "name them in nkform/session/preload.py"


def test_what_is_loaded_later_is_still_imported() -> None:
    assert sorted(LATER.keys() - way_back()) == []
