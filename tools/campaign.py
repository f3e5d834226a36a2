#!/usr/bin/python3
"""The campaign: what takes hours to show. Runs its jobs, and writes what they showed into docs/evidence.md.

    tools/campaign.py [--list] [--again] [--evidence] [JOB…]

A job is one pytest with the campaign's sizes (tests/sizes.py), on this kernel or in the lab's User-Mode Linux. As many
run at a time as there are processors, the longest first. What each job showed is kept in docs/evidence.json, which is
committed, so that a campaign that was broken off goes on where it was, on another machine too: a job that has passed is
not run again until something of what it tries has changed (TRIED), unless --again is given. A name may be the beginning
of several: `tools/campaign.py floods` runs all floods. --evidence runs nothing and writes the page. Exit code 1 when a
job failed; the evidence says so too.

Needs root, and the set-up. Touches: docs/evidence.md and docs/evidence.json, .campaign/ (logs), and what the live tests
touch.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
RESULTS = CHECKOUT / ".campaign"
EVIDENCE = CHECKOUT / "docs/evidence.md"
KEPT = CHECKOUT / "docs/evidence.json"
TRIED = ("nkform", "bpf_templates", "schemas", "examples", "tests/sizes.py")
"""What jobs try, beside their own tests: one that passed holds until something of it has changed."""
PYTHON = ".venv/bin/python"
HOURS = 6
"""After so long a job is given up."""

OWN, UML = "", "uml"
"""The machine's own kernel, and the lab's."""

ATTACKS = "tests/live/test_attacks.py"
PARTS = 12
"""As in tests/sizes.py, whose `attacked_parts` they are."""


@dataclass(frozen=True)
class Job:
    """One pytest."""

    name: str
    what: str
    """What it shows, as the head of a section of the evidence: jobs of the same one stand together."""
    tests: tuple[str, ...]
    kernel: str = OWN
    minutes: int = 5
    seed: int = 1


@dataclass(frozen=True)
class Outcome:
    """How a job went."""

    job: str
    commit: str
    date: str
    kernel: str
    """The release of the kernel that it ran on."""
    seconds: float
    passed: int
    failed: int
    skipped: int
    told: list[str]
    """What the tests counted."""
    failures: list[str]

    @property
    def ok(self) -> bool:
        return self.passed > 0 and self.failed == 0


def jobs() -> list[Job]:
    """All of them, in the order of the evidence."""
    made = []
    change = "A random change under attack: each call that changes something fails, and is not come to for a SIGKILL"
    for kind, kernel, minutes in (("veth", OWN, 4), ("netkit", UML, 8)):
        test = f"{ATTACKS}::test_a_random_change_is_whole_or_not_at_all"
        made += [
            Job(f"changes-{kind}-{part}", change, (f"{test}[{kind}-{part}]",), kernel, minutes) for part in range(PARTS)
        ]
    example = "Examples, and lists of prefixes, under the same attack"
    made += [
        Job(f"examples-{name}", example, (ATTACKS, "-k", "example or lists or teeth"), kernel, minutes)
        for name, kernel, minutes in (("veth", OWN, 2), ("netkit", UML, 6))
    ]
    flood = "Floods of a million packets and more while a chain changes"
    for kernel, hooks, minutes in ((OWN, ("tcx", "clsact", "moves"), 1), (UML, ("netkit",), 8)):
        made += [
            Job(f"floods-{hook}", flood, ("tests/live/test_chains_flood.py", "-k", hook), kernel, minutes)
            for hook in hooks
        ]
    walk = "Random walks: specs, failures, kills, drift, ways back and destruction, one after the other on one node"
    for kind, kernel in (("veth", OWN), ("netkit", UML)):
        test = f"tests/live/test_walks.py::test_a_random_walk[{kind}]"
        made += [Job(f"walk-{kind}-{seed}", walk, (test,), kernel, 10, seed) for seed in range(1, 5)]
    converging = "From any spec to any other one"
    for kind, kernel in (("veth", OWN), ("netkit", UML)):
        test = f"tests/live/test_walks.py::test_any_change_converges[{kind}]"
        made += [Job(f"converging-{kind}", converging, (test,), kernel, 2)]
    runs, hardships = "tests/live/test_runs.py", "tests/live/test_hardships.py"
    for name, kernel in (("", OWN), ("-uml", UML)):
        many = "Over and over, at once, and at any moment"
        made += [
            Job(f"cycles{name}", many, (f"{hardships}::test_cycles_leave_nothing_behind",), kernel, 1),
            Job(f"at-once{name}", many, (f"{runs}::test_many_applies_at_once",), kernel, 1),
            Job(f"kills{name}", many, (f"{runs}::test_any_moment_is_good_to_be_killed",), kernel, 1),
            Job(f"busy{name}", many, (f"{hardships}::test_a_busy_node",), kernel, 1),
        ]
    fuzz = "Mutated specs, which end in a spec or in problems that can be shown"
    test = "tests/unit/test_spec_fuzz.py::test_no_mutated_spec_ends_in_a_traceback_or_a_hang"
    made += [Job(f"fuzz-{seed}", fuzz, (test,), OWN, 2, seed) for seed in range(1, 5)]
    return made


# --- running ----------------------------------------------------------------------------


def run(job: Job, commit: str) -> Outcome:
    """Runs a job, and keeps how it went."""
    report, release, log = (RESULTS / f"{job.name}.{end}" for end in ("xml", "release", "log"))
    for old in (report, release):
        old.unlink(missing_ok=True)
    # The release is that of the kernel which the tests ran on: only who runs there can tell.
    inside = ("sh", "-c", 'uname -r >"$0" && exec "$@"', str(release))
    pytest = (PYTHON, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}", *job.tests)
    lab = ("tools/lab", "run", "--timeout", str(HOURS * 3600), job.kernel, "--") if job.kernel else ()
    environment = os.environ | {"NKFORM_CAMPAIGN": "1", "NKFORM_SEED": str(job.seed)}
    start, date = time.monotonic(), time.strftime("%Y-%m-%d", time.gmtime())
    with log.open("wb") as output:
        job_process = subprocess.Popen(
            (*lab, *inside, *pytest), stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        try:
            code = job_process.wait(HOURS * 3600)
        except subprocess.TimeoutExpired:
            job_process.terminate()
            code = job_process.wait()
    seconds = round(time.monotonic() - start, 1)
    kernel = release.read_text().strip() if release.exists() else NOT_STARTED
    return read(report, job, code, commit=commit, date=date, kernel=kernel, seconds=seconds)


def read(report: Path, job: Job, code: int, *, commit: str, date: str, kernel: str, seconds: float) -> Outcome:
    """How a job went, from pytest's report. Without one, or where pytest itself failed, the job has failed."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    told: list[str] = []
    failures: list[str] = []
    # A report is a file of our own making, not one that somebody sends.
    for case in ET.parse(report).iter("testcase") if report.exists() else ():
        problem = case.find("failure") if case.find("failure") is not None else case.find("error")
        if problem is not None:
            counts["failed"] += 1
            failures.append(f"{case.get('name')}: {(problem.get('message') or '').splitlines()[0][:200]}")
        elif case.find("skipped") is not None:
            counts["skipped"] += 1
        else:
            counts["passed"] += 1
        told += [
            f"{case.get('name')}: {each.get('value')}" for each in case.iter("property") if each.get("name") == "told"
        ]
    if code and not failures:
        counts["failed"] += 1
        failures.append(f"pytest ended with exit code {code} ({RESULTS.name}/{job.name}.log)")
    return Outcome(job.name, commit, date, kernel, seconds, told=told, failures=failures, **counts)


