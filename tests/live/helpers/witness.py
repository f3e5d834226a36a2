"""Where the tests find witnesses: an `ip` and a `bpftool` that know what the kernel has, however pytest was started.

Named by NKFORM_IP and NKFORM_BPFTOOL, else those that `tools/lab witness` put into the lab's cache, else the installed
ones. A test that needs a newer one than that is skipped, and says so. Runs the programs with `-V` and `version`.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

Version = tuple[int, ...]

GET_ONE = "tools/lab witness, as root, fetches one"


def _cached(name: str) -> Path:
    """Where the lab keeps its witnesses, for this release of Debian (tools/lab, fetch_witness)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    release = Path("/etc/os-release")
    codename = re.search(r"^VERSION_CODENAME=(\S+)", release.read_text() if release.exists() else "", re.MULTILINE)
    return cache / "nkform-lab/witness" / (codename[1] if codename else "none") / "bin" / name


def find(name: str) -> str:
    """The newest program of that name that is here, "" if none is."""
    named, cached = os.environ.get(f"NKFORM_{name.upper()}", ""), _cached(name)
    return named or (str(cached) if cached.exists() else "") or shutil.which(name) or ""


IP = find("ip") or "ip"
BPFTOOL = find("bpftool")


@functools.cache
def version(program: str, *words: str) -> Version:
    """The version that a program says it has; (0,) if there is none."""
    if not program:
        return (0,)
    done = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    numbers = re.search(r"(?:iproute2-|bpftool v)(\d+(?:\.\d+)*)", done.stdout)
    return tuple(map(int, numbers[1].split("."))) if numbers else (0,)


def needs_ip(since: str) -> pytest.MarkDecorator:
    """Skips a test that asks `ip` for what it shows since a version of iproute2."""
    return _needs("ip", version(IP, "-V"), since)


def needs_bpftool(since: str) -> pytest.MarkDecorator:
    """Skips a test that asks bpftool for what it shows since a version."""
    return _needs("bpftool", version(BPFTOOL, "version"), since)


def _needs(name: str, here: Version, since: str) -> pytest.MarkDecorator:
    shown = ".".join(map(str, here)) if any(here) else "none"
    missing = here < tuple(map(int, since.split(".")))
    return pytest.mark.skipif(missing, reason=f"the witness {name} is {shown}, not {since} or newer: {GET_ONE}")
