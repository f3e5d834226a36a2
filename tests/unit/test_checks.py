"""The tools that run the tests: the order of stages, what stands in for what, and what a campaign's evidence says.

Runs small shell commands as stages.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.sizes import THOROUGH

TOOLS = Path(__file__).parents[2] / "tools"


def tool(name: str) -> ModuleType:
    """A tool as a module; it is no package's."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


checks, campaign, touched = tool("test"), tool("campaign"), tool("touched")


def stage(name: str, script: str = "true", seconds: int = 1, **words: Any) -> Any:
    return checks.Stage(name, (("sh", "-c", script),), seconds, **words)


def verdicts(*stages: Any, slots: int = 2) -> dict[str, str]:
    return {result.stage.name: result.verdict for result in checks.Schedule(stages, slots).run()}


def test_the_longest_begins_first_once_the_cheap_ones_are_done(tmp_path: Path) -> None:
    def noted(name: str, seconds: int, **words: Any) -> Any:
        return stage(name, f"echo {name} >> {tmp_path}/order", seconds, **words)

    some = (
        noted("short", 1, expensive=True),
        noted("long", 9, expensive=True),
        noted("cheap", 5),
        noted("later", 99, expensive=True, after="short"),
        noted("setup", 0),
    )
    assert set(verdicts(*some, slots=1).values()) == {"ok"}
    assert (tmp_path / "order").read_text().split() == ["setup", "cheap", "long", "short", "later"]


def test_after_a_cheap_one_has_failed_the_expensive_are_not_run() -> None:
    said = verdicts(stage("cheap", "exit 1"), stage("dear", expensive=True), stage("built", beside=True))
    assert said == {"cheap": "FAILED", "dear": "not run: mend the stages above first", "built": said["dear"]}
    assert verdicts(stage("setup", "exit 3"), stage("cheap"))["cheap"] == "not run: setup failed"


def test_an_expensive_one_that_fails_stops_no_other() -> None:
    said = verdicts(stage("one", "exit 1", 9, expensive=True), stage("two", expensive=True), slots=1)
    assert said == {"one": "FAILED", "two": "ok"}


@pytest.mark.parametrize("here", [True, False], ids=["it builds", "it does not build"])
def test_what_the_lab_cannot_run_is_shown_in_another_way(here: bool, tmp_path: Path) -> None:
    instead = ("sh", "-c", f"echo 3 passed in 0.1s; touch {tmp_path}/instead")
    build = stage("build", "true" if here else "exit 7", beside=True)
    dear = stage("lab-x", f"exit {checks.LAB_CANNOT_RUN}", expensive=True, after="build", instead=instead)
    results = {result.stage.name: result for result in checks.Schedule((build, dear), 1).run()}
    assert results["lab-x"].verdict == "ok"
    assert results["lab-x"].counts == {"passed": 3}
    assert not any(result.failed for result in results.values())
    assert (tmp_path / "instead").exists()


def test_a_failure_in_the_lab_is_one_and_nothing_stands_in_for_it(tmp_path: Path) -> None:
    instead = ("touch", f"{tmp_path}/instead")
    assert verdicts(stage("lab-x", "exit 1", instead=instead)) == {"lab-x": "FAILED"}
    assert not (tmp_path / "instead").exists()


def test_the_closing_line_counts_errors_as_failures(capsys: pytest.CaptureFixture[str]) -> None:
    output = "2 failed, 5 passed, 1 skipped, 3 errors in 1.23s\n"
    checks.print_summary([checks.Result(stage("unit"), counts=checks.pytest_counts(output))])
    assert capsys.readouterr().out.splitlines()[-1] == "total: 5 passed, 5 failed, 1 skipped"


def test_all_stages_have_what_they_wait_for() -> None:
    every = checks.stages(())
    names = [each.name for each in every]
    assert len(set(names)) == len(names)
    assert {each.after for each in every} <= {"", *names}
    assert {name for group in checks.GROUPS.values() for name in group} <= set(names)


# --- which live tests a change touches --------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "from nkform.kernel import clsact\n",
        "from nkform.kernel import bpf, clsact\n",
        "from nkform.kernel import (\n    bpf,\n    clsact,\n)\n",
        "from nkform.kernel.clsact import Tc\n",
        "import nkform.kernel.clsact as tc\n",
        "def late() -> None:\n    from nkform.kernel.clsact import Tc\n",
    ],
)
def test_an_import_in_any_form_is_one(text: str) -> None:
    path = Path("x.py")
    assert touched.importing(Path("nkform/kernel/clsact.py"), {path: text}) == {path}


@pytest.mark.parametrize("text", ["from nkform.kernel import bpf\n", "from nkform import clsact\n", "# clsact\n"])
def test_what_imports_something_else_is_not_touched(text: str) -> None:
    assert touched.importing(Path("nkform/kernel/clsact.py"), {Path("x.py"): text}) == set()


def test_a_changed_helper_touches_what_uses_it_through_another_one() -> None:
    tests = {path.name for path in touched.touched([Path("tests/live/helpers/flood.py")])}
    assert {"test_chains_flood.py", "test_attacks.py"} <= tests  # the second by way of attack.py
    assert "test_pairs.py" not in tests


# --- the campaign's evidence ------------------------------------------------------------

