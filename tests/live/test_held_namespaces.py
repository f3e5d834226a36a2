"""A namespace that a run removes is the same one again after going back, with all that runs in it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nkform.kernel.error import KernelError
from tests.live.helpers.attack import killed_after, stopped_after
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds
from tests.live.test_moved_peers import pair

Spec = dict[str, Any]

GONE: Spec = {"version": 1, "node": "w", "namespaces": {}, "devices": {}}


@contextmanager
def workload() -> Iterator[int]:
    """The inode of the namespace of a process in it, with what others made there."""
    for line in (
        "addr add 10.200.0.1/32 dev lo",
        "route add blackhole 10.201.0.0/16",
        "rule add from 10.200.0.1 table 77",
    ):
        ip(*line.split(), namespace="web")
    process = subprocess.Popen(["ip", "netns", "exec", "web", "sleep", "600"])
    own = Path("/proc/self/ns/net").stat().st_ino
    try:
        until(lambda: Path(f"/proc/{process.pid}/ns/net").stat().st_ino != own)
        yield Path(f"/proc/{process.pid}/ns/net").stat().st_ino
    finally:
        process.kill()
        process.wait()


def is_back(inode: int) -> None:
    assert Path("/run/netns/web").stat().st_ino == inode
    assert "10.200.0.1" in ip("addr", "show", "lo", namespace="web")
    assert "blackhole 10.201.0.0/16" in ip("route", namespace="web")
    assert "from 10.200.0.1" in ip("rule", namespace="web")
    assert "10.7.0.2" in ip("addr", "show", "eth0", namespace="web")


def held() -> list[Path]:
    return sorted(Path("/run/nkform/w").glob("namespace-*"))


@pytest.mark.parametrize("kind", kinds())
def test_a_trial_gives_it_back(node: Node, kind: str) -> None:
    made = pair("web", kind)
    node.apply(made)
    with workload() as inode:
        node.write(GONE)
        outcome = node.run("apply", "-y", str(node.path), "--confirm", "2s", "--detach")
        assert outcome.code == 0, outcome.err
        assert "web" not in ip("netns")
        assert len(held()) == 2
        until(lambda: "web" in ip("netns") and "v0" in ip("link"))
        until(lambda: held() == [])
        is_back(inode)
    assert node.changes(made) == []


def test_a_rollback_gives_it_back_and_goes_forward_again(node: Node) -> None:
    made = pair("web")
    node.apply(made)
    with workload() as inode:
        for _ in range(2):
            node.apply(GONE) if _ == 0 else node.run("rollback", "-y")
            assert "web" not in ip("netns")
            outcome = node.run("rollback", "-y")
            assert outcome.code == 0, outcome.err
            is_back(inode)
    assert node.changes(made) == []


@pytest.mark.parametrize("how", ["fails", "is killed"])
def test_a_run_that_does_not_end_well_gives_it_back(node: Node, how: str) -> None:
    made = pair("web")
    node.apply(made)
    actions = len(node.plan(GONE, "--json").json()["actions"])
    with workload() as inode:
        node.write(GONE)
        if how == "fails":
            with stopped_after(actions, actions, refused):
                outcome = node.run("apply", "-y", str(node.path))
            assert outcome.code == 1
            assert "NK0505" in outcome.err
        else:
            killed_after(node, actions, actions)
            assert "web" not in ip("netns")
            outcome = node.run("recover", "-y")
            assert outcome.code == 0, outcome.err
        is_back(inode)
    assert held() == []
    assert node.changes(made) == []


def refused() -> None:
    raise KernelError(1, "go on")


def test_it_is_let_go_of_when_no_way_leads_back_to_it(node: Node) -> None:
    node.apply(pair("web"))
    inode = Path("/run/netns/web").stat().st_ino
    node.apply(GONE)
    assert inode in [path.stat().st_ino for path in held()]
    node.apply({**GONE, "devices": {"v1": {"kind": "veth", "peer": {"name": "v1p"}}}})
    assert held() == []
    node.apply(pair("web"))
    node.apply(GONE)
    assert held() != []
    node.destroy()
    assert not Path("/run/nkform/w").exists()


def test_one_that_cannot_be_let_go_of_is_a_warning(node: Node) -> None:
    """The run is done by then, and stays so; a later one lets go of it."""
    node.apply(pair("web"))
    node.apply(GONE)
    assert held() != []
    node.write({**GONE, "devices": {"v1": {"kind": "veth", "peer": {"name": "v1p"}}}})
    with injected("unlink /run/nkform/w/namespace-") as injection:
        outcome = node.run("apply", "-y", str(node.path))
    assert injection.hit
    assert (outcome.code, "could not let go of /run/nkform/w/namespace-" in outcome.err) == (0, True), outcome.err
    assert "error" not in outcome.err
    assert node.changes() == []
    node.apply({**GONE, "devices": {"v2": {"kind": "veth", "peer": {"name": "v2p"}}}})
    assert held() == []


def test_a_namespace_of_that_name_that_comes_back_by_the_spec_is_a_new_one(node: Node) -> None:
    node.apply(pair("web"))
    first = Path("/run/netns/web").stat().st_ino
    node.apply(GONE)
    node.apply(pair("web"))
    assert Path("/run/netns/web").stat().st_ino != first or held() == []


def test_a_name_that_others_have_taken_meanwhile_is_theirs(node: Node) -> None:
    node.apply(pair("web"))
    node.apply(GONE)
    ip("netns", "add", "web")
    outcome = node.run("rollback", "-y")
    assert outcome.code == 1
    assert "NK0412" in outcome.err
    ip("netns", "del", "web")
    assert node.run("rollback", "-y").code == 0
