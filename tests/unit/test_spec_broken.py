"""Broken specs, each wrong in its own way, and what a newcomer is told: tests/unit/broken/NAME and NAME.expected.

A directory is a spec of several files. After a change of wording, NKFORM_UPDATE=1 writes the expectations anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nkform.problem import NkformError
from nkform.report.problems import render
from nkform.spec import load

BROKEN = Path(__file__).parent / "broken"
CASES = sorted(path.name for path in BROKEN.iterdir() if path.suffix != ".expected")


def told(name: str) -> str:
    with pytest.raises(NkformError) as caught:
        load([name])
    return render(caught.value.problems, colour=False) + "\n"


@pytest.mark.parametrize("name", CASES)
def test_a_newcomer_is_told_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    expected = BROKEN / f"{name}.expected"
    text = told(name)
    if os.environ.get("NKFORM_UPDATE") == "1":
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 20
