"""A peer in the namespace of a process, or of a path, that a later spec does not name: it comes back all the same."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nkform.kernel.error import KernelError
from tests.live.helpers.attack import killed_after, stopped_after
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds, sh

Spec = dict[str, Any]

GONE: Spec = {"version": 1, "node": "w", "devices": {}}


@pytest.fixture
def workload() -> Iterator[int]:
    """A process in a namespace of its own, which has no name."""
    process = subprocess.Popen(["unshare", "--net", "sleep", "600"])
    own = Path("/proc/self/ns/net").stat().st_ino
    try:
        until(lambda: Path(f"/proc/{process.pid}/ns/net").stat().st_ino != own)
        yield process.pid
    finally:
        process.kill()
        process.wait()


def spec(key: Spec, kind: str = "veth") -> Spec:
    peer = {"name": "eth0", "namespace": key, "addresses": ["10.7.0.2/24"], "routes": [{"to": "10.9.0.0/16"}]}
    return {"version": 1, "node": "w", "devices": {"v0": {"kind": kind, "addresses": ["10.7.0.1/24"], "peer": peer}}}


def inside(pid: int) -> str:
    return sh("nsenter", "-t", str(pid), "-n", "ip", "addr")


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("way", ["trial", "rollback", "failure", "kill"])
def test_it_comes_back(node: Node, workload: int, kind: str, way: str) -> None:
    made = spec({"pid": workload}, kind)
    node.apply(made)
    before = netstate_snapshot()
    assert "10.7.0.2" in inside(workload)
    node.write(GONE)
    if way == "trial":
        assert node.run("apply", "-y", str(node.path), "--confirm", "2s", "--detach").code == 0
        assert "10.7.0.2" not in inside(workload)
        until(lambda: "10.7.0.2" in inside(workload))
        until(lambda: not Path("/run/nkform/w/unconfirmed").exists())
    elif way == "failure":
        with stopped_after(1, 1, refused):
            outcome = node.run("apply", "-y", str(node.path))
        assert "NK0505" in outcome.err
    else:
        if way == "rollback":
            node.apply(GONE)
        else:
            killed_after(node, 1, 1)
        outcome = node.run("recover" if way == "kill" else "rollback", "-y")
        assert outcome.code == 0, outcome.err
    assert "10.7.0.2" in inside(workload)
    assert differences(before, netstate_snapshot()) == []
    assert node.changes(made) == []


def refused() -> None:
    raise KernelError(1, "go on")


def test_by_a_path(node: Node, workload: int, tmp_path: Path) -> None:
    file = tmp_path / "somewhere"
    file.touch()
    sh("mount", "--bind", f"/proc/{workload}/ns/net", str(file))
    try:
        made = spec({"path": str(file)})
        node.apply(made)
        node.apply(GONE)
        outcome = node.run("rollback", "-y")
        assert outcome.code == 0, outcome.err
        assert "10.7.0.2" in inside(workload)
        node.destroy()
    finally:
        sh("umount", str(file))


def test_a_path_that_leads_to_another_namespace_by_now_gets_nothing(node: Node, workload: int, tmp_path: Path) -> None:
    """As a number of a process that another one has."""
    file = tmp_path / "somewhere"
    file.touch()
    sh("mount", "--bind", f"/proc/{workload}/ns/net", str(file))
    node.apply(spec({"path": str(file)}))
    node.apply(GONE)
    sh("umount", str(file))
    ip("netns", "add", "other")
    sh("mount", "--bind", "/run/netns/other", str(file))
    try:
        outcome = node.run("rollback", "-y")
        assert outcome.code == 1
        assert "NK0410" in outcome.err
        assert "eth0" not in ip("link", namespace="other")
        assert "v0" not in ip("link")
    finally:
        sh("umount", str(file))
