"""Grace periods are expedited while programs come and go, and the machine's switch is always put back.

All tests but the last stand a file in for the switch, so that runs beside them do not meddle, and kernels for one
processor, which have no switch, can be tested too.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import expedite
from nkform.apply.chains import Chains
from nkform.kernel import bpf_links, bpffs, rcu, rundir
from tests.live.helpers import isolation
from tests.live.helpers.attack import in_child
from tests.live.helpers.fault_injection import NOWHERE, injected
from tests.live.helpers.processes import Process, end_all, until
from tests.live.helpers.support import Node, needs
from tests.sizes import SIZES

pytestmark = [pytest.mark.usefixtures("made_once"), needs("tcx")]

PROGRAMS = {"count": {"template": "counters"}, "shut": {"template": "verdict", "params": {"verdict": "drop"}}}


def spec(*chain: str, primary: tuple[str, ...] = (), mtu: int = 1500, **keys: Any) -> dict[str, Any]:
    device = {
        "kind": "veth",
        "mtu": mtu,
        "peer": {"name": "w0"},
        "programs": {"peer": list(chain), "primary": list(primary)},
    }
    return {"version": 1, "node": "fast", "programs": PROGRAMS, "devices": {"v0": device}, **keys}


TWO = spec("count", "shut")
ONE = spec("count")


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file in place of the machine's switch; `rcu_normal` beside it is 0."""
    folder = tmp_path / "kernel"
    folder.mkdir()
    for name in ("rcu_expedited", "rcu_normal"):
        (folder / name).write_text("0\n")
    monkeypatch.setattr(rcu, "EXPEDITED", folder / "rcu_expedited")
    monkeypatch.setattr(rcu, "NORMAL", folder / "rcu_normal")
    yield folder / "rcu_expedited"
    end_all()
    rundir.remove(rundir.MACHINE, expedite.RECORD)


