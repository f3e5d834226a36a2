"""Limits of the process that nkform runs into before anything is changed: errors that say what to raise."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nkform.cli import validate
from nkform.cli.main import main


@pytest.mark.parametrize(
    ("error", "told", "hint"),
    [
        (MemoryError(), "nkform ran out of memory", "ulimit -v"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "Cannot allocate memory", "ulimit -v"),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "could not make a process", "pids.max"),
    ],
    ids=["memory", "memory of the kernel", "processes"],
)
def test_a_limit_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    told: str,
    hint: str,
) -> None:
    def run(_: object) -> int:
        raise error

    monkeypatch.setattr(validate, "run", run)
    assert main(["validate", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error[NK0601]: ")
    assert told in said
    assert hint in said
