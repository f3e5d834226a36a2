"""A run on trial begins with a guardian, or not at all; and a guardian belongs to no control group of its maker's."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nkform.kernel import daemon, rundir
from tests.live.helpers.isolation import CLONE_NEWNS
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Process, until
from tests.live.helpers.support import Node, sh
from tests.live.test_confirm import guardians
from tests.live.test_going_back import changed, kill_guardians, mtus, tried
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")

BUSY = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


@pytest.fixture(autouse=True)
def _nobody_stays_behind() -> Iterator[None]:
    yield
    if guardians():
        kill_guardians()


def no_second_fork(patch: pytest.MonkeyPatch) -> None:
    """As where `pids.max` of the control group leaves room for one process more."""
    genuine, maker = os.fork, os.getpid()

    def fork() -> int:
        if os.getpid() != maker:
            raise BUSY
        return genuine()

    patch.setattr(os, "fork", fork)


def no_fork(patch: pytest.MonkeyPatch) -> None:
    def fork() -> int:
        raise BUSY

    patch.setattr(os, "fork", fork)


def no_file(patch: pytest.MonkeyPatch) -> None:
    def detach(name: bytes) -> None:
        raise OSError(errno.ENFILE, os.strerror(errno.ENFILE), str(name))

    patch.setattr(daemon, "detach", detach)


def death(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(daemon, "detach", lambda _: os.kill(os.getpid(), 9))


@pytest.mark.parametrize("prevent", [no_second_fork, no_fork, no_file, death])
def test_without_a_guardian_nothing_is_changed(node: Node, prevent: object, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())
    assert callable(prevent)
    with monkeypatch.context() as patch:
        prevent(patch)
        outcome = node.run("apply", "-y", "--confirm", "600s", "--detach", str(node.path))
    assert outcome.code == 1, outcome.err
    assert "NK0618" in outcome.err
    assert "nothing was changed" in outcome.err
    assert differences(before, netstate_snapshot()) == []
    assert not Path("/run/nkform/w", rundir.GUARDIAN).exists()
    node.apply(changed())


def test_that_no_other_guardian_can_be_had_is_told(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(veth())
    tried(node, "600s")
    kill_guardians()
    with monkeypatch.context() as patch:
        no_second_fork(patch)
        outcome = node.run("status")
    assert "another one waits" not in outcome.err
    assert "warning[NK0618]" in outcome.err
    assert "another one waits" in node.run("status").err
    assert node.run("confirm").code == 0
    assert mtus() == {1400}


@pytest.fixture
def frozen(tmp_path: Path) -> Iterator[Path]:
    """A control group of version 1, to be frozen, where no other test looks for one."""
    top = tmp_path / "freezer"
    top.mkdir()
    try:
        sh("mount", "-t", "cgroup", "-o", "freezer", "nkform", str(top))
    except AssertionError as error:
        pytest.skip(f"this kernel has no freezer of control groups, version 1: {error}")
    group = top / f"nkform-test-{os.getpid()}"
    group.mkdir()
    yield group
    (group / "freezer.state").write_text("THAWED")
    for number in (group / "cgroup.procs").read_text().split():
        (top / "cgroup.procs").write_text(number)
    group.rmdir()
    sh("umount", str(top))


@pytest.mark.parametrize("where", ["here", "not here"])
def test_a_frozen_control_group_keeps_nobody_from_going_back(node: Node, frozen: Path, where: str) -> None:
    """Not here: as with `ip netns exec`, which mounts a /sys of its own, without control groups."""
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())

    def join() -> None:
        (frozen / "cgroup.procs").write_text(str(os.getpid()))
        if where == "not here":
            assert ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0
            sh("umount", "-l", str(frozen.parent))

    run = Process("apply", "-y", "--confirm", "2s", str(node.path), prepare=join)
    run.hears("otherwise")
    (frozen / "freezer.state").write_text("FROZEN")
    until(lambda: mtus() == {1500})
    assert differences(before, netstate_snapshot()) == []
    (frozen / "freezer.state").write_text("THAWED")
    assert run.ended() == 1
