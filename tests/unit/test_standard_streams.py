"""What is printed, where a signal's handler prints while something else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nkform.kernel.standard_streams import Output


def test_what_a_handler_prints_meanwhile_comes_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the handler of a signal does that arrives during a write."""
    path = tmp_path / "said"
    with path.open("w") as stream:
        output = Output(stream)
        genuine, said = os.write, [b"from the handler\n" * 3]

        def interrupted(fd: int, data: bytes) -> int:
            done = genuine(fd, bytes(data)[:5])
            while said:
                output.write(said.pop())
            return done

        monkeypatch.setattr("nkform.kernel.standard_streams.os.write", interrupted)
        output.write(b"from the run\n")
        output.write(b"the rest\n")
        monkeypatch.undo()
        assert path.read_text() == "from the run\n" + "from the handler\n" * 3 + "the rest\n"
