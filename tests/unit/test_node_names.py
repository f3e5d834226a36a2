"""Names of nodes become parts of paths: what is none is nobody's mark, and has no folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from nkform.document.names import node_fault
from nkform.kernel import rundir
from nkform.kernel.error import KernelError
from nkform.model import is_node_name, mark, owner_of

GOOD = ("worker-1", "w", "a.b_C-9", "...", "x" * 63)
BAD = (
    "",
    ".",
    "..",
    "../evil",
    "../../tmp/evil",
    "/etc",
    "a/b",
    "@machine",
    "@lock",
    "a b",
    "a\n",
    "é",
    "x" * 64,
    "a\0b",
)


@pytest.mark.parametrize("name", GOOD)
def test_a_mark_names_its_node(name: str) -> None:
    assert owner_of(mark(name)) == name
    assert node_fault(name) is None


@pytest.mark.parametrize("name", BAD)
def test_what_names_no_node_is_nobodys_mark(name: str) -> None:
    assert owner_of(mark(name)) is None
    assert node_fault(name)
    assert not is_node_name(name)


@pytest.mark.parametrize("name", [name for name in BAD if name != rundir.MACHINE])
def test_what_names_no_node_has_no_folder(name: str, tmp_path: Path) -> None:
    base = tmp_path / "run"
    with pytest.raises(KernelError):
        rundir.write(name, "journal", "", base)
    with pytest.raises(KernelError):
        rundir.hold(name, "guardian", "", base)
    assert {path.name for path in tmp_path.rglob("*")} <= {"run"}


def test_a_folder_whose_name_is_no_nodes_is_none(tmp_path: Path) -> None:
    for name in ("worker-1", "@machine", "a b", "x" * 64):
        (tmp_path / name).mkdir()
    assert rundir.nodes(tmp_path) == ["worker-1"]
