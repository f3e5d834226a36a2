"""Runs `nkform` as a user does, in a process of its own, with nothing but what this checkout has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).parents[2]


def nkform(*words: object) -> subprocess.CompletedProcess[str]:
    """What a command said and its exit code."""
    command = [sys.executable, "-m", "nkform", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TOP, timeout=120)
