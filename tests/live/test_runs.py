"""One writer at a time, and runs that are stopped or killed."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import undoing
from nkform.apply.chains import Chains
from nkform.apply.executor import Executor
from nkform.kernel import bpffs, inet, link_requests, rundir
from nkform.kernel.error import KernelError
from nkform.plan.actions import Action
from tests.live.helpers.attack import die, in_child, killed_after
from tests.live.helpers.chain_sites import TCX_INGRESS
from tests.live.helpers.netstate import differences, held, netstate_snapshot
from tests.live.helpers.processes import Process, end_all
from tests.live.helpers.support import Node, ip, link, links, needs
from tests.live.test_attacks import counted, failed
from tests.live.test_pairs import veth
from tests.sizes import SEED, SIZES

pytestmark = pytest.mark.usefixtures("made_once")


def slowly(place: int) -> Callable[[], None]:
    """Makes the next run of this process wait before that action, until a file named `go` is there."""

    def prepare() -> None:
        genuine = Executor.run
        waited = False

        def run(self: Executor, actions: Sequence[Action]) -> None:
            nonlocal waited
            if waited:
                genuine(self, actions)
                return
            waited = True
            genuine(self, actions[:place])
            print("half-way", flush=True)
            while not Path("/run/go").exists():
                time.sleep(0.02)
            genuine(self, actions[place:])

        Executor.run = run  # type: ignore[method-assign]

    return prepare


def changed() -> dict[str, Any]:
    spec = veth()
    spec["devices"]["to-a"]["mtu"] = 1400
    del spec["devices"]["to-b"]
    return spec


@pytest.fixture(autouse=True)
def _go() -> Iterator[None]:
    Path("/run/go").unlink(missing_ok=True)
    yield
    end_all()


def test_a_second_writer_waits_or_fails_and_readers_do_not(node: Node, tmp_path: Path) -> None:
    node.apply(veth())
    node.write(changed())
    first = Process("apply", "-y", str(node.path), prepare=slowly(1))
    first.hears("half-way")
    error = node.run("apply", "-y", "--lock-timeout", "0", str(node.path)).err
    assert "NK0610" in error
    assert f"nkform apply (process {first.pid})" in error
    assert node.run("plan", str(node.path)).code == 0
    assert node.run("show").code == 0
    assert node.run("status").code == 0
    other = tmp_path / "other.yaml"
    other.write_text("{version: 1, node: v, devices: {x: {kind: veth, peer: {name: y}}}}")
    second = Process("apply", "-y", "--lock-timeout", "10m", str(other))
    second.hears("waiting for nkform apply")
    assert "x" not in links()
    Path("/run/go").touch()
    assert (first.ended(), second.ended()) == (0, 0)
    assert "x" in links()
    assert node.changes() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_run_and_takes_it_back(node: Node, number: signal.Signals) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())
    run = Process("apply", "-y", str(node.path), prepare=slowly(3))
    run.hears("half-way")
    os.kill(run.pid, number)
    run.hears("stopping after this step")
    Path("/run/go").touch()
    assert run.ended() == 1
    assert "NK0507" in run.said
    assert "NK0505" in run.said
    assert differences(before, netstate_snapshot()) == []
    assert "Nothing to recover" in node.run("recover").out


def test_a_second_signal_stops_at_once_and_recover_takes_it_back(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())
    run = Process("apply", "-y", str(node.path), prepare=slowly(3))
    run.hears("half-way")
    os.kill(run.pid, signal.SIGINT)
    run.hears("stopping after this step")
    os.kill(run.pid, signal.SIGINT)
    assert run.ended() == 1
    assert "NK0508" in run.said
    assert "nkform recover" in run.said
    assert differences(before, netstate_snapshot()) != []
    Path("/run/go").touch()
    outcome = node.run("recover", "-y")
    assert outcome.code == 0, outcome.err
    assert "was stopped at once after about" in outcome.err
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize("words", [(), ("--node", "w")], ids=" ".join)
def test_rollback_after_a_first_apply_that_was_killed_names_recover(node: Node, words: tuple[str, ...]) -> None:
    node.write(veth())
    killed_after(node, 4)
    outcome = node.run("rollback", "-y", *words)
    assert outcome.code == 1
    assert "NK0514" in outcome.err
    assert "`nkform recover` takes it back" in outcome.err
    recovered = node.run("recover", "-y")
    assert recovered.code == 0
    assert re.search(r"w is as it was before the apply of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.", recovered.out)


def test_a_run_that_could_not_undo_everything_says_so_afterwards(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """And is no run that was killed."""
    node.apply(veth())
    before = netstate_snapshot()
    spec = changed()
    spec["devices"]["to-a"]["peer"]["routes"] = [{"to": "default", "via": "203.0.113.1"}]
    monkeypatch.setattr(undoing.Undoing, "_try", lambda _: ())
    assert "NK0504" in node.refused(spec, command="apply")
    monkeypatch.undo()
    told = "failed and could not undo everything"
    assert told in node.plan().err
    failing = node.run("rollback", "-y").err
    assert "NK0514" in failing
    assert told in failing
    assert told in node.refused(spec, command="apply")  # which fails, too, and leaves what it found
    outcome = node.run("recover", "-y")
    assert outcome.code == 0, outcome.err
    assert told in outcome.err
    assert differences(before, netstate_snapshot()) == []


def test_after_a_kill_readers_say_so_too(node: Node) -> None:
    node.apply(veth())
    total = len(node.plan(changed(), "--json").json()["actions"])
    killed_after(node, 2, total)
    for words in (("plan", str(node.path)), ("status",), ("show",)):
        outcome = node.run(*words)
        assert outcome.code == 0, outcome.err
        assert "NK0511" in outcome.err, words
    assert node.run("apply", "-y", str(node.path)).code == 0
    assert "NK0511" not in node.plan().err


def test_a_failed_apply_after_a_kill_leaves_recover_its_way(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    total = len(node.plan(changed(), "--json").json()["actions"])
    killed_after(node, 3, total)
    spec = changed()
    spec["devices"]["to-a"]["peer"]["routes"] = [{"to": "default", "via": "203.0.113.1"}]
    assert "NK0501" in node.refused(spec, command="apply")
    assert node.run("recover", "-y").code == 0
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.smoke
@needs("tcx")
def test_recover_attaches_the_programs_that_went(node: Node) -> None:
    """The very programs, with their maps, though nobody but a pin of the killed run had them any more."""
    node.apply(TCX_INGRESS.spec(["guard", "count"]))
    before, counter = netstate_snapshot(), TCX_INGRESS.one("count").program_id
    total = len(node.plan(TCX_INGRESS.spec(None), "--json").json()["actions"])
    killed_after(node, total, total)
    assert TCX_INGRESS.running() == []
    assert len(held()) == 2
    assert node.run("recover", "-y").code == 0
    assert differences(before, netstate_snapshot()) == []
    assert TCX_INGRESS.one("count").program_id == counter
    assert held() == []


def killed_in(node: Node, module: Any, name: str) -> None:
    """Applies the node's spec in a process that is killed when it first comes to a function."""

    def work() -> None:
        setattr(module, name, lambda *_, **__: die())
        node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL, "the run was not killed"


