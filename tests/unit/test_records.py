"""What is on record of other nodes, or in a plan's file, and cannot be taken as it is: what a session says of it."""

from __future__ import annotations

import errno
from functools import partial
from pathlib import Path

import pytest

from nkform import __version__
from nkform.kernel import rundir
from nkform.kernel.error import KernelError
from nkform.kernel.place import place
from nkform.model import Node
from nkform.plan import saved
from nkform.plan.changes import Plan
from nkform.plan.saved import Basis
from nkform.problem import NkformError, Problem
from nkform.report.plan_json import document
from nkform.session import records, saved_plans


def test_what_others_could_write_to_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rundir, "untrusted", partial(rundir.untrusted, tmp_path))
    for name, mode in ("open", 0o777), ("good", 0o700):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    assert [problem.code for problem in records.untrusted()] == ["NK0617"]
    (tmp_path / "good/applied").write_text("")
    (tmp_path / "good/applied").chmod(0o666)
    found = records.untrusted()
    assert [problem.severity for problem in found] == ["warning"] * 2
    for problem, path in zip(found, ("good/applied", "open"), strict=True):
        assert problem.message.startswith(f"{tmp_path / path} is not trusted: ")


def test_a_fault_of_another_node_is_a_warning() -> None:
    (found,) = records.warnings(NkformError(Problem("NK0612", "it is cut", hint="look")))
    assert found == Problem("NK0612", "it is cut", hint="look", severity="warning")
    (found,) = records.warnings(KernelError(errno.EIO, "read the journal"))
    assert (found.code, found.severity) == ("NK0617", "warning")
    assert found.message.startswith("could not read the journal: ")


def basis(version: str, where: str) -> Basis:
    return Basis(
        nkform=version, place=where, when=5.0, files=(), spec="digest", desired=Node("box"), templates=("/t",),
        engine="clang", objects="/o", adopt=True, targets=("device.v0",), live=Node("box"), expedite=True,
    )  # fmt: skip


EMPTY = document(Plan("box"))


def plan(path: Path, version: str = __version__, where: str = "") -> Path:
    saved_plans.write(path, saved.write(EMPTY, basis(version, where or place())))
    return path


def refused(path: Path) -> Problem:
    with pytest.raises(NkformError) as caught:
        saved_plans.load(path)
    (problem,) = caught.value.problems
    return problem


def test_a_plan_is_its_owners_and_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = plan(tmp_path / "a.plan")
    assert path.stat().st_mode & 0o777 == 0o600
    found = saved_plans.load(path)
    assert found is not None
    spec, options = saved_plans.as_spec(found.basis), saved_plans.options_of(found.basis)
    assert (spec.node, spec.templates, spec.engine, spec.expedite) == (Node("box"), ("/t",), "clang", True)
    assert (options.adopt, options.targets, options.objects) == (True, ("device.v0",), Path("/o"))


def test_what_is_no_plan_is_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("version: 1\n")
    assert [saved_plans.load(tmp_path / name) for name in ("spec.yaml", "gone", ".")] == [None] * 3


def test_a_plan_that_others_could_write_to_is_refused(tmp_path: Path) -> None:
    path = plan(tmp_path / "a.plan")
    path.chmod(0o622)
    assert refused(path).code == "NK0624"


@pytest.mark.parametrize(("version", "where"), [("0.0", ""), (__version__, "elsewhere")])
def test_a_plan_made_elsewhere_is_refused(tmp_path: Path, version: str, where: str) -> None:
    assert refused(plan(tmp_path / "a.plan", version, where)).code == "NK0622"


def test_a_plan_that_was_changed_is_refused(tmp_path: Path) -> None:
    path = plan(tmp_path / "a.plan")
    path.write_text(path.read_text().replace("/o", "/other"))
    assert refused(path).code.startswith("NK06")


def test_where_a_plan_cannot_be_written(tmp_path: Path) -> None:
    for path in tmp_path, tmp_path / "gone/a.plan":
        with pytest.raises(NkformError) as caught:
            saved_plans.write(path, "")
        (problem,) = caught.value.problems
        assert problem.code == "NK0101"
        assert problem.message.startswith(f"{path} cannot be written: ")
