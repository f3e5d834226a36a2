"""What is made from within `ip netns exec`, whose mounts end with the command, lasts or is refused."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from nkform.kernel import bpffs, mounts
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, ip, needs

Spec = dict[str, Any]

PAIR: Spec = {"version": 1, "node": "w", "devices": {"v0": {"kind": "veth", "peer": {"name": "v0p"}}}}
COUNTED: Spec = {
    **PAIR,
    "programs": {"count": {"template": "counters"}},
    "devices": {"v0": {"kind": "veth", "peer": {"name": "v0p"}, "programs": {"primary": ["count"]}}},
}
NAMED: Spec = {
    **PAIR,
    "namespaces": {"web": {"create": True}},
    "devices": {"v0": {"kind": "veth", "peer": {"name": "eth0", "namespace": "web"}}},
}


def nkform(node: Node, how: tuple[str, ...], command: str) -> subprocess.CompletedProcess[str]:
    words = [*how, sys.executable, "-m", "nkform", command, *(("-y",) if command == "apply" else ()), str(node.path)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


EXEC = ("ip", "netns", "exec", "host")
ENTER = ("nsenter", "--net=/run/netns/host")


@pytest.mark.parametrize(
    ("made", "lost"),
    [
        pytest.param(COUNTED, "programs", marks=needs("tcx"), id="programs"),
        pytest.param(NAMED, "namespaces", id="names"),
    ],
)
def test_what_would_go_with_the_command_is_refused(node: Node, made: Spec, lost: str) -> None:
    ip("netns", "add", "host")
    node.write(made)
    for command in ("plan", "apply"):
        done = nkform(node, EXEC, command)
        assert done.returncode == 1
        assert "NK0481" in done.stderr
        assert lost in done.stderr
        assert "nsenter --net=" in done.stderr
    assert "v0" not in ip("link", namespace="host")
    assert ip("netns").split() == ["host"]
    done = nkform(node, ENTER, "apply")  # as the hint says
    assert done.returncode == 0, done.stderr
    done = nkform(node, ENTER, "plan")
    assert "No changes" in done.stdout
    assert nkform(node, ENTER, "destroy").returncode == 1  # it asks, and nobody is there


def test_what_lasts_is_not_refused(node: Node) -> None:
    ip("netns", "add", "host")
    node.write(PAIR)
    done = nkform(node, EXEC, "apply")
    assert done.returncode == 0, done.stderr
    assert "No changes" in nkform(node, EXEC, "plan").stdout


@needs("tcx")
def test_who_has_a_whole_sandbox_may_lose_it(node: Node) -> None:
    """Its network namespace ends with it, too."""
    node.write(COUNTED)
    script = f"umount {bpffs.BASE}; exec {sys.executable} -m nkform apply -y {node.path}"
    done = subprocess.run(("unshare", "-mn", "sh", "-c", script), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_mount_of_a_folder_is_the_innermost(node: Node) -> None:
    ip("netns", "add", "host")  # makes /run/netns a shared mount
    assert mounts.are_shared("/run/netns")
    assert not mounts.are_shared("/run")
    assert not mounts.are_shared("/run/netnsx")
    assert not mounts.are_outlived("/run/netns")
    assert "host" in ip("netns")


@needs("tcx")
def test_destroy_elsewhere_takes_no_program_away(node: Node) -> None:
    """A node's devices are in one network namespace, and its pins are seen in all."""
    node.apply(COUNTED)
    before = netstate_snapshot()
    ip("netns", "add", "host")
    for words in (str(node.path),), ("--node", "w"):
        done = subprocess.run(
            [*ENTER, sys.executable, "-m", "nkform", "destroy", "-y", *words],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert "NK0482" in done.stderr
    ip("netns", "del", "host")
    assert differences(before, netstate_snapshot()) == []
    assert node.changes(COUNTED) == []
    assert node.run("rollback", "-y").code == 0
    assert "v0" not in ip("link")
