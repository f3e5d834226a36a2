#!/usr/bin/python3
"""How much of some packages the tests run that need no root; exit code 1 if it is less than it has to be.

    tools/covered.py [PYTEST ARGUMENTS]

Other processes are measured too: guardians, watches, and what runs in user namespaces (tests/unit/test_rootless.py).
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

CONFIG = """
[run]
parallel = true
data_file = {folder}/data
patch = subprocess, _exit, fork
source =
"""


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="nkform-coverage-") as name:
        folder = Path(name)
        config = folder / "config"
        config.write_text(CONFIG.format(folder=folder) + "".join(f"    {CHECKOUT / package}\n" for package in LEAST))
        workers = str(len(os.sched_getaffinity(0)) + 1)
        tests = ("-p", "no:cacheprovider", "-q", "-n", workers, "--dist", "worksteal", "tests/unit", *arguments)
        if code := coverage(config, "run", "-m", "pytest", *tests):
            return code
        coverage(config, "combine", "-q")
        coverage(config, "json", "-q", "-o", str(folder / "report"))
        return judge(json.loads((folder / "report").read_text())["files"])


def coverage(config: Path, command: str, *words: str) -> int:
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
