"""Whoever has the machine's lock and is stopped, or is stuck, keeps nothing from going back."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import journal
from nkform.apply.executor import Executor
from nkform.kernel import holders, rundir
from nkform.session import guardian as guardians
from nkform.session import guardian_record, stuck
from tests.live.helpers import isolation
from tests.live.helpers.attack import die
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Process, until
from tests.live.helpers.support import Node, link, sh
from tests.live.test_confirm import TRIAL, Apply
from tests.live.test_going_back import (  # noqa: F401 - the fixture
    _nobody_stays_behind,
    alive,
    changed,
    mtus,
    take_the_name,
    tried,
)
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")

GROUPS = {
    "cgroup v1": (Path("/sys/fs/cgroup/freezer"), "cgroup -o freezer", "freezer.state", "FROZEN", "THAWED"),
    "cgroup v2": (Path("/sys/fs/cgroup/unified"), "cgroup2", "cgroup.freeze", "1", "0"),
}


def is_guardian() -> bool:
    return Path("/proc/self/comm").read_text().strip() == "nkform-guardian"


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def a_guardian_is_stopped() -> bool:
    with contextlib.suppress(OSError):  # it has just ended
        return any(state_of(int(process)) == "T" for process in alive())
    return False


def half_way(halts: Callable[[], object]) -> Callable[[], None]:
    """Has a process come to that after the first action of its run."""

    def prepare() -> None:
        genuine = Executor.run

        def run(self: Executor, actions: Sequence[Any]) -> None:
            Executor.run = genuine  # type: ignore[method-assign]
            genuine(self, actions[:1])
            halts()
            genuine(self, actions[1:])

        Executor.run = run  # type: ignore[method-assign]

    return prepare


def stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.fixture
def stopping_guardian(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guardian stops half-way back, each time that it tries."""
    genuine = Executor.run

    def run(self: Executor, actions: Sequence[Any]) -> None:
        if is_guardian():
            genuine(self, actions[:1])
            stop()
            actions = actions[1:]
        genuine(self, actions)

    monkeypatch.setattr(Executor, "run", run)


@pytest.fixture
def group(request: pytest.FixtureRequest) -> Iterator[tuple[Path, str, str, str]]:
    """A control group; tests see no others (isolation.py)."""
    root, kind, *words = GROUPS[request.param]
    isolation.mount("tmpfs", "/sys/fs/cgroup")
    try:
        root.mkdir(exist_ok=True)
        mounted = subprocess.run(["mount", "-t", *kind.split(), "none", root], capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip(f"this kernel has no {request.param}")
        folder = root / f"nkform-test-{os.getpid()}"
        folder.mkdir()
        yield (folder, *words)
        (folder / words[0]).write_text(words[2])
        until(lambda: not (folder / "cgroup.procs").read_text())
        folder.rmdir()
        sh("umount", str(root))
    finally:
        sh("umount", "--lazy", "/sys/fs/cgroup")


@pytest.mark.parametrize("command", ["rollback", "confirm"])
def test_a_command_that_is_stopped_while_it_has_the_lock_is_not_waited_for(
    node: Node, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "3s")

    def stops_at_once() -> None:
        monkeypatch.setattr(journal, "confirm", lambda _: stop())

    if command == "rollback":
        run = Process("rollback", "-y", prepare=half_way(stop))
    else:
        run = Process("confirm", prepare=stops_at_once)
    until(lambda: state_of(run.pid) == "T")
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []
    assert run.ended() == -signal.SIGKILL


def test_one_that_is_stuck_is_not_waited_for_either(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck, "STALLED", 3.0)
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "2s")
    run = Process("rollback", "-y", prepare=half_way(lambda: time.sleep(3600)))
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []
    assert run.ended() == -signal.SIGKILL


def busy() -> None:
    """For longer than anybody waits who gets on, though slowly."""
    for _ in range(60):
        time.sleep(0.1)


def child_works() -> None:
    """It waits for a process that it started, and that works."""
    subprocess.run(["timeout", "6", "sh", "-c", "while :; do sleep 0.2; done"], check=False)


@pytest.mark.parametrize("works", [busy, child_works])
def test_one_that_gets_on_is_waited_for(node: Node, works: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KEPT", "STALLED"):
        monkeypatch.setattr(stuck, name, 2.0)
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "5s")  # so long a start may take
    run = Process("rollback", "-y", prepare=half_way(works))
    until(lambda: not alive())
    assert run.ended() == 0, run.said
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize("group", list(GROUPS), indirect=True)
def test_one_that_is_frozen_is_killed_as_soon_as_the_kernel_can(node: Node, group: tuple[Path, str, str, str]) -> None:
    """One in a group of cgroup v1 ends when that is thawed, and that is told."""
    folder, name, frozen, thawed = group
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "3s")

    def freeze() -> None:
        (folder / "cgroup.procs").write_text(str(os.getpid()))
        (folder / name).write_text(frozen)
        time.sleep(0.1)

    run = Process("rollback", "-y", prepare=half_way(freeze))
    if name == "freezer.state":
        until(lambda: frozen in (folder / name).read_text())
        time.sleep(9)
        assert rundir.is_locked()
        told = node.run("plan", str(node.path)).err
        assert f"(process {run.pid}) was killed, and does not end" in told
        assert "thaw" in told
        (folder / name).write_text(thawed)
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []
    assert run.ended() == -signal.SIGKILL