def test_a_device_that_was_made_and_not_yet_marked_is_known_again(node: Node) -> None:
    node.write(veth())
    killed_in(node, link_requests, "claim")
    assert "to-a" in links()
    assert "nkform" not in ip("-d", "link", "show", "dev", "to-a")
    node.apply(veth())
    assert link("to-a").get("group", "default") == "default"


def test_a_sysctl_that_was_lent_is_given_back(node: Node) -> None:
    """An address of a subnet goes, and for that moment the others are told to stay."""
    spec = veth()
    spec["devices"]["to-a"]["addresses"] = ["10.7.0.1/24", "10.7.0.2/24"]
    node.apply(spec)
    path = Path("/proc/sys/net/ipv4/conf/to-a/promote_secondaries")
    path.write_text("0")
    spec["devices"]["to-a"]["addresses"] = ["10.7.0.2/24"]
    node.write(spec)
    killed_in(node, inet, "delete_address")
    assert path.read_text().strip() == "1"
    assert node.run("recover", "-y").code == 0
    assert path.read_text().strip() == "0"


@needs("tcx")
def test_a_run_that_cannot_begin_leaves_no_journal(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> None:
        raise KernelError(errno.EPERM, "mount bpffs")

    monkeypatch.setattr(bpffs, "is_mounted", lambda _: False)
    monkeypatch.setattr(bpffs, "mount", refused)
    error = node.refused(TCX_INGRESS.spec(["count"]), command="apply")
    assert "mount bpffs" in error
    assert "Nothing to recover" in node.run("recover").out


@needs("tcx")
def test_what_was_applied_stays_when_tidying_up_fails(node: Node) -> None:
    node.apply(TCX_INGRESS.spec(["guard", "count"]))

    def refused(self: Chains, _: object) -> None:
        raise KernelError(errno.EPERM, "remove the pin of a program")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chains, "release", refused)
        outcome = node.apply(TCX_INGRESS.spec(["count"]))
    assert "NK0516" in outcome.err
    assert "remove the pin" in outcome.err
    assert "undone" not in outcome.err
    assert TCX_INGRESS.order() == "count"
    assert "NK0516" not in node.apply().err


