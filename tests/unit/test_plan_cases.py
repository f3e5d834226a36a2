"""Given a spec and a node (tests/plan), then the plan is the one that stands there, and so is the way back."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import nkform.bpf.sandbox  # noqa: F401  # loaded here once, rather than in a child
from nkform.bpf.programs import Programs, Source
from nkform.dataclass import replace
from nkform.model import Device, Node
from nkform.plan import restore
from nkform.plan.actions import CreatePair, DeleteNamespace, DeletePair, MoveEnd, device_of
from nkform.plan.changes import Plan
from nkform.plan.plan import build
from nkform.plan.state_diff import state_diff
from nkform.problem import NkformError
from nkform.spec import loads
from tests.unit.plan_cases import Kernel, line, refused, told

FOLDER = Path(__file__).parents[1] / "plan"
WRITE = os.environ.get("NKFORM_WRITE_CASES") == "1"
cases = pytest.mark.parametrize("name", sorted(path.parent.name for path in FOLDER.glob("*/desired.yaml")))
OPTIONS = ArgumentParser()
OPTIONS.add_argument("--adopt", action="store_true")
OPTIONS.add_argument("--target", action="append", dest="targets", default=[])


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(Source(engine="clang")) as programs:
        yield programs


class Case:
    """One folder: what is wanted, what is there, and the options that its plan.yaml names."""

    def __init__(self, name: str, programs: Programs, *, backwards: bool = False) -> None:
        self.folder, self.programs = FOLDER / name, programs
        spec = loads((self.folder / "desired.yaml").read_text()).node
        devices = dict(list(spec.devices.items())[:: -1 if backwards else 1])
        desired = programs.declared(spec.with_devices(devices))
        assert not programs.check(desired.devices)
        self.kernel = Kernel(desired, self.read("live"), programs)
        self.live = self.kernel.live()
        self.desired = desired.at_home(self.live.home)
        self.given = {key: value for key, value in self.read("plan").items() if key == "options"}

    def read(self, name: str) -> dict[str, Any]:
        file = self.folder / f"{name}.yaml"
        return yaml.safe_load(file.read_text()) or {} if file.exists() else {}

    def plan(self, live: Node) -> Plan:
        asked = vars(OPTIONS.parse_args(self.given.get("options", "").split()))
        return build(self.desired, live, features=self.kernel.features, programs=self.programs, **asked)

    def way_back(self, live: Node) -> Plan:
        return restore.plan(self.live, live, self.kernel.features)

    def check(self, name: str, made: dict[str, Any]) -> None:
        """Compares with a file, or writes it."""
        file = self.folder / f"{name}.yaml"
        if WRITE and made:
            file.write_text(yaml.safe_dump(made, sort_keys=False, width=110, allow_unicode=True))
        elif WRITE:
            file.unlink(missing_ok=True)
        assert self.read(name) == made


@cases
def test_plan_and_way_back(name: str, programs: Programs) -> None:
    case = Case(name, programs)
    try:
        plan = case.plan(case.live)
    except NkformError as error:
        case.check("plan", case.given | refused(error))
        case.check("revert", {})
        return
    case.check("plan", case.given | told(plan))
    applied = case.kernel.applied(plan, case.live)
    again = case.plan(applied)
    assert (again.changes, again.actions) == ((), ())
    try:
        back = case.way_back(applied)
    except NkformError as error:
        case.check("revert", refused(error))
        return
    case.check("revert", {"actions": told(back)["actions"]})
    restored = case.kernel.applied(back, applied)
    assert state_diff(case.live, restored, losses=False) == []
    again = case.way_back(restored)
    assert (again.changes, again.actions) == ((), ())


def by_device(case: Case) -> object:
    """A plan without what the order of its devices is."""
    try:
        plan = case.plan(case.live)
    except NkformError as error:
        return sorted(problem.code for problem in error.problems)  # of two that collide, either may be named
    actions = sorted(plan.actions, key=lambda action: device_of(action) or line(action))
    return list(map(line, actions)), *(sorted(map(str, some)) for some in told(plan).values())


@cases
def test_the_order_of_devices_does_not_matter(name: str, programs: Programs) -> None:
    assert by_device(Case(name, programs)) == by_device(Case(name, programs, backwards=True))


def replaced(plan: Plan) -> list[Device]:
    """The old pairs in whose place new ones come."""
    pairs = [(each.before, each.after) for each in plan.changes if each.operation == "replace"]
    return [old for old, new in pairs if all(isinstance(each, Device) and each.peer for each in (old, new))]  # type: ignore[misc]


@cases
def test_an_old_pair_takes_over_again(name: str, programs: Programs) -> None:
    """A run is killed when a new pair has the old one's names, and the old one is still there under others."""
    case = Case(name, programs)
    try:
        plan = case.plan(case.live)
    except NkformError:
        return
    applied = case.kernel.applied(plan, case.live)
    waiting = {}
    for old in replaced(plan):
        ends = [replace(end, name=f"{end.name}~o") for end in old.ends]
        waiting[old.name] = replace(old, name=ends[0].name, primary=ends[0], peer=ends[1])
    there = {**applied.devices, **{old.name: old for old in waiting.values()}}
    back = case.way_back(replace(applied, devices=there)).actions
    made = {action.device.name for action in back if isinstance(action, CreatePair)}
    assert made.isdisjoint(waiting)
    for own, old in waiting.items():
        moved = {action.before.name: action.after.name for action in back if isinstance(action, MoveEnd)}
        assert {end.name: moved.get(end.name) for end in old.ends} == {
            end.name: end.name.removesuffix("~o") for end in old.ends
        }, own
    assert sum(isinstance(action, DeletePair) for action in back) >= len(waiting)
    leaving = [isinstance(action, DeleteNamespace) for action in back]
    assert leaving == sorted(leaving), "a namespace goes before what is in it"
