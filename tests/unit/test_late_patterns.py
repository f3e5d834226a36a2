"""A library's regular expressions that are compiled when they are first used."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from typing import Any

import pytest

from nkform.document.late_patterns import LatePattern, late_patterns


def test_a_late_pattern_is_as_the_compiled_one() -> None:
    late = LatePattern("(?P<digits>[0-9]+)X", flags=re.IGNORECASE)
    found = late.match("12x")
    assert found
    assert found["digits"] == "12"
    assert late.pattern == "(?P<digits>[0-9]+)X"
    assert late.flags & re.IGNORECASE
    with pytest.raises(AttributeError, match="nothing"):
        late.nothing  # noqa: B018


def test_only_the_modules_of_the_library_get_late_ones() -> None:
    """Another thread's pattern must be one that `re.sub` takes."""
    genuine = re.compile
    made: dict[str, Any] = {"__name__": "library.part", "re": re}
    with contextlib.suppress(ZeroDivisionError), late_patterns("library"):
        exec("pattern = re.compile('[a-z]', re.IGNORECASE)", made)
        assert isinstance(re.compile("a"), re.Pattern)
        raise ZeroDivisionError
    assert isinstance(made["pattern"], LatePattern)
    assert made["pattern"].sub("-", "aB1") == "--1"
    assert re.compile is genuine


def test_nothing_is_late_where_the_library_is_loaded_already() -> None:
    genuine = re.compile
    with late_patterns("pytest"):
        assert re.compile is genuine


SAYS = """
import re, sys
from nkform.document import yaml_events
assert yaml_events.parse("a: [1, 2001-01-01]").data == {"a": [1, "2001-01-01"]}
import yaml
print(type(yaml.reader.Reader.NON_PRINTABLE).__name__)
assert yaml.load("a: [1, on, 2001-01-01, 0x10, ~, 1.5]", yaml.SafeLoader)["a"][1:4:2] == [True, 16]
assert yaml.safe_load(yaml.safe_dump({"x": "1e5", "y": [None, 2.5]})) == {"x": "1e5", "y": [None, 2.5]}
try:
    yaml.load("a: \\x01", yaml.SafeLoader)
except yaml.reader.ReaderError:
    print("refused")
"""


def test_the_yaml_library_works_whole_with_them() -> None:
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == (["LatePattern", "refused"], "")