@pytest.mark.long
def test_any_moment_is_good_to_be_killed(node: Node, tell: Callable[[str], None]) -> None:
    """SIGKILL after a random time, rather than between actions."""
    chance = random.Random(SEED)
    specs = [veth(), changed(), TCX_INGRESS.spec(["guard", "count"]), {"version": 1, "node": "w"}]
    started = time.monotonic()
    node.apply(specs[0])
    usual = time.monotonic() - started
    killed = 0
    for turn in range(5 * SIZES.kills):  # on a busy machine many are done, or have not begun, by then
        if turn >= SIZES.kills and killed > SIZES.kills // 4:
            break
        node.write(specs[turn % len(specs)])
        run = Process("apply", "-y", str(node.path))
        time.sleep(chance.uniform(0, usual))
        os.kill(run.pid, signal.SIGKILL)
        killed += run.ended() == -signal.SIGKILL
        if turn % 3 == 2:
            continue  # and once more, on top of that
        node.apply(specs[turn % len(specs)])
    node.apply(specs[0])
    node.destroy()
    tell(f"{killed} runs killed at a random moment, each converged")
    assert killed > SIZES.kills // 4
    assert (links(), ip("netns").strip(), held()) == (set(), "", [])


def test_many_applies_at_once(node: Node, tmp_path: Path, tell: Callable[[str], None]) -> None:
    """Of different specs and of the same one: all that end well are there, as if they had come one after the other."""
    many = SIZES.applies_at_once
    runs = []
    for number in range(many):
        path = tmp_path / f"{number}.yaml"
        name, mtu = (f"n{number}", 1400) if number % 2 else ("shared", 1300 + number)
        path.write_text(
            f"{{version: 1, node: {name}, devices: {{{name}: {{kind: veth, mtu: {mtu}, peer: {{name: {name}-p}}}}}}}}"
        )
        runs.append((name, mtu, path, Process("apply", "-y", "--lock-timeout", "10m", str(path))))
    assert [run.ended() for *_, run in runs] == [0] * many, [run.said for *_, run in runs]
    shared = [mtu for name, mtu, *_ in runs if name == "shared"]
    for name, mtu, path, _ in runs:
        found = link(name)["mtu"]
        assert found in (shared if name == "shared" else [mtu])
        if name != "shared" or found == mtu:
            assert node.run("plan", "--detailed-exitcode", str(path)).code == 0
    for name in dict.fromkeys(name for name, *_ in runs):
        assert node.run("destroy", "-y", "--node", name).code == 0
    assert links() == set()
    tell(f"{many} applies at once, as if they had come one after the other")


def test_the_lock_is_free_after_a_run(node: Node) -> None:
    node.apply(veth())
    lock = rundir.lock("test")
    assert not isinstance(lock, str)
    lock.release()


def test_a_run_that_is_done_stays_done_whatever_fails_after_it(node: Node) -> None:
    old, new = veth(), veth()
    for spec, mtu in ((old, 1500), (new, 1400)):
        for device in spec["devices"].values():
            device["mtu"] = mtu
    node.apply(old)
    calls = counted(node, new)
    node.apply(old)
    for place in range(calls.ends[-1], len(calls.made)):
        failed(node, old, new, place)
