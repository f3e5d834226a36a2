"""/run is full, of bytes or of files: what nobody confirms goes back all the same, or is not begun."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.helpers.attack import die, in_child, killed_after, stopped_after
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, sh
from tests.live.test_confirm import guardians
from tests.live.test_going_back import changed, kill_guardians, mtus, tried
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")

RUN = Path("/run/nkform")


@pytest.fixture(autouse=True)
def _small() -> Iterator[None]:
    """A small file system in the place of all that is on record."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    sh("mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=64,mode=700", "nkform", str(RUN))
    yield
    if guardians():
        kill_guardians()
    sh("umount", str(RUN))


def fill_with_files() -> None:
    with contextlib.suppress(OSError):
        for number in range(100):
            (RUN / f"file{number}").touch()


def fill_with_bytes() -> None:
    with contextlib.suppress(OSError), (RUN / "full").open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


@pytest.mark.parametrize("fill", [fill_with_files, fill_with_bytes])
@pytest.mark.parametrize("command", ["", "rollback"])
def test_what_nobody_confirms_goes_back(node: Node, fill: object, command: str) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    tried(node, "600s" if command else "2s")
    assert callable(fill)
    fill()
    if command:
        outcome = node.run(command, "-y")
        assert outcome.code == 0, outcome.err
    until(lambda: not guardians())
    assert mtus() == {1500}
    assert differences(before, netstate_snapshot()) == []
    assert not list((RUN / "w").glob("spare*"))


def test_there_is_room_for_each_try(node: Node) -> None:
    """The first one fails: somebody has the name of what has to come back."""
    node.apply(veth())
    before = netstate_snapshot()
    spec = veth()
    del spec["devices"]["to-b"]
    node.write(spec)
    assert node.run("apply", "-y", "--confirm", "2s", "--detach", str(node.path)).code == 0
    sh("ip", "link", "add", "to-b", "type", "veth", "peer", "name", "foreign-peer")
    until((RUN / "w" / "reverted.json").exists)
    until((RUN / "w" / "spare").exists)
    fill_with_files()
    sh("ip", "link", "del", "to-b")
    until(lambda: not guardians())
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize("fill", [fill_with_files, fill_with_bytes])
@pytest.mark.parametrize("words", [("--confirm", "600s", "--detach"), ()], ids=["on trial", "for good"])
def test_where_there_is_no_room_for_the_way_back_nothing_is_begun(
    node: Node, fill: object, words: tuple[str, ...]
) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    (RUN / "one").touch()
    (RUN / "another").write_bytes(bytes(50_000))
    (RUN / "a-third").touch()
    assert callable(fill)
    fill()
    for name in ("one", "another", "a-third"):
        (RUN / name).unlink()
    node.write(changed())
    outcome = node.run("apply", "-y", *words, str(node.path))
    assert outcome.code == 1, outcome.err
    assert "spare: No space left on device" in outcome.err
    assert "actions were undone" not in outcome.err
    assert differences(before, netstate_snapshot()) == []
    until(lambda: not guardians())
    assert not list((RUN / "w").glob("spare*"))


@pytest.mark.parametrize("fill", [fill_with_files, fill_with_bytes])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("command", ["", "recover", "apply"])
def test_a_run_that_is_killed_half_way_goes_back(
    node: Node, fill: Callable[[], None], count: int, command: str
) -> None:
    """What nobody confirms goes back by itself, and the rest by the next command."""
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())

    def stop() -> None:
        fill()
        die()

    def work() -> None:
        words = ("apply", "-y", str(node.path)) + (() if command else ("--confirm", "600s", "--detach"))
        with stopped_after(count, None, stop):
            node.run(*words)

    assert in_child(work) == -signal.SIGKILL
    if command == "apply":
        (RUN / "full").unlink(missing_ok=True)
        for number in range(100):
            (RUN / f"file{number}").unlink(missing_ok=True)
        node.apply()
    else:
        if command:
            outcome = node.run(command, "-y")
            assert outcome.code == 0, outcome.err
        until(lambda: not guardians())
        assert differences(before, netstate_snapshot()) == []
    assert not list((RUN / "w").glob("spare*"))


@pytest.mark.parametrize("fill", [fill_with_files, fill_with_bytes])
def test_going_back_that_is_killed_goes_back(node: Node, fill: Callable[[], None]) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    node.write(changed())
    killed_after(node, 2)
    killed_after(node, 1, None, "recover", "-y")
    fill()
    outcome = node.run("recover", "-y")
    assert outcome.code == 0, outcome.err
    assert differences(before, netstate_snapshot()) == []


def test_no_run_leaves_what_it_has_reserved(node: Node) -> None:
    node.apply(veth())
    assert not list((RUN / "w").glob("spare*"))
    node.write(changed())
    with injected("rename journal") as injection:
        outcome = node.run("apply", "-y", str(node.path))
    assert injection.hit
    assert "NK0505" in outcome.err
    assert not list((RUN / "w").glob("spare*"))
    assert node.run("rollback", "-y").code == 0
    assert not list((RUN / "w").glob("spare*"))
    node.destroy()
    assert not (RUN / "w").exists()
