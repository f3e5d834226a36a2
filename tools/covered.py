#!/usr/bin/python3
"""How much of some packages the tests run that need no root; exit code 1 if it is less than it has to be.

    tools/covered.py [--missing]

`--missing` names the lines that are not run. Only the test files that are about these packages are run: what is
measured is slower, and all others are tried without. Other processes are measured too: guardians, watches, and what
runs in user namespaces (tests/unit/test_rootless.py). Where the kernel has none of these, nothing is judged.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LEAST = {"nkform/session": 90, "nkform/plan": 90, "nkform/report": 90}
"""Percentages of lines."""

TESTS = (
    *("collisions", "computed", "doctor", "drift", "linear", "plan_cases", "plan_grace", "plan_maps", "plan_order"),
    *("plan_parts", "plan_texts", "problems", "records", "replacement", "reports", "resolve", "rootless"),
    *("saved_plans", "shared_routes", "show", "state_diff", "status", "stuck", "valid_part", "watch"),
)
"""Files of tests/unit."""

CONFIG = """
[run]
parallel = true
data_file = {folder}/data
patch = subprocess, _exit, fork
source =
"""


def main(arguments: list[str]) -> int:
    if subprocess.run(("unshare", "--user", "--map-root-user", "true"), capture_output=True, check=False).returncode:
        print("not judged: this kernel has no user namespaces for everybody")
        return 0
    with tempfile.TemporaryDirectory(prefix="nkform-coverage-") as name:
        folder = Path(name)
        config = folder / "config"
        config.write_text(CONFIG.format(folder=folder) + "".join(f"    {CHECKOUT / package}\n" for package in LEAST))
        workers = str(len(os.sched_getaffinity(0)) + 2)
        files = [f"tests/unit/test_{name}.py" for name in TESTS]
        tests = ("-p", "no:cacheprovider", "-q", "-n", workers, "--dist", "worksteal", *files)
        report = str(folder / "report")
        for words in (("run", "-m", "pytest", *tests), ("combine", "-q"), ("json", "-q", "-o", report)):
            if code := coverage(config, *words):
                return code
        if "--missing" in arguments:
            coverage(config, "report", "--show-missing", "--skip-covered")
        return judge(json.loads(Path(report).read_text())["files"])


def coverage(config: Path, command: str, *words: str) -> int:
    """Its exit code."""
    whole = (sys.executable, "-m", "coverage", command, f"--rcfile={config}", *words)
    return subprocess.run(whole, cwd=CHECKOUT, env=os.environ | {"NKFORM_ROOTLESS": "all"}, check=False).returncode


def judge(files: dict[str, dict[str, dict[str, int]]]) -> int:
    """Says what was found of each package; 1 if one has too little."""
    failed = 0
    for package, least in LEAST.items():
        found = [file["summary"] for path, file in files.items() if f"{package}/" in path]
        lines = sum(each["num_statements"] for each in found)
        percent = 100 * sum(each["covered_lines"] for each in found) / lines if lines else 0.0
        verdict = "ok" if percent >= least else f"too little: it has to be {least} %"
        failed |= percent < least
        print(f"{package}: {percent:.1f} % of {lines} lines; {verdict}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
