"""The system's log is told what a guardian comes to, and holds up nobody who does not get to tell it."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nkform.kernel import system_log
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import PATIENCE, until
from tests.live.helpers.support import Node, links, sh
from tests.live.test_confirm import guardians
from tests.live.test_going_back import kill_guardians
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")


@pytest.fixture(params=[socket.SOCK_DGRAM, socket.SOCK_STREAM], ids=["datagrams", "a stream"])
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket in the place of the system's log."""
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, request.param) as made:
        made.bind(path)
        if request.param == socket.SOCK_STREAM:
            made.listen(0)
        monkeypatch.setattr(system_log, "SOCKET", path)
        yield made
    if guardians():
        kill_guardians()


def fill(log: socket.socket) -> list[socket.socket]:
    """Whoever says something now has to wait."""
    if log.type == socket.SOCK_DGRAM:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(BlockingIOError):
            out.setblocking(False)
            while True:
                out.sendto(b"x", log.getsockname())
        return []
    waiting = []
    with contextlib.suppress(BlockingIOError):
        while True:
            waiting.append(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            waiting[-1].setblocking(False)
            waiting[-1].connect(log.getsockname())
    return waiting


def without_one() -> dict[str, object]:
    spec = veth()
    del spec["devices"]["to-b"]
    return spec


def trial(node: Node) -> None:
    """Nobody confirms it, and something is in the way of going back."""
    node.apply(veth())
    node.write(without_one())
    assert node.run("apply", "-y", "--confirm", "1s", "--detach", str(node.path)).code == 0
    sh("ip", "link", "add", "to-b", "type", "veth", "peer", "name", "foreign-peer")


def test_a_log_that_nobody_reads_keeps_nobody_from_going_back(node: Node, log: socket.socket) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    kept = fill(log)
    trial(node)
    until(Path("/run/nkform/w/reverted.json").exists)
    sh("ip", "link", "del", "to-b")
    until(lambda: not guardians())
    assert differences(before, netstate_snapshot()) == []
    del kept


def test_a_log_that_nobody_reads_holds_up_no_command(node: Node, log: socket.socket) -> None:
    kept = fill(log)
    trial(node)
    until(Path("/run/nkform/w/reverted.json").exists)
    kill_guardians()
    begun = time.monotonic()
    assert "going back" in node.run("plan", str(node.path)).err
    assert time.monotonic() - begun < PATIENCE / 2
    assert "to-b" in links()
    del kept


def test_what_it_comes_to_is_logged(node: Node, log: socket.socket) -> None:
    trial(node)
    log.settimeout(PATIENCE)
    heard = log.accept()[0] if log.type == socket.SOCK_STREAM else log
    with heard:
        told = heard.recv(10_000).decode()
    assert told.startswith(f"<{system_log.USER | system_log.WARNING}>")
    assert ": w: nobody confirmed, and not all goes back: " in told
    assert "to-b" in told