JOBS = [campaign.Job(f"floods-{number}", "Floods", ("tests/live",)) for number in (1, 2)]
DONE = campaign.Outcome("floods-1", "abc", "2026-01-02", "7.3", 120.0, 1, 0, 0, ["a: 3 sent, 0 lost"], [])


def test_what_parts_counted_is_added_up() -> None:
    second = replace(DONE, job="floods-2", date="2026-01-03", told=["b: 1040 sent, 0 lost"])
    page = campaign.evidence(JOBS, {"floods-1": DONE, "floods-2": second})
    assert "- Jobs: 2 passed, 0 failed, 0 not run; 0.1 hours of work." in page
    assert "- Dates: 2026-01-02 to 2026-01-03." in page
    assert "| floods (2 jobs) | 7.3 | 4 | 2 passed | 1,043 sent, 0 lost |" in page


def test_a_failure_and_what_was_not_run_are_in_the_evidence() -> None:
    bad = replace(DONE, failed=1, failures=["test_x: 7 packets lost"])
    page = campaign.evidence(JOBS, {"floods-1": bad})
    assert "- Jobs: 0 passed, 1 failed, 1 not run; 0.0 hours of work." in page
    assert "- Not run: floods (1)." in page
    assert "- `floods-1`: test_x: 7 packets lost" in page


def test_a_job_that_ran_no_test_has_failed() -> None:
    empty = replace(DONE, passed=0, skipped=4)
    assert not empty.ok
    assert "- `floods-1`: no test ran" in campaign.evidence(JOBS, {"floods-1": empty})


def test_what_pytest_reports_is_read(tmp_path: Path) -> None:
    """A run of pytest itself, one of whose tests fails."""
    (tmp_path / "test_it.py").write_text(
        "def test_good(record_property): record_property('told', '5 sent')\ndef test_bad(): assert not 'a\\nb'\n"
    )
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--junitxml={report}", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    outcome = campaign.read(
        report, JOBS[0], done.returncode, commit="abc", date="2026-01-02", kernel="7.3", seconds=1.0
    )
    assert (outcome.passed, outcome.failed, outcome.told) == (1, 1, ["test_good: 5 sent"])
    assert outcome.failures[0].startswith("test_bad: AssertionError")
    report.unlink()
    lost = campaign.read(report, JOBS[0], 124, commit="abc", date="", kernel="7.3", seconds=1.0)
    assert (lost.failed, lost.ok) == (1, False)


def test_a_job_holds_until_what_it_tries_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in [
        name for name in os.environ if name.startswith("GIT_")
    ]:  # a hook of git's would mean its own checkout
        monkeypatch.delenv(variable)
    for file in ("nkform/plan.py", "tests/live/test_it.py", "tests/live/test_other.py", "docs/page.md"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("")
    job = campaign.Job("floods-1", "Floods", ("tests/live/test_it.py::test_a",))

    def committed() -> str:
        as_somebody = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        for command in (("init", "-q"), ("add", "."), (*as_somebody, "commit", "-qm", "a")):
            subprocess.run(("git", *command), cwd=tmp_path, check=True)
        return str(campaign.commit())

    passed = replace(DONE, commit=committed())
    assert campaign.holds(job, passed)
    assert not campaign.holds(job, None)
    assert not campaign.holds(job, replace(passed, failed=1))
    assert not campaign.holds(job, replace(passed, commit="0123456789ab"))
    for file, still in (("docs/page.md", True), ("tests/live/test_other.py", True), ("tests/live/test_it.py", False)):
        (tmp_path / file).write_text("changed")
        assert campaign.holds(job, passed) is still
    assert campaign.commit() == passed.commit + campaign.WITH_CHANGES
    assert not campaign.holds(job, replace(passed, commit=campaign.commit()))
    passed = replace(DONE, commit=committed())
    assert campaign.holds(job, passed)
    (tmp_path / "nkform/plan.py").write_text("changed")
    assert not campaign.holds(job, passed)


def test_what_jobs_showed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what jobs showed that there are no more."""
    monkeypatch.setattr(campaign, "KEPT", tmp_path / "evidence.json")
    monkeypatch.setattr(campaign, "EVIDENCE", tmp_path / "evidence.md")
    assert campaign.kept() == {}
    campaign.keep({"floods-1": DONE, "gone": replace(DONE, job="gone")}, JOBS)
    assert campaign.kept() == {"floods-1": DONE}
    assert "- Jobs: 1 passed, 0 failed, 1 not run" in (tmp_path / "evidence.md").read_text()


def test_a_word_means_one_job_or_the_beginning_of_several() -> None:
    jobs = campaign.jobs()
    names = {job.name for job in jobs}
    assert len(names) == len(jobs)
    assert {name for name in names if campaign.means("cycles", name, jobs)} == {"cycles"}
    assert {name for name in names if campaign.means("cyc", name, jobs)} == {"cycles", "cycles-uml"}


def test_the_parts_of_the_attacked_changes_are_all_there() -> None:
    parts = [job for job in campaign.jobs() if job.name.startswith("changes-veth-")]
    assert len(parts) == THOROUGH.attacked_parts
    assert THOROUGH.attacked_changes >= 100
    for job in campaign.jobs():
        assert all((TOOLS.parent / word.partition("::")[0]).exists() for word in job.tests if word.startswith("tests/"))
