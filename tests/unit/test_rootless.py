"""What sessions do, without root: live tests in a user namespace, where anybody is root over networks of his own.

No program can be loaded there, and no bpffs mounted: tests of that are live tests alone.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount", "--net")

FILES = {
    "session": "",
    "confirm": "",
    "rollback": "",
    "undo": "",
    "several_nodes": "",
    "saved_plans": "not others_could",  # files of other users, of whom there are none
    # The rest loads programs.
    "keep_going": "not device and not absent and not watch",
    "watch": "not maps and not chains and not capabilities",
    "drift": "not chains",
    "cli": "not little and not programs",
    "features": "not arp and not auto",
}
"""Of tests/live, the files that try what sessions do, and which of their tests (`-k`)."""

SHOWN = ("session", "confirm")
"""Those that root tries, for whom `make live` tries them all as they are."""

ALL = os.geteuid() != 0 or os.environ.get("NKFORM_ROOTLESS") == "all"
"""tools/covered.py asks root for them all too."""


def allowed() -> bool:
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("name", [name for name in FILES if ALL or name in SHOWN])
def test_sessions_in_a_user_namespace(name: str) -> None:
    if not allowed():
        pytest.skip("this kernel has no user namespaces for everybody")
    words = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "-rf")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [*UNSHARE, *words, "-k", FILES[name], f"tests/live/test_{name}.py"],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert re.search(r"\b\d+ passed", done.stdout)
