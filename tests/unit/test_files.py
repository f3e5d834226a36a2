"""Given a name that somebody gave, nothing but a file is read, and nobody waits for what is none."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from nkform.cli.main import main
from nkform.kernel import files


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


NO_FILES: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "socket": _socket,
    "symbolic links": lambda path: path.symlink_to(path.name),
    "device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("words", NO_FILES)
@pytest.mark.parametrize("command", ["validate", "plan", "apply", "var-file", "folder"])
def test_what_is_no_file_is_an_error_with_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, command: str
) -> None:
    path = tmp_path / "given.yaml"
    NO_FILES[words](path)
    spec = tmp_path / "spec.yaml"
    spec.write_text("version: 1\nnode: w\n")
    asked = {
        "var-file": ["validate", str(spec), "--var-file", str(path)],
        "folder": ["validate", str(tmp_path)],
    }.get(command, [command, str(path)])
    assert main(asked) == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert words in said
    assert "NK0101" in said


def test_a_pipe_of_the_shell_is_as_good_as_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    ours, its = os.pipe()
    os.write(its, b"version: 1\nnode: w\n")
    os.close(its)
    assert main(["validate", f"/dev/fd/{ours}"]) == 0, capsys.readouterr().err
    os.close(ours)


def test_a_file_that_became_a_fifo_makes_nobody_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, other = tmp_path / "fifo", tmp_path / "file"
    os.mkfifo(path)
    other.touch()
    state = os.stat(other)  # noqa: PTH116
    monkeypatch.setattr(os, "stat", lambda *_, **__: state)
    with pytest.raises(files.NoFileError, match="FIFO"):
        files.read(path, 10)


def test_no_more_is_read_than_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1000))
    assert len(files.read(path, 10)) == 11
