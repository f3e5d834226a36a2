"""Where the other end of a pair is, whatever namespaces are called and whatever is made in them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nkform.kernel.netns import Namespaces
from nkform.kernel.place import place
from nkform.observe.node import observe
from nkform.observe.nodes import nodes
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds, link, sh
from tests.live.test_pairs import veth


def peers() -> dict[str, tuple[str, str]]:
    """The namespace and the name of the other end of each device of the node."""
    before = place()
    with Namespaces() as namespaces:
        live = observe(namespaces, "w")
    assert place() == before
    return {name: (device.peer.namespace, device.peer.name) for name, device in live.devices.items() if device.peer}


def imitate(namespace: str, primary: str, peer: dict[str, Any]) -> None:
    """A pair between a namespace and one within it, that names the same indexes as a pair of the node does."""
    ip("netns", "add", "hidden")
    index = str(link(primary)["ifindex"])
    ip(
        "link", "add", "fake", "index", str(peer["ifindex"]), "type", "veth",
        "peer", "name", "x", "index", index, "netns", "hidden", namespace=namespace,
    )  # fmt: skip
    made = link("fake", namespace)
    assert (made["ifindex"], made["link_index"]) == (peer["ifindex"], int(index))


@pytest.mark.parametrize("kind", kinds())
def test_a_pair_that_imitates_a_peer_is_not_taken_for_it(node: Node, kind: str) -> None:
    node.apply(veth(kind))
    ip("netns", "add", "hostile")
    # Ids come and go: the namespace knows the root one by an id, too, as a peer would.
    ip("link", "add", "door", "index", "98", "type", "veth", "peer", "name", "door", "index", "99", "netns", "hostile")
    imitate("hostile", "to-a", link("eth0", "a"))
    assert peers() == {"to-a": ("a", "eth0"), "to-b": ("b", "eth0")}
    assert node.changes() == []


@pytest.mark.parametrize("kind", kinds())
def test_a_peer_in_a_namespace_without_a_name_is_where_it_is(node: Node, kind: str) -> None:
    node.apply(veth(kind))
    peer = link("eth0", "a")
    ip("netns", "add", "hostile")
    ip("netns", "add", "nameless")
    ip("link", "set", "eth0", "netns", "nameless", namespace="a")
    keeper = os.open("/run/netns/nameless", os.O_RDONLY)
    try:
        ip("netns", "del", "nameless")
        imitate("hostile", "to-a", peer)
        assert peers()["to-a"][0].startswith("nsid:")
        assert peers()["to-a"][1] == "eth0"
    finally:
        os.close(keeper)


@pytest.mark.parametrize("kept_by", ["process", "file"])
def test_show_says_where_a_peer_in_a_namespace_without_a_name_is(node: Node, kept_by: str) -> None:
    """By a process that is in there; else no spec can say it, and the device is left out."""
    node.apply(veth())
    ip("netns", "add", "nameless")
    ip("link", "set", "eth0", "netns", "nameless", namespace="a")
    keeper = os.open("/run/netns/nameless", os.O_RDONLY)
    words = ["ip", "netns", "exec", "nameless", "sleep", "1000"] if kept_by == "process" else ["sleep", "1000"]
    with subprocess.Popen(words) as process:
        try:
            until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
            ip("netns", "del", "nameless")
            shown = node.run("show", "--node", "w")
            assert "nsid" not in shown.out + shown.err
            if kept_by == "process":
                assert f"pid: {process.pid}" in shown.out
                assert node.changes(shown.out) == []
            else:
                assert "NK0616" in shown.err
                assert "to-a" not in shown.out
                assert node.run("validate", str(node.write(shown.out))).code == 0
        finally:
            os.close(keeper)
            process.kill()


@pytest.mark.parametrize("kind", kinds())
def test_a_namespace_may_have_two_names(node: Node, kind: str) -> None:
    spec = veth(kind)
    node.apply(spec)
    for alias in ("again", "0-again"):  # names in any order
        Path(f"/run/netns/{alias}").touch()
        sh("mount", "--bind", "/run/netns/a", f"/run/netns/{alias}")
        assert node.changes(spec) == []
        assert peers() == {"to-a": ("a", "eth0"), "to-b": ("b", "eth0")}
        declared = {**spec, "namespaces": {**spec["namespaces"], alias: {}}}
        assert "NK0476" in node.refused(declared)
        node.write(spec)


def test_the_root_namespace_may_have_a_name(node: Node) -> None:
    node.apply(veth())
    for name in ("0-home", "z-home"):
        Path(f"/run/netns/{name}").touch()
        sh("mount", "--bind", "/proc/self/ns/net", f"/run/netns/{name}")
    assert peers() == {"to-a": ("a", "eth0"), "to-b": ("b", "eth0")}
    assert node.changes() == []


def test_all_nodes_are_found_wherever_their_marks_are(node: Node) -> None:
    """A namespace that only says so itself is nobody's."""
    node.apply(veth())
    node.apply({"version": 1, "node": "elsewhere", "namespaces": {"far": {"create": True}}})
    ip("netns", "add", "other")
    ip("link", "set", "lo", "alias", "nkform:forged", namespace="other")
    Path("/run/netns/left-over").touch()
    with Namespaces() as namespaces:
        assert nodes(namespaces) == ["elsewhere", "w"]
