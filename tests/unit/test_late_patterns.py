"""A library's regular expressions that are compiled when they are first used."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from nkform.document.late_patterns import LatePattern, late_patterns


def test_a_late_pattern_is_as_the_compiled_one() -> None:
    with late_patterns():
        late = re.compile("(?P<digits>[0-9]+)X", re.IGNORECASE)
        assert isinstance(late, LatePattern)
        assert late.search("in the block: 7x")
    found = late.match("12x")
    assert found
    assert found["digits"] == "12"
    assert late.pattern == "(?P<digits>[0-9]+)X"
    assert late.flags & re.IGNORECASE
    with pytest.raises(AttributeError, match="nothing"):
        late.nothing  # noqa: B018


def test_patterns_are_compiled_at_once_again_after_the_block() -> None:
    with pytest.raises(ZeroDivisionError), late_patterns():
        raise ZeroDivisionError
    assert isinstance(re.compile("a"), re.Pattern)


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
