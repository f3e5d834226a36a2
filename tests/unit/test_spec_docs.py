"""The manual's table and the list of error codes keep up with the code."""

from __future__ import annotations

import re
from pathlib import Path

from nkform.spec import docs, loads

TOP = Path(__file__).parents[2]


def test_the_table_of_attributes_is_up_to_date() -> None:
    text = (TOP / docs.FILE).read_text(encoding="utf-8")
    assert text == docs.filled(text), "run: python -m nkform.spec.docs"


def test_the_manual_begins_with_a_spec_that_works() -> None:
    text = (TOP / docs.FILE).read_text(encoding="utf-8")
    example = text.split("```yaml\n", 1)[1].split("```", 1)[0]
    spec = loads(example)
    assert list(spec.node.devices) == ["lxc-web", "eth0"]
    assert spec.warnings == ()


def test_every_code_is_explained() -> None:
    used = {code for file in (TOP / "nkform").rglob("*.py") for code in re.findall(r"NK\d{4}", file.read_text())}
    explained = set(
        re.findall(r"^\| (NK\d{4}) \|", (TOP / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert used - explained == set(), "explain them in docs/errors.md"
    assert explained - used == set(), "no longer used: take them out of docs/errors.md"
