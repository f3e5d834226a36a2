"""The witnesses: the newest `ip`, `tc`, `ss`, `bridge` and `bpftool` that run on this Debian, unpacked into the cache.

They show netkit devices; the installed ones may not.
"""

from __future__ import annotations

import os
from pathlib import Path

from debian_archive import Suite, ToolError, appearing, cache_folder, codename, fresh, locked, newer, note

# Where packages put programs; it differs between releases.
PLACES = ("bin", "sbin", "usr/bin", "usr/sbin")


def cached_witness() -> Path | None:
    folder = cache_folder() / "witness" / codename() / "bin"
    return folder if folder.exists() else None


def fetch_witness() -> Path:
    """The newest `ip` and `bpftool` that run on this Debian: they show netkit devices, the installed ones may not."""
    folder = cache_folder() / "witness" / codename()
    with locked("witness"):
        stamp = folder / "versions"
        if fresh(stamp):
            return folder / "bin"
        wanted: dict[str, tuple[Suite, str]] = {}
        for suite in map(Suite, (codename(), f"{codename()}-backports")):
            try:
                suite.refresh()
            except ToolError as error:
                note(str(error))
                continue
            for package in ("iproute2", "bpftool"):
                version = suite.field(package, "Version")
                if version and (package not in wanted or newer(version, wanted[package][1])):
                    wanted[package] = (suite, version)
        if len(wanted) < 2:
            if folder.exists():
                return folder / "bin"
            raise ToolError("Debian's archive cannot be reached, and no iproute2 and bpftool are in the cache")
        versions = "".join(f"{package} {version}\n" for package, (_, version) in sorted(wanted.items()))
        if not stamp.exists() or stamp.read_text() != versions:
            with appearing(folder) as work:
                for package, (suite, _) in wanted.items():
                    suite.unpack([package], work)
                (work / "bin").mkdir(exist_ok=True)
                for program in ("ip", "tc", "ss", "bridge", "bpftool"):
                    real = next(work / place / program for place in PLACES if (work / place / program).exists())
                    if real.parent != work / "bin":
                        (work / "bin" / program).symlink_to(os.path.relpath(real, work / "bin"))
                (work / "versions").write_text(versions)
        stamp.touch()
        return folder / "bin"
