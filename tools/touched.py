#!/usr/bin/python3
"""Runs the live tests that a change may break, on this kernel, for a minute: the inner loop of `make check`.

    tools/touched.py [--list]

Always the smoke set, which goes through all rooms of the house. Beside it the files of tests that were changed, those
that import a changed module of nkform or a changed helper of the tests, and those named after one. It is a choice, not
a proof: what it leaves out, or skips because the minute is over, `make live` and `make test` run. Changed is what the
branch has that its upstream, or `main`, has not, and what is not committed; where there is no such thing, what the last
commit brought.

Touches nothing itself. The tests need root.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LIVE = CHECKOUT / "tests" / "live"
HELPERS = LIVE / "helpers"
WORKERS = "4"
"""Much of a test is waiting."""
SECONDS = 60
"""After so long no further test begins."""


def git(*words: str) -> str:
    done = subprocess.run(("git", *words), cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def base() -> str:
    """The commit that changes are counted from."""
    head = git("rev-parse", "HEAD")
    for name in ("@{upstream}", "origin/main", "main"):
        shared = git("merge-base", "HEAD", name)
        if shared and shared != head:
            return shared
    clean = not git("status", "--porcelain")
    return "HEAD~1" if clean and git("rev-parse", "--verify", "HEAD~1") else "HEAD"


def changed() -> list[Path]:
    """The files that were changed, added or removed."""
    names = git("diff", "--name-only", base()).splitlines()
    names += git("ls-files", "--others", "--exclude-standard").splitlines()
    return [Path(name) for name in dict.fromkeys(names)]


def touched(files: Iterable[Path]) -> dict[Path, list[str]]:
    """The files of live tests that changed files touch, with the changed ones that do."""
    texts = {path: path.read_text() for path in sorted((*LIVE.glob("*.py"), *HELPERS.glob("*.py")))}
    tests: dict[Path, list[str]] = {}
    for file in files:
        if file.suffix != ".py" or file.parts[0] not in ("nkform", "tests"):
            continue
        wanted = importing(file, texts)
        wanted |= {path for path in texts if path.relative_to(CHECKOUT) == file or path.stem == f"test_{file.stem}"}
        if file.parent == Path("tests/live/helpers"):  # a helper of another helper touches what that one does
            for path in [path for path in wanted if not path.name.startswith("test_")]:
                wanted |= importing(path.relative_to(CHECKOUT), texts)
        for path in wanted:
            if path.name.startswith("test_"):
                tests.setdefault(path, []).append(str(file))
    return tests


def importing(file: Path, texts: dict[Path, str]) -> set[Path]:
    """The files whose text imports a module."""
    parts = file.with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    package, name = ".".join(parts[:-1]), parts[-1]
    dotted = re.escape(".".join(parts))
    listed = rf"from {re.escape(package)} import (?:\([^)]*\b{name}\b|[^\n(]*\b{name}\b)"
    pattern = re.compile(rf"^\s*(?:from {dotted} import|import {dotted}\b|{listed})", re.MULTILINE)
    return {path for path, text in texts.items() if pattern.search(text)}


def main(arguments: Sequence[str]) -> int:
    files = changed()
    tests = touched(files)
    smoke = [path for path in sorted(LIVE.glob("test_*.py")) if "mark.smoke" in path.read_text()]
    print("the smoke set, and", *(sorted(path.stem for path in tests) or ["no other file: none is touched"]))
    if "--list" in arguments:
        for path, because in sorted(tests.items()):
            print(f"  {path.relative_to(CHECKOUT)}: {', '.join(because)}")
        return 0
    pytest = (sys.executable if ".venv" in sys.executable else str(CHECKOUT / ".venv/bin/python"), "-m", "pytest")
    # One pytest for all: what is not of a touched file has to be of the smoke set.
    names = [str(path.relative_to(CHECKOUT)) for path in sorted({*smoke, *tests})]
    options = ["-q", "-n", WORKERS, "--dist", "worksteal", "-m", "not long", f"--seconds={SECONDS}"]
    options.append("--touched=" + ",".join(str(path.relative_to(CHECKOUT)) for path in tests))
    options.append(
        "--changed="
        + ",".join(str(path.relative_to(CHECKOUT)) for path in tests if path.relative_to(CHECKOUT) in files)
    )
    return subprocess.run([*pytest, *options, *names], cwd=CHECKOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
