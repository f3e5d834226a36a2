"""`apply --confirm`: what nobody confirms goes back, whatever becomes of terminal, process and connection."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import resource
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nkform.kernel import daemon
from nkform.kernel.netns import Namespaces
from nkform.session import guardian
from tests.live.helpers.netstate import differences, held, netstate_snapshot
from tests.live.helpers.processes import PATIENCE, alone, until
from tests.live.helpers.support import Node, ip, link, pings, reaches
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")

TRIAL = 5
"""Seconds in which a change that nobody confirms can be looked at, also on a machine that has much else to do."""


def changed(**device: Any) -> dict[str, Any]:
    spec = veth()
    spec["devices"]["to-a"].update(device)
    return spec


def guardians() -> list[str]:
    """Those of this test process: others may run beside it, in mount namespaces of their own."""
    found = []
    ours = Path("/proc/self/ns/mnt").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            named = (process / "comm").read_text().strip() == "nkform-guardian"
            if named and (process / "ns" / "mnt").readlink() == ours:
                found.append(process.name)
    return found


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    yield
    until(lambda: not guardians())


class Apply:
    """`nkform apply -y --confirm` in a process of its own, in a session and with a terminal of its own."""

    def __init__(self, node: Node, spec: dict[str, Any], seconds: float) -> None:
        node.write(spec)
        self.pid, self.terminal = pty.fork()
        if not self.pid:
            alone("apply", "-y", "--confirm", f"{seconds}s", str(node.path))
        self.said = ""

    def hears(self, word: str) -> None:
        end = time.monotonic() + PATIENCE
        while word not in self.said:
            assert time.monotonic() < end, self.said
            if select.select([self.terminal], [], [], 0.1)[0]:
                self.said += os.read(self.terminal, 4096).decode()

    def ended(self) -> int:
        """Its exit code; what it still says is heard."""
        while True:
            with contextlib.suppress(OSError):
                if select.select([self.terminal], [], [], 0.05)[0]:
                    self.said += os.read(self.terminal, 4096).decode()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)


def test_enter_confirms(node: Node) -> None:
    node.apply(veth())
    run = Apply(node, changed(mtu=1400), PATIENCE)
    run.hears("press Enter")
    assert link("to-a")["mtu"] == 1400
    os.write(run.terminal, b"\n")
    assert run.ended() == 0
    assert "Confirmed" in run.said
    assert node.changes(changed(mtu=1400)) == []


def test_who_confirms_before_the_guardian_looks_is_not_guarded_any_longer() -> None:
    """There is no record any more that waits."""
    end, start = os.pipe()
    guardian.start("w", "token", 3600, lambda: os.write(start, str(os.getpid()).encode())).applied()
    process = os.read(end, 20).decode()
    try:
        until(lambda: not Path("/proc", process).exists())
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(process), signal.SIGKILL)
        os.close(end)
        os.close(start)


def test_confirm_elsewhere_confirms(node: Node) -> None:
    node.apply(veth())
    run = Apply(node, changed(mtu=1400), PATIENCE)
    run.hears("nkform confirm")
    assert "NK0611" in node.refused(changed(mtu=1300), command="apply")
    outcome = node.run("confirm")
    assert outcome.code == 0, outcome.err
    assert run.ended() == 0
    assert link("to-a")["mtu"] == 1400
    assert "NK0612" in node.run("confirm").err


def test_what_had_nothing_to_do_need_not_be_confirmed_and_may_be(node: Node) -> None:
    """So that a script can apply and confirm, again and again."""
    node.apply(veth())
    for _ in range(2):
        applied = node.run("apply", "-y", "--confirm", "600s", "--detach", str(node.path))
        assert applied.code == 0, applied.err
        assert "nothing waits to be confirmed" in applied.out
        for words in ((), ("--node", "w")):
            confirmed = node.run("confirm", *words)
            assert confirmed.code == 0, confirmed.err
            assert "the last apply of w had nothing to do" in confirmed.err
    assert "NK0612" in node.run("confirm", "--node", "v").err


@pytest.mark.parametrize("then", ["trial", "apply", "rollback", "destroy"])
def test_nothing_to_confirm_is_an_error_again_after_another_run(node: Node, then: str) -> None:
    node.apply(veth())
    node.run("apply", "-y", "--confirm", "600s", "--detach", str(node.path))
    if then == "trial":
        node.write(changed(mtu=1400))
        assert node.run("apply", "-y", "--confirm", "1s", "--detach", str(node.path)).code == 0
        until(lambda: link("to-a")["mtu"] == 1500 and not guardians())
    elif then == "apply":
        node.apply(changed(mtu=1400))
    else:
        assert node.run(then, "-y", "--node", "w").code == 0
    outcome = node.run("confirm")
    assert outcome.code == 1
    assert "NK0612" in outcome.err


def test_a_node_that_went_back_is_not_taken_for_another_that_had_nothing_to_do(node: Node) -> None:
    alone = {"version": 1, "node": "v", "namespaces": {"alone": {"create": True}}}
    node.apply(alone)
    assert node.run("apply", "-y", "--confirm", "600s", "--detach", str(node.path)).code == 0
    node.apply(veth())
    node.write(changed(mtu=1400))
    assert node.run("apply", "-y", "--confirm", "1s", "--detach", str(node.path)).code == 0
    until(lambda: link("to-a")["mtu"] == 1500 and not guardians())
    assert "NK0612" in node.run("confirm").err
    assert node.run("confirm", "--node", "w").code == 1
    assert node.run("confirm", "--node", "v").code == 0


def test_who_looks_is_told_what_waits_and_for_how_long(node: Node) -> None:
    node.apply(veth())
    node.write(changed(mtu=1400))
    assert node.run("apply", "-y", "--confirm", "600s", "--detach", str(node.path)).code == 0
    waits = r"the apply of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d on w waits to be confirmed: it goes back in (\d+) s"
    status = node.run("status").out
    assert (found := re.match(waits, status)), status
    assert 300 < int(found[1]) <= 600
    assert 300 < node.run("status", "--json").json()["pending"][0]["seconds_left"] <= 600
    for words in (("plan", str(node.path)), ("show",)):
        outcome = node.run(*words)
        assert outcome.code == 0
        assert re.search(rf"warning\[NK0611\]: {waits}\n +hint: `nkform confirm` keeps it", outcome.err), outcome.err
    assert node.run("confirm").code == 0
    assert node.run("status").out.startswith("node w:")
    assert node.run("status", "--json").json()["pending"] == []
    assert "NK0611" not in node.run("plan", str(node.path)).err


def test_without_a_word_the_node_goes_back(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    run = Apply(node, changed(mtu=1400, addresses=["10.0.0.254/32", "192.0.2.1/32"]), TRIAL)
    run.hears("otherwise")
    assert link("to-a")["mtu"] == 1400
    assert run.ended() == 1
    assert "NK0509" in run.said
    assert differences(before, netstate_snapshot()) == []
    node.apply(changed(mtu=1400))


def test_ctrl_c_goes_back_at_once(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    run = Apply(node, changed(mtu=1400), 10 * PATIENCE)
    run.hears("otherwise")
    os.write(run.terminal, b"\x03")
    assert run.ended() == 1
    assert differences(before, netstate_snapshot()) == []


def test_rollback_goes_back_too(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    run = Apply(node, changed(mtu=1400), 10 * PATIENCE)
    run.hears("otherwise")
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert run.ended() == 1
    assert differences(before, netstate_snapshot()) == []


def test_the_terminal_is_closed(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    run = Apply(node, changed(mtu=1400), TRIAL)
    run.hears("otherwise")
    os.close(run.terminal)
    os.waitpid(run.pid, 0)
    assert link("to-a")["mtu"] == 1400
    until(lambda: not differences(before, netstate_snapshot()))


@pytest.mark.parametrize("when", ["while it waits", "half-way"])
def test_the_process_group_is_killed(node: Node, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    if when == "half-way":
        from nkform.apply.executor import Executor

        genuine = Executor.run

        def slow(self: Executor, actions: Any) -> None:
            if os.getpid() != os.getsid(0):  # the guardian, which goes back
                genuine(self, actions)
                return
            genuine(self, actions[:1])
            print("half-way", flush=True)
            time.sleep(PATIENCE)

        monkeypatch.setattr(Executor, "run", slow)
    run = Apply(node, changed(mtu=1400, peer={**veth()["devices"]["to-a"]["peer"], "name": "net9"}), TRIAL)
    monkeypatch.undo()
    run.hears("otherwise" if when == "while it waits" else "half-way")
    assert os.getpgid(run.pid) == run.pid
    os.killpg(run.pid, signal.SIGKILL)
    os.waitpid(run.pid, 0)
    until(lambda: not differences(before, netstate_snapshot()))
    until(lambda: not guardians())
    node.apply(changed(mtu=1400))


def test_the_connection_that_it_came_through_is_the_one_it_breaks(node: Node) -> None:
    """A workload runs nkform on its node over TCP, and takes its own link down."""
    node.apply(veth())
    before = netstate_snapshot()
    near = veth()["devices"]["to-a"]["addresses"][0].partition("/")[0]
    listener = socket.create_server((near, 0))
    with Namespaces() as namespaces, namespaces.open("a") as fd, namespaces.entered(fd, "a"):
        client = socket.create_connection((near, listener.getsockname()[1]))
    served, _ = listener.accept()
    node.write(changed(up=False))
    run = os.fork()
    if not run:
        os.setsid()
        for number in (0, 1, 2):
            os.dup2(served.fileno(), number)
        alone("apply", "-y", "--confirm", f"{TRIAL}s", str(node.path))
    served.close()
    until(lambda: "UP" not in link("to-a")["flags"])
    assert not pings("a", near)
    until(lambda: not differences(before, netstate_snapshot()))
    assert reaches("a", near)
    client.settimeout(PATIENCE)
    heard = b""
    while b"NK0509" not in heard:
        heard += client.recv(4096)
    assert os.waitstatus_to_exitcode(os.waitpid(run, 0)[1]) == 1


def test_a_run_that_fails_needs_no_confirmation(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    spec = changed(mtu=1400)
    spec["devices"]["to-b"]["peer"]["routes"] = [{"to": "default", "via": "203.0.113.1"}]
    node.write(spec)
    outcome = node.run("apply", "-y", "--confirm", "600s", str(node.path))
    assert outcome.code == 1
    assert "NK0505" in outcome.err
    assert differences(before, netstate_snapshot()) == []
    until(lambda: not guardians())


def test_detached_it_does_not_wait(node: Node) -> None:
    node.apply(veth())
    node.write(changed(mtu=1400))
    outcome = node.run("apply", "-y", "--confirm", "600s", "--detach", str(node.path))
    assert outcome.code == 0
    assert "nkform confirm" in outcome.err
    assert node.run("confirm").code == 0
    assert node.changes() == []


def test_rollback_goes_to_before_the_last_apply_and_back_again(node: Node) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    spec = changed(mtu=1400)
    del spec["devices"]["to-b"]
    node.apply(spec)
    back = node.run("rollback", "-y")
    assert back.code == 0
    assert "w is as it was before the apply of " in back.out
    assert differences(before, netstate_snapshot()) == []
    forward = node.run("rollback", "-y")
    assert forward.code == 0
    assert "w is as it was before the rollback of " in forward.out
    assert node.changes(spec) == []
    node.destroy()
    assert held() == []
    assert "NK0515" in node.run("rollback", "-y").err


@pytest.mark.parametrize("option", ["--confirm", "--lock-timeout"])
@pytest.mark.parametrize("time", ["soon", "999999999s", "99999999999999999999999s", "9" * 400, "90000h"])
def test_an_impossible_time_is_a_usage_error(node: Node, option: str, time: str) -> None:
    node.write(veth())
    assert "NK0602" in node.run("apply", "-y", option, time, str(node.path)).err
    assert ip("netns").strip() == ""


@pytest.mark.parametrize("limit", [resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE])
def test_limits_of_the_run_keep_nobody_from_going_back(node: Node, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(veth())
    detach = daemon.detach

    def limited(name: bytes) -> None:
        resource.setrlimit(limit, (8, resource.getrlimit(limit)[1]))
        detach(name)

    monkeypatch.setattr(daemon, "detach", limited)
    node.write(changed(mtu=1400))
    assert node.run("apply", "-y", "--confirm", "1s", "--detach", str(node.path)).code == 0
    until(lambda: link("to-a")["mtu"] == 1500)
    until(lambda: not guardians())
