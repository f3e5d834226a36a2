"""The guardian of a trial depends on nothing that others, or the change itself, can take away."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import journal
from nkform.kernel import rundir
from tests.live.helpers import isolation
from tests.live.helpers.chain_sites import TCX_INGRESS
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import PATIENCE, until
from tests.live.helpers.support import Node, needs, sh
from tests.live.test_confirm import Apply
from tests.live.test_going_back import _nobody_stays_behind, alive, changed, mtus, tried  # noqa: F401 - the fixture
from tests.live.test_pairs import veth

TOP = Path(__file__).parents[2]

GONE = """
import os, sys

class Gone:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if os.path.exists({gone!r}):
            with open({gone!r}, "a") as file:
                print(name, file=file)
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Gone)
"""
"""As sitecustomize: from the moment on that a file is there no module can be loaded; who tries is named in it."""


def pairs() -> tuple[dict[str, Any], dict[str, Any]]:
    other = veth()
    other["devices"]["to-a"]["addresses"] = ["10.9.9.9/24"]
    del other["devices"]["to-b"], other["namespaces"]["b"]
    return veth(), other


def programs() -> tuple[dict[str, Any], dict[str, Any]]:
    return TCX_INGRESS.spec(["count", "guard"]), TCX_INGRESS.spec([])


@pytest.mark.parametrize("specs", [pairs, pytest.param(programs, marks=needs("tcx"))])
def test_a_guardian_needs_no_code_that_it_has_not_loaded(
    node: Node, specs: Callable[[], tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    """nkform is removed or upgraded during the trial, or what is tried cut it off."""
    before_spec, other = specs()
    node.apply(before_spec)
    before = netstate_snapshot()
    installed, gone = node.folder / "installed", node.folder / "gone"
    for name in ("nkform", "bpf_templates", "schemas"):
        shutil.copytree(TOP / name, installed / name, ignore=shutil.ignore_patterns("__pycache__"))
    (installed / "sitecustomize.py").write_text(GONE.format(gone=str(gone)))
    words = [sys.executable, "-m", "nkform", "apply", "-y", "--confirm", "3s", "--detach", str(node.write(other))]
    subprocess.run(words, check=True, env={**os.environ, "PYTHONPATH": str(installed)}, cwd=installed)
    gone.touch()
    installed.rename(node.folder / "away")
    assert differences(before, netstate_snapshot()) != []
    until(lambda: not alive() or gone.read_text())
    assert gone.read_text() == ""
    assert differences(before, netstate_snapshot()) == []


def touch() -> None:
    (rundir.RUN / "w" / journal.UNCONFIRMED).touch()


def cover() -> None:
    """Something is mounted over /run for a while, also when the time is over."""
    isolation.mount("tmpfs", "/run")
    time.sleep(4)
    assert alive()
    sh("umount", "/run")


@pytest.mark.parametrize("happens", [touch, cover])
def test_what_is_done_to_the_record_is_no_confirmation(node: Node, happens: Callable[[], None]) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "3s")
    happens()
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []


def test_a_record_that_somebody_removes_is_waited_for_no_more(node: Node) -> None:
    node.apply(veth())
    tried(node, "600s")
    (rundir.RUN / "w" / journal.UNCONFIRMED).unlink()
    until(lambda: not alive())
    node.apply(veth())


def test_a_run_that_waits_at_a_terminal_can_be_confirmed_whatever_touches_its_record(node: Node) -> None:
    node.apply(veth())
    run = Apply(node, changed(), PATIENCE)
    run.hears("press Enter")
    touch()
    time.sleep(1)
    os.write(run.terminal, b"\n")
    assert run.ended() == 0, run.said
    assert "Confirmed" in run.said
    assert mtus() == {1400}
