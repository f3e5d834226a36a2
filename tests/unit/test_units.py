"""The units for systemd: known to systemd where it is at hand, and everywhere in words that nkform itself takes."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nkform.cli.arguments import parse

UNITS = sorted((Path(__file__).parents[2] / "systemd").glob("*.service"))


def settings(unit: Path) -> dict[str, list[str]]:
    """The values of a unit's settings, by name."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def test_there_are_two() -> None:
    assert [unit.name for unit in UNITS] == ["nkform-apply.service", "nkform-watch.service"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_they_start_is_a_command_of_nkform(unit: Path) -> None:
    (start,) = settings(unit)["ExecStart"]
    program, *words = shlex.split(start)
    assert program == "nkform"
    options = parse(words)
    assert [str(path) for path in options.spec] == ["/etc/nkform"]
    assert settings(unit)["ConditionDirectoryNotEmpty"] == ["/etc/nkform"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_no_unit_has_mounts_of_its_own(unit: Path) -> None:
    """Namespaces are mounts below /run/netns, and must be seen outside."""
    own = {"ProtectSystem", "ProtectHome", "ProtectKernelTunables", "ProtectKernelModules", "ProtectControlGroups"}
    own |= {"PrivateTmp", "PrivateDevices", "PrivateNetwork", "PrivateMounts", "ReadOnlyPaths", "ReadWritePaths"}
    assert not own & settings(unit).keys()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze here")
def test_systemd_takes_them(tmp_path: Path) -> None:
    for unit in UNITS:
        text = unit.read_text().replace("ExecStart=nkform ", f"ExecStart={sys.executable} -m nkform ")
        (tmp_path / unit.name).write_text(text)
    words = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / unit.name) for unit in UNITS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "nkform" not in done.stderr
