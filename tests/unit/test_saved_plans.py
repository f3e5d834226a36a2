"""Given a plan of tests/plan in a file, it is read as it was written, or refused, saying what has changed since."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkform.bpf.programs import Programs, Source
from nkform.dataclass import replace
from nkform.model import Address, Attached, Device, Endpoint, Hook, Namespace, Node, RootDevice, Route
from nkform.plan import saved
from nkform.plan.changes import Plan
from nkform.plan.saved import Basis
from nkform.problem import NkformError, Problem
from nkform.report.plan_json import document
from nkform.spec import load
from tests.unit.test_plan_cases import Case, cases


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(Source(engine="clang")) as programs:
        yield programs


def basis(live: Node, desired: Node, **more: Any) -> Basis:
    made = Basis(
        nkform="1.2", place="here", when=5.0, files=("spec.yaml",), spec="digest", desired=desired, templates=(),
        engine="auto", objects="", adopt=False, targets=(), live=saved.relevant(live),
    )  # fmt: skip
    return replace(made, **more)


def problems_of(check: Callable[[], object]) -> tuple[Problem, ...]:
    with pytest.raises(NkformError) as caught:
        check()
    return caught.value.problems


def end(name: str, **more: Any) -> Endpoint:
    return Endpoint(name, attrs={"mtu": 1500}, index=3, **more)


LIVE = Node(
    "w",
    {"": Namespace(""), "a": Namespace("a", owner="w", links={"lo": False})},
    {"v0": Device("v0", "veth", {}, end("v0"), end("eth0", namespace="a"), owner="w")},
)
NOTHING = Plan("w", (), ())
TEXT = saved.write(document(NOTHING), basis(LIVE, Node("w")))


@cases
def test_a_plan_comes_back_from_a_file_as_it_was(name: str, programs: Programs) -> None:
    case = Case(name, programs)
    try:
        plan = case.plan(case.live)
    except NkformError:
        return
    text = saved.write(document(plan), basis(case.live, case.desired))
    assert saved.is_plan(text)
    found = saved.read(text, "a.plan")
    assert found.actions == plan.actions
    assert found.basis == basis(case.live, case.desired)
    saved.check_plan(found, plan)
    saved.check_live(found.basis, case.live)
    if plan.actions:
        (problem,) = problems_of(lambda: saved.check_plan(replace(found, actions=plan.actions[1:]), plan))
        assert problem.code == "NK0623"
    applied = case.kernel.applied(plan, case.live)
    if saved.relevant(applied) != found.basis.live:
        stale = problems_of(lambda: saved.check_live(found.basis, applied))
        assert {problem.code for problem in stale} == {"NK0620"}
        agreed = problems_of(lambda: saved.check_agreed(case.live, applied, plan, Plan(plan.node, (), ())))
        assert [problem.message.split(" was ")[0] for problem in agreed[1:]] == [
            problem.message.removeprefix("stale plan: ").split(" was ")[0] for problem in stale
        ]


@given(st.integers(0, len(TEXT) - 1), st.characters(codec="utf-8"))
@settings(max_examples=400)
def test_a_file_that_was_edited_is_refused(place: int, character: str) -> None:
    """A change that says the same, of white space, does no harm."""
    edited = TEXT[:place] + character + TEXT[place + 1 :]
    try:
        same = json.loads(edited) == json.loads(TEXT)
    except ValueError:
        same = False
    if same:
        assert saved.read(edited, "a.plan") == saved.read(TEXT, "a.plan")
        return
    (problem,) = problems_of(lambda: saved.read(edited, "a.plan"))
    assert problem.code == "NK0621"
    assert problem.message.startswith("a.plan is not a plan that nkform wrote, or it was changed: ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        ("[]", "pop"),
        ("{}", "it was changed after it was made"),
        ("[" * 100_000, "it nests too deep"),
        (TEXT.replace('"adopt": false', '"adopt": true'), "it was changed after it was made"),
        (TEXT[:-3], "Expecting"),
    ],
)
def test_what_is_no_plan_is_refused(text: str, said: str) -> None:
    (problem,) = problems_of(lambda: saved.read(text, "a.plan"))
    assert problem.code == "NK0621"
    assert said in problem.message
    assert problem.hint == "plan again: nkform plan -o FILE"


def test_one_with_a_right_checksum_and_what_nkform_does_not_write_is_refused() -> None:
    data = json.loads(TEXT)
    for wrong in ({"actions": [{"type": "RemoveEverything"}]}, {"basis": {"nkform": "1.2"}}, {"actions": 3}):
        changed = {key: value for key, value in {**data, **wrong}.items() if key != "checksum"}
        text = json.dumps({**changed, "checksum": saved._checksum(changed)})
        (problem,) = problems_of(lambda text=text: saved.read(text, "a.plan"))  # type: ignore[misc]
        assert problem.code == "NK0621"


@pytest.mark.parametrize(
    ("text", "expected"),
    [(TEXT, True), ("\n " + TEXT, True), ("version: 1\n", False), ("{}", False), (TEXT[40:], False)],
)
def test_a_plan_is_told_from_a_spec(text: str, expected: bool) -> None:
    assert saved.is_plan(text) is expected


def test_a_plan_in_the_place_of_a_spec_is_one_error(tmp_path: Path) -> None:
    path = tmp_path / "a.plan"
    path.write_text(TEXT)
    spec = tmp_path / "spec.yaml"
    spec.write_text("version: 1\nnode: w\n")
    for files in ([path], [path, spec]):
        (problem,) = problems_of(lambda files=files: load(files))  # type: ignore[misc]
        assert (problem.code, problem.message) == ("NK0602", f"{path} is a saved plan, not a spec")
        assert problem.hint == f"`nkform apply {path}` carries it out, without a spec beside it"


def test_a_plan_of_another_version_or_place_is_refused() -> None:
    origin = basis(LIVE, Node("w"))
    saved.check_origin(origin, "1.2", "here")
    (other,) = problems_of(lambda: saved.check_origin(origin, "1.3", "here"))
    assert (other.code, other.message) == ("NK0622", "nkform 1.2 made this plan, and this is 1.3")
    (place,) = problems_of(lambda: saved.check_origin(origin, "1.2", "there"))
    assert "another network namespace" in place.message


def test_a_plan_with_other_objects_is_refused() -> None:
    made = basis(LIVE, Node("w"), given="abc", objects="/srv/objects")
    saved.check_given(made, "abc")
    (problem,) = problems_of(lambda: saved.check_given(made, "abd"))
    assert problem.message == "the compiled objects in /srv/objects are others than those that were planned with"


def changed(**more: Any) -> Node:
    device = LIVE.devices["v0"]
    return LIVE.with_devices({"v0": replace(device, primary=replace(device.primary, **more))})


RUNS = Attached(7, 7, "count", "d", ours=True)
CHANGES: dict[str, tuple[Node, str]] = {
    "mtu": (changed(attrs={"mtu": 1400}), "stale plan: mtu of device v0 was 1500 when the plan was made, and is 1400"),
    "gone": (LIVE.with_devices({}), "device v0 existed when the plan was made, and is gone"),
    "addresses": (
        changed(addresses=(Address("10.0.0.1/32"), Address("10.0.0.2/32"))),
        "addresses of device v0 was [] when the plan was made, and is [10.0.0.1/32, 10.0.0.2/32]",
    ),
    "route": (
        changed(routes=(Route("10.0.0.0/8", "10.0.0.1"),)), "made, and is [10.0.0.0/8 via",
    ),
    "owner": (LIVE.with_devices({"v0": replace(LIVE.devices["v0"], owner=None)}), "and is not there"),
    "namespace": (replace(LIVE, namespaces={"": Namespace("")}), "namespace a existed when the plan was made"),
    "chain": (
        LIVE.with_devices({"v0": replace(LIVE.devices["v0"], hooks={"peer": Hook((RUNS,), (), 4)})}),
        "programs.peer of device v0 was not there when the plan was made, and is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_stale_plan_says_what_changed(name: str) -> None:
    now, said = CHANGES[name]
    found = problems_of(lambda: saved.check_live(basis(LIVE, Node("w")), now))
    assert any(said in problem.message for problem in found), found
    assert {problem.code for problem in found} == {"NK0620"}
    assert [problem.hint for problem in found if problem.hint] == ["plan again"]


def test_what_has_the_name_of_another_is_said_to_be_another() -> None:
    device = replace(LIVE.devices["v0"], index=9, primary=end("v0", namespace="", altnames=()))
    spaces = {**LIVE.namespaces, "a": replace(LIVE.namespaces["a"], cookie=8), "b": Namespace("b")}
    now = replace(LIVE, namespaces=spaces, devices={"v0": device})
    assert [problem.message for problem in problems_of(lambda: saved.check_live(basis(LIVE, Node("w")), now))] == [
        "stale plan: namespace a is not the one that it was when the plan was made: another one has its name",
        "stale plan: namespace b did not exist when the plan was made, and exists now",
        "stale plan: device v0 is not the one that it was when the plan was made: another one has its name",
    ]


def test_what_no_plan_depends_on_makes_none_stale() -> None:
    spaces = {**LIVE.namespaces, "a": replace(LIVE.namespaces["a"], links={"lo": False, "theirs": False})}
    saved.check_live(basis(LIVE, Node("w")), replace(LIVE, namespaces=spaces, root_devices={"wg0": RootDevice(1, 2)}))


def test_of_many_changes_some_are_told() -> None:
    now = changed(sysctl={f"ipv4.key{n}": "1" for n in range(20)})
    *some, last = problems_of(lambda: saved.check_live(basis(LIVE, Node("w")), now))
    assert len(some) == saved.SHOWN
    assert last.message == "stale plan: 12 more differences"
    first, *some, last = problems_of(lambda: saved.check_agreed(LIVE, now, plan_with_one(), NOTHING))
    assert first.message == "the node changed after its plan was shown: nothing was done"
    assert some[0].message == "sysctl.ipv4.key0 of device v0 was not there when the plan was shown, and is 1"
    assert last.message == "12 more differences"
    saved.check_agreed(LIVE, now, NOTHING, NOTHING)


def plan_with_one() -> Plan:
    from nkform.plan.actions import CreateNamespace

    return Plan("w", (), (CreateNamespace("a"),))