@pytest.fixture
def seen(switch: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the switch was each time that a link was attached or detached."""
    values: list[int] = []

    def looking(genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any) -> Any:
            values.append(int(switch.read_text()))
            return genuine(*words)

        return call

    for name in ("link_create", "link_detach"):
        monkeypatch.setattr(bpf_links, name, looking(getattr(bpf_links, name)))
    return values


def is_off(switch: Path) -> bool:
    return switch.read_text() == "0\n" and not expedite.is_borrowed()


def test_it_is_on_while_programs_come_and_go_and_off_after(node: Node, switch: Path, seen: list[int]) -> None:
    changes = (TWO, spec("shut", "count"), spec(), spec("count", "shut", primary=("count",)))
    for each in changes:
        seen.clear()
        node.apply(each)
        assert seen
        assert all(seen)
        assert is_off(switch)
    seen.clear()
    assert node.run("rollback", "-y").code == 0
    assert all(seen)
    assert len(seen) == 3
    node.destroy()  # the kernel detaches what goes with a device
    assert is_off(switch)


def test_it_is_on_while_a_device_with_programs_is_deleted(
    node: Node, switch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nkform.apply.executor import Executor

    node.apply(spec("count", primary=("count",)))
    values = []
    genuine = Executor._delete_pairs

    def delete(self: Executor, actions: Any) -> None:
        values.append(int(switch.read_text()))
        genuine(self, actions)

    monkeypatch.setattr(Executor, "_delete_pairs", delete)
    node.destroy()
    assert len(values) == 1
    assert values[0] != 0
    assert is_off(switch)


def test_it_is_on_while_a_run_is_undone(node: Node, switch: Path, seen: list[int]) -> None:
    node.apply(spec())
    node.write(spec("count", "shut", mtu=1400))
    with injected(NOWHERE) as injection:
        assert node.run("apply", "-y", str(node.path)).code == 0
    attached = max(place for place, call in enumerate(injection.made) if "LINK_CREATE" in call)
    node.apply(spec())
    node.write(spec("count", "shut", mtu=1400))
    seen.clear()
    with injected(attached + 1):  # a call after both were attached
        outcome = node.run("apply", "-y", str(node.path))
    assert "NK0505" in outcome.err
    assert len(seen) >= 3  # two there, and at least one back
    assert all(seen)
    assert is_off(switch)


def test_one_attachment_is_waited_for(node: Node, switch: Path, seen: list[int]) -> None:
    node.apply(ONE)
    assert seen == [0]
    assert is_off(switch)


def test_a_program_that_is_updated_needs_nothing(node: Node, switch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = {f"v{number}": spec("shut")["devices"]["v0"] | {"peer": {"name": f"w{number}"}} for number in range(3)}
    node.apply(spec() | {"devices": many})
    monkeypatch.setattr(rcu, "write", lambda value: pytest.fail(f"the switch was set to {value}"))
    passing = {**PROGRAMS, "shut": {"template": "verdict", "params": {"verdict": "pass"}}}
    node.apply(spec() | {"devices": many, "programs": passing})


@pytest.mark.parametrize(
    ("knob", "value"), [("rcu_expedited", "1"), ("rcu_expedited", "7"), ("rcu_normal", "1"), ("realtime", "1")]
)
def test_it_is_left_alone(
    node: Node, switch: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch, knob: str, value: str
) -> None:
    monkeypatch.setattr(rcu, "REALTIME", switch.parent / "realtime")
    monkeypatch.setattr(rcu, "write", lambda value: pytest.fail(f"the switch was set to {value}"))
    switch.with_name(knob).write_text(f"{value}\n")
    before = switch.read_text()
    node.apply(TWO)
    assert set(seen) == {int(before)}
    node.destroy()
    assert switch.read_text() == before
    assert not expedite.is_borrowed()
    finding = next(each for each in node.run("doctor", "--json").json() if each["name"] == "rcu_expedited")
    assert finding["state"] == ("ok" if knob == "rcu_expedited" else "missing")


def test_sysfs_that_cannot_be_written_only_costs_time(
    node: Node, switch: Path, seen: list[int], tmp_path: Path
) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    folder = str(switch.parent).encode()
    remount, read_only, bind = 32, 1, 4096  # include/uapi/linux/mount.h
    isolation._check(libc.mount(folder, folder, None, bind, None), "bind")
    try:
        isolation._check(libc.mount(None, folder, None, remount | bind | read_only, None), "make it read-only")
        node.apply(TWO)
        assert set(seen) == {0}
        assert "cannot be written" in node.run("doctor").out
    finally:
        libc.umount2(folder, isolation.MNT_DETACH)
    assert is_off(switch)


def test_a_switch_that_cannot_be_set_only_costs_time(
    node: Node, switch: Path, seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with injected("expedite"):
        node.apply(TWO)
    assert set(seen) == {0}
    assert is_off(switch)


@pytest.mark.parametrize("how", ["option", "spec", "plan"])
def test_it_can_be_forbidden(
    node: Node, switch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, how: str
) -> None:
    """Also on the way back from a run for which it was forbidden, and when all of it goes."""
    monkeypatch.setattr(rcu, "write", lambda value: pytest.fail(f"the switch was set to {value}"))
    words = ["--no-expedite"] if how == "option" else []
    keys = {} if how == "option" else {"expedite": False}
    if how == "plan":
        node.write(spec("count", "shut", **keys))
        assert node.run("plan", str(node.path), "-o", str(tmp_path / "plan")).code == 0
        assert node.run("apply", str(tmp_path / "plan")).code == 0
    else:
        node.write(spec("count", "shut", **keys))
        assert node.run("apply", "-y", str(node.path), *words).code == 0
    assert node.run("rollback", "-y").code == 0
    assert node.run("rollback", "-y").code == 0
    assert node.run("destroy", "-y", "--node", "fast").code == 0


def test_what_others_set_meanwhile_stays(node: Node, switch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Chains.set

    def meddling(self: Chains, *words: Any) -> None:
        genuine(self, *words)
        switch.write_text("1\n")

    with monkeypatch.context() as patch:
        patch.setattr(Chains, "set", meddling)
        node.apply(TWO)
    assert switch.read_text() == "1\n"
    assert not expedite.is_borrowed()


def another(node: Node) -> None:
    """An apply of another node."""
    other = node.folder / "other.yaml"
    other.write_text("{version: 1, node: other, devices: {x: {kind: veth, peer: {name: y}}}}")
    assert node.run("apply", "-y", str(other)).code == 0


NEXT: dict[str, Callable[[Node], object]] = {
    "plan": lambda node: node.run("plan", str(node.path)),
    "status": lambda node: node.run("status", "--node", "fast"),
    "recover": lambda node: node.run("recover", "-y"),
    "apply": lambda node: node.run("apply", "-y", str(node.path)),
    "destroy": lambda node: node.run("destroy", "-y", "--node", "fast"),
    "another": another,
}


def test_a_run_that_is_killed_at_any_call_leaves_it_off_after_the_next_command(node: Node, switch: Path) -> None:
    def change() -> None:
        node.run("destroy", "-y", "--node", "fast")
        node.apply(spec())
        node.write(TWO)

    node.apply(TWO)  # nothing is compiled from now on: each run makes the same calls
    change()
    with injected(NOWHERE) as injection:
        assert node.run("apply", "-y", str(node.path)).code == 0
    on, off = (place for place, call in enumerate(injection.made) if call.startswith("expedite"))
    commands = list(NEXT)
    for place in range(0, len(injection.made), SIZES.killed_calls):
        while_on = on < place <= off
        for command in commands if while_on else [commands[place % len(commands)]]:
            change()

            def work(place: int = place) -> None:
                with injected(place, kill=True):
                    node.run("apply", "-y", str(node.path))

            assert in_child(work) == -signal.SIGKILL
            assert (switch.read_text() != "0\n") == while_on, (place, injection.made[place])
            NEXT[command](node)
            assert is_off(switch), f"killed before call {place}, {injection.made[place]}, then {command}"
            node.run("recover", "-y")
            assert bpffs.has_node("fast") == bool(list(bpffs.pins("fast")))


def elsewhere() -> None:
    """Another /run, and with it another lock: a run here does not see the other one's."""
    isolation._check(isolation._libc.unshare(isolation.CLONE_NEWNS | isolation.CLONE_NEWNET), "unshare")
    isolation.mount("tmpfs", "/run")
    isolation.mount("bpf", "/sys/fs/bpf")


def held(patience: Path, first: Callable[[], None] = lambda: None) -> Callable[[], None]:
    """The run of a process waits, half-way through its chains, until a file is there; `first` is done before it."""

    def prepare() -> None:
        first()
        genuine = Chains.set

        def waiting(self: Chains, *words: Any) -> None:
            genuine(self, *words)
            print("half-way", flush=True)
            until(patience.exists)

        Chains.set = waiting  # type: ignore[method-assign]

    return prepare


@pytest.mark.parametrize("killed", [None, "first", "second"])
def test_two_runs_at_once_leave_it_as_it_was(node: Node, switch: Path, killed: str | None) -> None:
    node.write(TWO)
    go = [node.folder / name for name in ("first", "second")]
    runs = []
    for patience in go:
        runs.append(Process("apply", "-y", str(node.path), prepare=held(patience, elsewhere)))
        runs[-1].hears("half-way")
        value = switch.read_text()
        assert value != "0\n"
    if killed == "first":  # its next command puts it back, in its own /run
        os.kill(runs[0].pid, signal.SIGKILL)
        assert runs[0].ended() == -signal.SIGKILL
        go[1].touch()
        assert runs[1].ended() == 0
        assert switch.read_text() == value
        return
    if killed == "second":
        os.kill(runs[1].pid, signal.SIGKILL)
        assert runs[1].ended() == -signal.SIGKILL
        go[0].touch()
        assert runs[0].ended() == 0
        assert switch.read_text() == "0\n"
        return
    for patience, run in zip(go, runs, strict=True):
        patience.touch()
        assert run.ended() == 0
    assert switch.read_text() == "0\n"


def test_both_runs_took_it_at_the_same_moment(switch: Path) -> None:
    """Both found it off and set it: the last one has it, and puts it back; the other one leaves it alone."""
    first, second = 2_000_000, 3_000_000
    for number in (first, second):
        rcu.write(number)
    rundir.write(rundir.MACHINE, expedite.RECORD, f"{first}\n")
    assert not expedite.put_back()
    assert rcu.read() == second
    rundir.write(rundir.MACHINE, expedite.RECORD, f"{second}\n")
    assert expedite.put_back()
    assert is_off(switch)


def test_reading_commands_leave_it_to_the_run_that_has_it(node: Node, switch: Path) -> None:
    node.write(TWO)
    go = node.folder / "go"
    run = Process("apply", "-y", str(node.path), prepare=held(go))
    run.hears("half-way")
    value = switch.read_text()
    assert value != "0\n"
    for words in (["plan", str(node.path)], ["status", "--node", "fast"], ["show", "--node", "fast"]):
        node.run(*words)
    assert "a run of nkform has set" in node.run("doctor").out
    assert switch.read_text() == value
    go.touch()
    assert run.ended() == 0
    assert is_off(switch)


def test_the_kernel_takes_the_numbers_of_runs(node: Node) -> None:
    """The real switch, where the kernel has one; other tests beside this one may have it on."""
    if not rcu.EXPEDITED.exists():
        assert "one processor" in rcu.obstacle()
        assert "one processor" in node.run("doctor").out
        return
    before = rcu.read()
    for number in (1, 1 << 20, rcu.LARGEST):
        rcu.write(number)
        rcu.write(before)
    node.apply(TWO)
    node.destroy()