@pytest.mark.usefixtures("stopping_guardian")
@pytest.mark.parametrize("command", ["plan", "show", "status", "doctor", "apply", "recover", "rollback"])
def test_the_next_command_takes_the_place_of_a_guardian_that_is_stopped_half_way(node: Node, command: str) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "1s")
    until(a_guardian_is_stopped)
    node.write(veth())
    words = {"plan": ["plan", str(node.path)], "apply": ["apply", "-y", str(node.path)],
             "recover": ["recover", "-y"], "rollback": ["rollback", "-y"]}  # fmt: skip
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > overdue_at())
    outcome = node.run(*words.get(command, [command]))
    assert "is stopped" in outcome.err, outcome.err
    assert "it is killed" in outcome.err
    if command == "rollback":
        assert "NK0514" in outcome.err  # what went half-way back comes first
        assert node.run("recover", "-y").code == 0
    else:
        assert outcome.code == 0, outcome.err
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []
    assert rundir.stamp("w", journal.JOURNAL) is None
    node.apply(changed())


def overdue_at() -> float:
    """When a guardian should have gone back at the latest."""
    guarded = guardian_record.guarded_by_last("w")
    return (guarded.until or 0.0) + guardian_record.OVERDUE if guarded else 0.0


@pytest.mark.usefixtures("stopping_guardian")
def test_a_guardian_that_is_stopped_while_it_takes_back_a_killed_run_is_not_waited_for(node: Node) -> None:
    """Nobody was to confirm that run yet, so there is no time that could be over."""
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())
    run = Process("apply", "-y", "--confirm", "600s", str(node.path), prepare=half_way(die))
    assert run.ended() == -signal.SIGKILL
    until(a_guardian_is_stopped)
    assert "it is killed" in node.run("plan", str(node.path)).err
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.usefixtures("stopping_guardian")
def test_a_run_under_way_that_is_stopped_is_its_own_guardians_concern(node: Node) -> None:
    node.apply(veth())
    node.write(changed())
    run = Process("apply", "-y", "--confirm", "600s", str(node.path), prepare=half_way(stop))
    until(lambda: state_of(run.pid) == "T")
    assert "it is killed" not in node.run("plan", str(node.path)).err
    os.kill(run.pid, signal.SIGCONT)
    run.hears("nkform confirm")
    assert node.run("confirm").code == 0
    assert run.ended() == 0


@pytest.mark.usefixtures("stopping_guardian")
def test_the_run_that_waits_takes_the_place_of_a_guardian_that_is_stopped_half_way(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    run = Apply(node, changed(), TRIAL)
    run.hears("otherwise")
    run.hears("it is killed")
    until(_continued)  # the next one stops, too
    assert run.ended() == 1
    assert differences(before, netstate_snapshot()) == []


def _continued() -> bool:
    """Whether there is no guardian any more; one that is stopped goes on."""
    for process in alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGCONT)
    return not alive()


def test_a_guardian_that_is_stopped_when_it_tries_again_is_not_waited_for_either(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has noted by then that not all goes back."""
    genuine = guardians.go_back
    tries = []

    def go_back(*words: str) -> object:
        tries.append(1)
        if is_guardian() and len(tries) == 2:
            monkeypatch.setattr(guardians, "revert", lambda *_, **__: stop())
        return genuine(*words)

    monkeypatch.setattr(guardians, "go_back", go_back)
    node.apply(veth())
    tried(node, "1s")
    take_the_name()
    until(a_guardian_is_stopped)
    assert "eth0" in (rundir.read("w", journal.OUTCOME) or "")
    until(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > overdue_at())
    assert "it is killed" in node.run("plan", str(node.path)).err
    assert not alive()


def test_only_who_has_the_lock_is_killed_whatever_the_file_says(node: Node) -> None:
    """Neither who has the file open, nor whom its text names, nor who had the lock before."""
    node.apply(veth())
    lock = rundir.RUN / rundir.LOCK
    with lock.open() as opened:
        stranger = subprocess.Popen(["sleep", "60"], stdin=opened)
    lock.write_text(f"nkform rollback (process {stranger.pid})")
    stranger.send_signal(signal.SIGSTOP)
    until(lambda: state_of(stranger.pid) == "T")
    assert holders.look(lock) is None
    born = next(state for state in holders._states() if state.process.pid == stranger.pid).process
    assert not holders.kill(born, lock)

    holder = Process("rollback", "-y", prepare=half_way(stop))
    until(lambda: state_of(holder.pid) == "T")
    lock.write_text(f"nkform rollback (process {stranger.pid})")
    found = holders.look(lock)
    assert found is not None
    assert found.halted
    assert [process.pid for process in found.processes] == [holder.pid]
    another = type(born)(holder.pid, found.processes[0].born + 1)
    assert not holders.kill(another, lock)
    assert holders.kill(found.processes[0], lock)
    assert holder.ended() == -signal.SIGKILL
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert node.run("recover", "-y").code == 0
    assert link("to-a")["mtu"] in (1400, 1500)
