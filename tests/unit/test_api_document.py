"""docs/api.md and docs/service.md name what a session gives: fields of the status, and events of a watch."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

from nkform.plan.drift import Difference
from nkform.plan.watch import Event, Failed, Reread, Unapplied
from nkform.problem import Problem
from nkform.report.watch_text import line_json
from nkform.results import Status

DOCUMENTS = Path(__file__).parents[2] / "docs"
API = (DOCUMENTS / "api.md").read_text()
SERVICE = (DOCUMENTS / "service.md").read_text()


def test_all_fields_of_a_status_are_named() -> None:
    (row,) = re.findall(r"^\| `session\.status\(.*$", API, re.MULTILINE)
    assert {field.name for field in fields(Status)} - {"node"} - set(re.findall(r"`(\w+)`", row)) == set()


def test_all_events_of_a_watch_are_named() -> None:
    (entry,) = re.findall(r"^- `session\.watch` gives.*?(?=^- )", API, re.MULTILINE | re.DOTALL)
    named = set(re.findall(r"`([A-Z]\w+)`", entry))
    assert named == {event.__name__ for event in get_args(Event)}


GONE = Difference("device", "to-a", "create")
FAULT = Problem("NK0520", "no")


@pytest.mark.parametrize("event", [Unapplied(GONE), Failed((FAULT,), 1.0), Reread(), Reread((FAULT,))])
def test_what_json_calls_an_event_is_in_the_document(event: Event) -> None:
    (name,) = re.findall(r'"event": ?"(\w+)"', line_json(event, 0.0))
    assert f"`{name}`" in SERVICE
