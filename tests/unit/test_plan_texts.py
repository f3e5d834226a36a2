"""Given a plan of tests/plan, this is what `plan` prints, and its JSON is what schemas/plan.v1.json says.

Where a case has a file plan.txt, that is the text; see tests/plan/README.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest

from nkform.bpf.programs import Programs, Source
from nkform.data import data_path
from nkform.plan.changes import Plan
from nkform.plan.drift import Difference, told
from nkform.problem import NkformError
from nkform.report import plan_json, steps_text
from nkform.report.colour import Paint
from nkform.report.plan_text import render
from tests.unit.test_plan_cases import FOLDER, WRITE, Case, cases

TOLD = sorted(path.parent.name for path in FOLDER.glob("*/plan.txt"))
SCHEMA = json.loads(data_path("schemas/plan.v1.json").read_bytes())
JUDGE: Any = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(Source(engine="clang")) as programs:
        yield programs


def plan_of(name: str, programs: Programs) -> Plan | None:
    case = Case(name, programs)
    try:
        return case.plan(case.live)
    except NkformError:
        return None


def without_digests(text: str) -> str:
    """Digests are others with each change of a template."""
    return re.sub(r"\b[0-9a-f]{16}\b", "DIGEST", text)


@pytest.mark.parametrize("name", TOLD)
def test_the_text_of_a_plan(name: str, programs: Programs) -> None:
    plan = plan_of(name, programs)
    assert plan is not None
    text = without_digests(render(plan, Paint(False)))
    file = FOLDER / name / "plan.txt"
    if WRITE:
        file.write_text(text)
    assert file.read_text() == text


@cases
def test_the_order_of_attachment(name: str, programs: Programs) -> None:
    """Of each case that changes chains or maps, what `plan --verbose` says beside the plan."""
    plan = plan_of(name, programs)
    there = steps_text.by_device(plan) if plan is not None else {}
    text = "".join(f"{device}: {line}\n" for device, lines in there.items() for line in lines)
    file = FOLDER / name / "steps.txt"
    if WRITE and text:
        file.write_text(text)
    assert (file.read_text() if file.exists() else "") == text


@cases
def test_text_and_json_have_all_of_a_plan(name: str, programs: Programs) -> None:
    plan = plan_of(name, programs)
    if plan is None:
        return
    data = json.loads(plan_json.render(plan))
    JUDGE.validate(data)
    text = render(plan, Paint(False))
    assert text.endswith("\n")
    counts = re.search(r"Plan: (\d+) to add, (\d+) to change, (\d+) to destroy", text)
    summary = tuple(data["summary"].values())
    assert summary == (tuple(map(int, counts.groups())) if counts else (0, 0, 0))
    assert len(data["changes"]) == len(re.findall(r"^  # ", text, re.MULTILINE)) == len(plan.changes)
    for change in plan.changes:
        assert f"# {change.kind}.{change.name} " in text
        for field in change.fields:
            key = re.escape(".".join(field.path))
            shared = key.removeprefix(re.escape("peer."))  # what both ends share is said once
            assert re.search(rf"^      [-+~] ({key}|{shared}) = ", text, re.MULTILINE), field
    assert render(plan, Paint(False), summary_only=True) == (
        text if plan.empty else "".join(text.splitlines(True)[-1:])
    )
    coloured = render(plan, Paint(True))
    assert re.sub("\x1b\\[[0-9]+m", "", coloured) == text
    assert coloured.count("\x1b[0m") * 2 == coloured.count("\x1b[")


@cases
def test_drift_is_remarked_at_each_line_that_is_drift(name: str, programs: Programs) -> None:
    plan = plan_of(name, programs)
    if plan is None:
        return
    everything: list[Difference] = [each for change in plan.changes for each in told(change)]
    text = render(plan, Paint(False), drift=dict.fromkeys(everything, 0.0))
    assert text.count("# drift: ") == len(everything)
    number = "1 of these differences is" if len(everything) == 1 else f"{len(everything)} of these differences are"
    assert (f"{number} drift: the node was changed, not the spec.\n" in text) == bool(everything)
    data = json.loads(plan_json.render(plan, dict.fromkeys(everything, 0.0)))
    JUDGE.validate(data)
    marked = [each for change in data["changes"] for each in (change, *change["fields"]) if each["drift"]]
    assert len(marked) == len(everything)
    assert {each["since"] for each in marked} <= {"1970-01-01T00:00:00.000+00:00"}