def kept() -> dict[str, Outcome]:
    """How each job went when it last ran."""
    outcomes = json.loads(KEPT.read_text()) if KEPT.exists() else []
    return {outcome["job"]: Outcome(**outcome) for outcome in outcomes}


def keep(outcomes: dict[str, Outcome], made: Sequence[Job]) -> None:
    """Writes down how jobs went, those that there are no more left out, and the page."""
    in_order = {job.name: outcomes[job.name] for job in made if job.name in outcomes}
    KEPT.write_text(json.dumps([asdict(outcome) for outcome in in_order.values()], indent=1) + "\n")
    EVIDENCE.write_text(evidence(made, in_order))


def git(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(("git", *arguments), capture_output=True, text=True, check=False)


WITH_CHANGES = " with changes"


def commit() -> str:
    """The commit that is tried; what is not committed is said."""
    head = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    return head + (WITH_CHANGES if git("diff", "--quiet", "HEAD", "--", *TRIED, "tests").returncode else "")


def holds(job: Job, outcome: Outcome | None) -> bool:
    """Whether a job passed, and nothing of what it tries has changed since."""
    if outcome is None or not outcome.ok or outcome.commit.endswith(WITH_CHANGES):
        return False
    own_tests = job.tests[0].partition("::")[0]
    return git("diff", "--quiet", outcome.commit, "--", *TRIED, own_tests).returncode == 0


# --- evidence ---------------------------------------------------------------------------

NOT_STARTED = "did not start"


def grouped(name: str) -> str:
    """The name of a job without the number of its part."""
    return re.sub(r"-\d+$", "", name)


NUMBER = re.compile(r"\d+")


def summed(told: Sequence[str]) -> list[str]:
    """What tests of the same wording counted, added up; what each counted alone, where the words differ."""
    groups: dict[str, list[list[int]]] = {}
    for line in told:
        text = line.partition(": ")[2]
        groups.setdefault(NUMBER.sub("#", text), []).append([int(number) for number in NUMBER.findall(text)])
    return [filled(pattern, [sum(column) for column in zip(*rows, strict=True)]) for pattern, rows in groups.items()]


def filled(pattern: str, numbers: Sequence[int]) -> str:
    """The text with numbers in their places again."""
    parts = pattern.split("#")
    return parts[0] + "".join(f"{number:,}{part}" for number, part in zip(numbers, parts[1:], strict=True))


def evidence(made: Sequence[Job], outcomes: dict[str, Outcome]) -> str:
    """The page."""
    lines = [
        "# Evidence",
        "",
        "What `make campaign` has shown: attacks, floods, walks and fuzz that take hours. `tools/campaign.py` writes",
        "it from results of tests, which evidence.json holds. It is run before each release, and when what it is about",
        "has changed.",
        "",
    ]
    done = [outcomes[job.name] for job in made if job.name in outcomes]
    failed = [outcome for outcome in done if not outcome.ok]
    missing = [job.name for job in made if job.name not in outcomes]
    kernels = {outcome.kernel for outcome in done} - {NOT_STARTED}
    hours = sum(outcome.seconds for outcome in done) / 3600
    counts = f"{len(done) - len(failed)} passed, {len(failed)} failed, {len(missing)} not run"
    lines += [f"- Jobs: {counts}; {hours:.1f} hours of work."]
    lines += [f"- Commit: {', '.join(sorted({outcome.commit for outcome in done})) or 'none'}."]
    lines += [f"- Kernels: {', '.join(sorted(kernels)) or 'none'}."]
    if dates := sorted({outcome.date for outcome in done}):
        lines += [f"- Date: {dates[0]}." if len(dates) == 1 else f"- Dates: {dates[0]} to {dates[-1]}."]
    if missing:
        groups = Counter(grouped(name) for name in missing)
        lines += ["- Not run: " + ", ".join(f"{name} ({many})" for name, many in groups.items()) + "."]
    if failed:
        lines += ["", "## Failed", ""]
        lines += [f"- `{outcome.job}`: {text}" for outcome in failed for text in outcome.failures or ["no test ran"]]
    for what in dict.fromkeys(job.what for job in made):
        rows = [outcomes[job.name] for job in made if job.what == what and job.name in outcomes]
        if rows:
            lines += ["", f"## {what}", ""]
            lines += table(rows)
    return "\n".join([*lines, ""])


def table(rows: Sequence[Outcome]) -> list[str]:
    """A line for each kind of job on each kernel, its numbered parts added up."""
    lines = ["| job | kernel | minutes | tests | counted |", "|---|---|---|---|---|"]
    groups: dict[tuple[str, str], list[Outcome]] = {}
    for row in rows:
        groups.setdefault((grouped(row.job), row.kernel), []).append(row)
    for (name, kernel), some in groups.items():
        minutes = sum(row.seconds for row in some) / 60
        counts = {key: sum(getattr(row, key) for row in some) for key in ("passed", "failed", "skipped")}
        tests = ", ".join(f"{count} {key}" for key, count in counts.items() if count)
        jobs = name if len(some) == 1 else f"{name} ({len(some)} jobs)"
        counted = "<br>".join(summed([line for row in some for line in row.told])) or "–"
        lines.append(f"| {jobs} | {kernel} | {minutes:.0f} | {tests} | {counted} |")
    return lines


# --- the command line -------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="tools/campaign.py", description="Run the campaign, and write its evidence.")
    parser.add_argument(
        "jobs", nargs="*", metavar="JOB", help="jobs to run: names, or the beginnings of some; all by default"
    )
    parser.add_argument("--list", action="store_true", help="say what there is, how long it takes and how it last went")
    parser.add_argument("--again", action="store_true", help="run also what has passed at this commit")
    parser.add_argument("--evidence", action="store_true", help="write the page from what is there, and run nothing")
    options = parser.parse_args(arguments)
    os.chdir(CHECKOUT)
    RESULTS.mkdir(exist_ok=True)
    made = jobs()
    chosen = [job for job in made if not options.jobs or any(means(name, job.name, made) for name in options.jobs)]
    if not chosen:
        parser.error(f"no job begins with {' or '.join(options.jobs)}; --list says which there are")
    outcomes = kept()
    if options.list:
        for job in chosen:
            last = state(outcomes.get(job.name))
            print(f"{job.name:20} {job.kernel or 'this kernel':12} about {job.minutes:3} min  {last}")
        return 0
    if not options.evidence:
        if os.geteuid() != 0:
            parser.error("the campaign needs root")
        for outcome in work([job for job in chosen if options.again or not holds(job, outcomes.get(job.name))]):
            outcomes[outcome.job] = outcome
            keep(outcomes, made)
    keep(outcomes, made)
    print(f"{EVIDENCE.relative_to(CHECKOUT)}: {len(outcomes)} of {len(made)} jobs")
    return int(not all(job.name in outcomes and outcomes[job.name].ok for job in chosen))


def means(word: str, name: str, made: Sequence[Job]) -> bool:
    """Whether a word on the command line means a job: its name, or the beginning of several names."""
    return word == name if any(job.name == word for job in made) else name.startswith(word)


def work(left: Sequence[Job]) -> Iterator[Outcome]:
    """Runs jobs, as many at a time as there are processors, the longest first; gives each when it has ended."""
    now = commit()
    print(f"{len(left)} jobs to run at {now}", flush=True)
    for kernel in sorted({job.kernel for job in left if job.kernel}):  # once, rather than all jobs waiting for it
        subprocess.run(("tools/lab", "fetch", kernel), check=False)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        ordered = sorted(left, key=lambda job: job.minutes, reverse=True)
        for future in as_completed([pool.submit(run, job, now) for job in ordered]):
            outcome = future.result()
            print(f"{outcome.job:20} {state(outcome)}", *outcome.told, *outcome.failures, sep="\n    ", flush=True)
            yield outcome


def state(outcome: Outcome | None) -> str:
    if outcome is None:
        return "not run"
    verdict = "passed" if outcome.ok else "FAILED"
    return f"{verdict} at {outcome.commit} on {outcome.date} in {outcome.seconds / 60:.0f} min on {outcome.kernel}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
