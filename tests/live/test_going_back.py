"""Going back does not depend on what others do: workloads, other commands, and whoever kills the guardian."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import journal
from nkform.kernel import rundir
from nkform.kernel.error import KernelError
from nkform.session import guardian as guardians
from nkform.session import guardian_record, recovery
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Asked, Process, end_all, until
from tests.live.helpers.support import Node, Outcome, ip, link, links, sh
from tests.live.test_confirm import guardians as alive
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")

FOREIGN = ["link", "add", "foreign", "type", "veth", "peer", "name", "foreign-peer"]


def changed(mtu: int = 1400) -> dict[str, Any]:
    """Another MTU everywhere."""
    spec = veth()
    for device in spec["devices"].values():
        device["mtu"] = mtu
    return spec


def elsewhere() -> dict[str, Any]:
    """The spec of another node."""
    return {"version": 1, "node": "other", "devices": {"x0": {"kind": "veth", "peer": {"name": "x1"}}}}


@pytest.fixture(autouse=True)
def _nobody_stays_behind() -> Iterator[None]:
    yield
    end_all()
    for process in alive():
        os.kill(int(process), signal.SIGKILL)
    until(lambda: not alive())


def tried(node: Node, seconds: str = "3s") -> Outcome:
    """Applies another MTU on trial, and goes away."""
    node.write(changed())
    outcome = node.run("apply", "-y", "--confirm", seconds, "--detach", str(node.path))
    assert outcome.code == 0, outcome.err
    until(lambda: alive() or mtus() != {1400})
    return outcome


def mtus() -> set[int]:
    return {link("to-a")["mtu"], link("to-b")["mtu"]}


def in_a(*words: str) -> None:
    ip(*words, namespace="a")


def lose_the_mark() -> None:
    in_a("link", "set", "lo", "alias", "x")


def take_the_name() -> None:
    in_a("link", "set", "eth0", "down")
    in_a("link", "set", "eth0", "name", "moved")
    in_a("link", "add", "eth0", "type", "veth", "peer", "name", "other")


def rename_to_bytes() -> None:
    in_a("link", "set", "eth0", "down")
    in_a("link", "set", "eth0", "name", os.fsdecode(b"\xff\xfe"))


@pytest.mark.parametrize("obstacle", [lose_the_mark, take_the_name, rename_to_bytes])
def test_an_obstacle_in_one_place_keeps_nothing_else_from_going_back(node: Node, obstacle: Callable[[], None]) -> None:
    node.apply(veth())
    tried(node)
    assert mtus() == {1400}
    obstacle()
    until(lambda: link("to-b")["mtu"] == 1500)


def test_what_could_not_go_back_is_named_and_tried_again(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node)
    take_the_name()
    until(lambda: link("to-b")["mtu"] == 1500)
    until(lambda: "eth0" in (rundir.read("w", journal.OUTCOME) or ""))
    assert "to-a" in node.run("recover", "-y").err + node.run("recover", "-y").out
    in_a("link", "del", "eth0")
    until(lambda: not alive())
    assert mtus() == {1500}
    assert differences(before, netstate_snapshot()) == []
    assert node.run("recover", "-y").out.startswith("Nothing to recover")


def test_what_has_begun_to_go_back_cannot_be_confirmed(node: Node) -> None:
    node.apply(veth())
    tried(node)
    take_the_name()
    until(lambda: "eth0" in (rundir.read("w", journal.OUTCOME) or ""))
    assert "NK0509" in node.run("confirm").err


@pytest.mark.parametrize("command", ["apply", "destroy", "rollback"])
def test_nobody_waits_for_a_person_who_thinks(node: Node, command: str) -> None:
    node.apply(veth())
    node.apply(changed(1450))
    other = Node(node.folder / "other")
    other.folder.mkdir()
    words = [] if command == "rollback" else [str(node.write(changed(1300)))]
    asked = Asked(command, *words)
    other.write(elsewhere())
    assert other.run("apply", "-y", "--lock-timeout", "0", str(other.path)).code == 0
    assert asked.answer("yes\n") == 0, asked.said


@pytest.mark.parametrize("command", ["apply", "destroy", "rollback"])
def test_what_was_shown_is_what_is_done(node: Node, command: str) -> None:
    node.apply(veth())
    node.apply(changed(1450))
    words = [] if command == "rollback" else [str(node.write(changed(1300)))]
    asked = Asked(command, *words)
    ip("link", "set", "to-a", "mtu", "1333")
    before = netstate_snapshot()
    assert asked.answer("yes\n") == 1
    assert "NK0517" in asked.said
    assert "1333" in asked.said
    assert differences(before, netstate_snapshot()) == []


def test_what_is_recovered_is_what_was_shown(node: Node) -> None:
    from tests.live.helpers.attack import killed_after

    node.apply(veth())
    node.write(changed(1300))
    killed_after(node, 2)
    asked = Asked("recover")
    ip("link", "set", "to-b", "mtu", "1333")
    assert asked.answer("yes\n") == 1
    assert "NK0517" in asked.said
    assert node.run("recover", "-y").code == 0
    assert mtus() == {1500}


@pytest.mark.parametrize("answer", ["\x03", "\x04", "no\n"])
def test_no_answer_changes_nothing(node: Node, answer: str) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    asked = Asked("apply", str(node.write(changed())))
    assert asked.answer(answer) != 0
    assert "nothing was changed" in asked.said
    assert differences(before, netstate_snapshot()) == []


def test_a_pending_confirmation_blocks_the_specs_of_other_nodes(node: Node) -> None:
    node.apply(veth())
    tried(node, "600s")
    other = Node(node.folder)
    assert "NK0611" in other.refused(elsewhere(), command="apply")
    assert "NK0611" in other.run("destroy", "-y", str(other.path)).err
    assert node.run("confirm").code == 0
    assert other.run("apply", "-y", str(other.path)).code == 0


def test_the_guardian_comes_before_all_who_wait(node: Node) -> None:
    """Others wait for the lock, and are many; the guardian needs one turn."""
    node.apply(veth())
    tried(node, "2s")
    with rundir.hold(rundir.MACHINE, rundir.GOING_BACK, "nkform confirm (process 1)"):  # type: ignore[union-attr]
        refused = node.run("rollback", "-y", "--lock-timeout", "0")
    assert "NK0610" in refused.err
    until(lambda: mtus() == {1500})


def kill_guardians() -> None:
    for process in until(alive):
        os.kill(int(process), signal.SIGKILL)
    until(lambda: not alive())


def test_the_run_that_waits_takes_the_place_of_a_guardian_that_is_killed(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())
    run = Process("apply", "-y", "--confirm", "3s", str(node.path))
    run.hears("otherwise")
    kill_guardians()
    assert run.ended() == 1
    assert "NK0509" in run.said
    assert differences(before, netstate_snapshot()) == []


def test_the_run_that_waits_goes_back_itself_where_no_guardian_can_be_had(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())

    def nowhere() -> None:
        genuine = guardians.start

        def start(*words: Any) -> Any:
            if len(words) > 4:  # in the place of another one
                raise OSError(11, "Resource temporarily unavailable")
            return genuine(*words)

        monkeypatch.setattr("nkform.session.trial.start", start)

    run = Process("apply", "-y", "--confirm", "3s", str(node.path), prepare=nowhere)
    run.hears("otherwise")
    kill_guardians()
    assert run.ended() == 1
    assert "NK0509" in run.said
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize("command", ["plan", "show", "status", "doctor", "apply"])
def test_the_next_command_goes_back_where_run_and_guardian_were_killed(node: Node, command: str) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "2s")
    kill_guardians()
    time.sleep(2)
    assert mtus() == {1400}
    words = [str(node.write(veth()))] if command in ("plan", "apply") else []
    outcome = node.run(command, *words, *(["-y"] if command == "apply" else []))
    assert "going back" in outcome.err
    assert outcome.code == 0
    assert differences(before, netstate_snapshot()) == []


def test_there_is_still_time_to_confirm_when_the_guardian_was_killed(node: Node) -> None:
    node.apply(veth())
    tried(node, "600s")
    kill_guardians()
    assert "another one waits" in node.run("status").err
    until(lambda: len(alive()) == 1)
    assert node.run("confirm").code == 0
    assert mtus() == {1400}
    until(lambda: not alive())
    assert not Path("/run/nkform/w", rundir.GUARDIAN).exists()


def test_a_run_on_trial_that_was_killed_with_its_guardian_goes_back(node: Node) -> None:
    """Half-way: neither of the two is there to say so."""
    from nkform.apply.executor import Executor

    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())

    def dies() -> None:
        genuine = Executor.run

        def run(self: Executor, actions: Any) -> None:
            genuine(self, actions[:1])
            kill_guardians()
            os.kill(os.getpid(), signal.SIGKILL)

        Executor.run = run  # type: ignore[method-assign]

    run = Process("apply", "-y", "--confirm", "600s", str(node.path), prepare=dies)
    assert run.ended() == -signal.SIGKILL
    assert "going back" in node.run("status").err
    assert differences(before, netstate_snapshot()) == []


def test_whatever_the_guardian_trips_over_is_on_record_and_tried_again(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    genuine = recovery.revert
    trips = node.folder / "trips"

    def revert(*words: Any, **named: Any) -> None:
        if not trips.exists():
            trips.touch()
            raise RuntimeError("nobody thought of this")
        genuine(*words, **named)

    monkeypatch.setattr(guardians, "revert", revert)
    tried(node)
    until(lambda: "nobody thought of this" in (rundir.read("w", journal.OUTCOME) or ""))
    until(lambda: not alive())
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize(("words", "told"), [(["--confirm", "0"], "--confirm"), (["--detach"], "--detach")])
def test_a_confirmation_that_nobody_can_give_is_a_usage_error(node: Node, words: list[str], told: str) -> None:
    node.write(veth())
    outcome = node.run("apply", "-y", *words, str(node.path))
    assert outcome.code == 1
    assert "NK0602" in outcome.err
    assert told in outcome.err
    assert links() == set()


def test_a_killed_run_is_known_although_another_process_has_its_number(node: Node) -> None:
    from tests.live.helpers.attack import killed_after

    node.apply(veth())
    node.write(changed())
    killed_after(node, 2)
    record = Path("/run/nkform/w/journal")
    lines = record.read_text().splitlines(keepends=True)
    text = "".join(lines)
    found = journal.find("w", journal.JOURNAL)
    assert found
    record.write_text(text.replace(f'"pid":{found.entry.pid}', f'"pid":{os.getpid()}'))
    again = journal.find("w", journal.JOURNAL)
    assert again
    assert again.entry.pid == os.getpid()
    assert "NK0511" in node.plan().err


@pytest.mark.parametrize(
    "call", ["set alias nkform:w on to-b", "set mtu 1500 on to-a", "unlink journal", "unlink unconfirmed"]
)
def test_a_guardian_that_is_killed_while_it_goes_back_is_followed_by_another_one(node: Node, call: str) -> None:
    """It leaves a pair that is not marked, or a record of its own beside that of the run."""
    from tests.live.helpers.attack import in_child
    from tests.live.helpers.fault_injection import injected

    node.apply(veth())
    before = netstate_snapshot()
    spec = changed()
    del spec["devices"]["to-b"], spec["namespaces"]["b"]
    node.write(spec)
    assert node.run("apply", "-y", "--confirm", "2s", "--detach", str(node.path)).code == 0
    kill_guardians()
    time.sleep(2)
    token = str(journal.find("w", journal.UNCONFIRMED).entry.token)  # type: ignore[union-attr]

    def go_back() -> None:
        with injected(call, kill=True) as injection:
            injection.armed = True
            guardians.go_back("w", token)

    assert in_child(go_back) == -signal.SIGKILL
    assert "going back" in node.run("status").err
    assert differences(before, netstate_snapshot()) == []
    assert node.run("recover", "-y").out.startswith("Nothing to recover")


def test_a_run_on_trial_that_is_stopped_between_its_parts_goes_back(node: Node) -> None:
    from nkform.problem import fail
    from nkform.session import running

    node.apply(veth())
    before = netstate_snapshot()
    spec = changed()
    spec["devices"]["to-b"]["routes"] = [{"to": "192.0.2.0/24", "via": "203.0.113.1"}]
    node.write(spec)

    def stopped_after_a_part() -> None:
        genuine = running._Runner.carry_out

        def carry_out(self: Any, look: Any, *, whole: bool) -> None:
            genuine(self, look, whole=whole)
            raise fail("NK0507", "stopped by SIGINT")

        running._Runner.carry_out = carry_out  # type: ignore[method-assign]

    words = ("apply", "-y", "--keep-going", "--confirm", "600s", str(node.path))
    run = Process(*words, prepare=stopped_after_a_part)
    assert run.ended() == 1
    until(lambda: differences(before, netstate_snapshot()) == [])
    until(lambda: not alive())
    assert node.run("recover", "-y").out.startswith("Nothing to recover")


def test_a_command_in_another_network_namespace_takes_no_guard_away(node: Node) -> None:
    """`ip netns exec NAME nkform …` sees the same records, of runs that it can do nothing about."""
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "1s")
    kill_guardians()
    time.sleep(1)
    for words in (["status"], ["plan", str(node.path)], ["confirm"], ["apply", "-y", str(node.path)]):
        command = ["ip", "netns", "exec", "b", sys.executable, "-m", "nkform", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "another network namespace" in done.stderr
    assert mtus() == {1400}
    assert "going back" in node.run("status").err
    assert differences(before, netstate_snapshot()) == []


def test_what_another_network_namespace_has_on_record_is_said_to_be_there(node: Node) -> None:
    """Of a trial that its guardian waits for, and of an apply that could be taken back."""

    def elsewhere(*words: str) -> subprocess.CompletedProcess[str]:
        command = ["ip", "netns", "exec", "b", sys.executable, "-m", "nkform", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    node.apply(veth())
    done = elsewhere("rollback", "-y")
    assert (done.returncode, "NK0515" in done.stderr, "another network namespace" in done.stderr) == (1, True, True)
    tried(node, "600s")
    for words in (["confirm"], ["confirm", "--node", "w"], ["rollback", "-y"], ["recover", "-y"]):
        done = elsewhere(*words)
        assert done.returncode == 1
        assert "NK0611" in done.stderr, done.stderr
        assert "another network namespace" in done.stderr
    done = elsewhere("confirm", "--node", "x")
    assert "NK0612" in done.stderr
    assert node.run("confirm").code == 0


def test_a_command_in_another_network_namespace_leaves_a_killed_run_its_record(node: Node) -> None:
    from tests.live.helpers.attack import killed_after

    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed(1400))
    killed_after(node, 2)
    for words in (["apply", "-y", str(node.path)], ["destroy", "-y", str(node.path)], ["recover", "-y"]):
        command = ["ip", "netns", "exec", "b", sys.executable, "-m", "nkform", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "NK0615" in done.stderr
        assert "/run/nkform/w/journal" in done.stderr
    assert node.run("recover", "-y").code == 0
    assert differences(before, netstate_snapshot()) == []


def test_there_is_room_for_the_way_back_on_a_full_file_system(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    shutil.rmtree("/run/nkform/w")
    sh("mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "nkform", "/run/nkform")
    try:
        node.apply(veth())
        tried(node, "2s")
        with contextlib.suppress(OSError), Path("/run/nkform/full").open("wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
        assert shutil.disk_usage("/run/nkform").free == 0
        until(lambda: mtus() == {1500})
        until(lambda: not alive())
        assert not Path("/run/nkform/w/spare").exists()
    finally:
        sh("umount", "/run/nkform")
    assert differences(before, netstate_snapshot()) == []


def test_a_lock_that_cannot_be_written_down_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", full)
        with pytest.raises(KernelError):
            rundir.lock("a run")
    with rundir.lock("another run") as lock:  # type: ignore[union-attr]
        assert isinstance(lock, rundir.Lock)


@pytest.mark.parametrize("who", ["the run", "the next command"])
def test_a_guardian_that_is_stopped_is_not_waited_for(node: Node, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGSTOP, a debugger, a frozen control group: it lives, and does nothing."""
    monkeypatch.setattr(guardian_record, "OVERDUE", 0.5)
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())
    run = Process("apply", "-y", "--confirm", "2s", *(["--detach"] if who != "the run" else []), str(node.path))
    run.hears("otherwise")
    (stopped,) = until(alive)
    os.kill(int(stopped), signal.SIGSTOP)
    assert run.ended() == (1 if who == "the run" else 0)
    if who != "the run":
        time.sleep(2.5)
        assert "does not answer" in node.run("status").err
    assert differences(before, netstate_snapshot()) == []
    node.apply(changed())
    os.kill(int(stopped), signal.SIGCONT)
    until(lambda: not alive())
    assert mtus() == {1400}
