"""What is not ours stays as it is, and stands in the way only with an explanation."""

from __future__ import annotations

import subprocess
import time
from typing import Any

import pytest

from nkform.observe import node as observing
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, dump, ip, kinds, link, links, needs, sh
from tests.live.helpers.witness import IP
from tests.live.test_pairs import veth
from tests.sizes import LAB


@pytest.fixture
def beside() -> None:
    """Things of others: devices, an address, routes, a rule, a namespace with a device in it."""
    ip("link", "add", "br-other", "type", "bridge")
    ip("link", "add", "other0", "mtu", "1334", "type", "veth", "peer", "name", "other1")
    ip("link", "set", "other0", "alias", "somebody else's", "up")
    ip("link", "set", "other1", "up")
    ip("addr", "add", "192.0.2.9/24", "dev", "other0")
    ip("route", "add", "203.0.113.0/24", "dev", "other0", "proto", "99")
    ip("-6", "route", "add", "2001:db8:9::/48", "dev", "other0")
    ip("route", "add", "10.0.0.0/8", "via", "192.0.2.1", "dev", "other0", "table", "7")
    ip("rule", "add", "from", "192.0.2.0/24", "table", "7")
    ip("netns", "add", "other")
    ip("link", "add", "dev0", "type", "bridge", namespace="other")
    ip("addr", "add", "192.0.2.77/32", "dev", "dev0", namespace="other")
    ip("link", "set", "dev0", "alias", "nkform:another-node", namespace="other")
    settled()


def settled() -> None:
    """Waits until the kernel has given links their state and their link-local addresses."""
    last = ""
    for _ in range(50):
        now = dump() + dump("other")
        if now == last and "tentative" not in now:
            return
        last = now
        time.sleep(0.2)
    raise AssertionError("the network never settles")


def _lines(namespace: str = "") -> list[str]:
    return dump(namespace).splitlines()


def others(namespace: str = "") -> list[str]:
    """What `dump` says of everything but our own devices."""
    blocks = _lines(namespace)
    ours = ("to-a", "to-b")
    kept, skip = [], False
    for line in blocks:
        if not line.startswith(" "):
            skip = any(f" {name}" in line or f"dev {name}" in line for name in ours)
            # The number before a link's name is given in the order of creation; it is the same all through.
        if not skip:
            kept.append(line)
    return kept


@pytest.mark.usefixtures("beside")
def test_foreign_things_are_the_same_after_apply_change_and_destroy(node: Node) -> None:
    before, inside = others(), _lines("other")
    spec = veth()
    node.apply(spec)
    assert (others(), _lines("other")) == (before, inside)
    spec["devices"]["to-a"].update(mtu=1400, routes=[{"to": "10.0.0.0/24"}])
    del spec["devices"]["to-b"]
    node.apply(spec)
    assert (others(), _lines("other")) == (before, inside)
    node.destroy()
    assert (_lines(), _lines("other")) == (before, inside)


def test_foreign_addresses_and_routes_on_our_devices_stay(node: Node) -> None:
    spec = veth()
    node.apply(spec)
    ip("addr", "add", "192.0.2.1/24", "dev", "to-a")
    ip("route", "add", "203.0.113.0/24", "dev", "to-a")
    ip("route", "add", "203.0.113.0/24", "dev", "eth0", namespace="a")
    assert node.changes() == []
    spec["devices"]["to-a"].update(addresses=[], mtu=1400)
    node.apply(spec)
    assert "192.0.2.1/24" in ip("addr", "show", "to-a")
    assert "169.254.1.1" not in ip("addr", "show", "to-a")
    assert "203.0.113.0/24" in ip("route")
    assert "203.0.113.0/24" in ip("route", namespace="a")


def test_a_device_that_is_not_ours_is_not_taken(node: Node) -> None:
    ip("link", "add", "to-a", "type", "veth", "peer", "name", "x0")
    before = dump()
    error = node.refused(veth())
    assert "NK0412" in error
    assert "--adopt" in error
    assert "spec.yaml" in error
    assert dump() == before


def test_adopt_takes_a_device_over_as_it_is(node: Node) -> None:
    ip("netns", "add", "a")
    ip("netns", "add", "b")
    ip("link", "add", "to-a", "type", "veth", "peer", "name", "eth0", "netns", "a")
    index = link("to-a")["ifindex"]
    changes = node.changes(veth(), "--adopt")
    assert {(c["name"], c["operation"]) for c in changes} >= {("to-a", "update"), ("a", "update")}
    node.apply(veth(), "--adopt")
    assert link("to-a")["ifindex"] == index
    assert link("to-a")["ifalias"] == "nkform:w"
    node.destroy()
    assert links() == set()


def test_adopt_never_replaces(node: Node) -> None:
    ip("link", "add", "to-a", "type", "bridge")
    assert "NK0414" in node.refused(veth(), "--adopt")
    assert link("to-a")["linkinfo"]["info_kind"] == "bridge"


def test_another_nodes_devices_are_left_alone(node: Node) -> None:
    node.apply(veth())
    spec = {**veth(), "node": "other"}
    error = node.refused(spec)
    assert "NK0411" in error
    assert node.changes({**spec, "devices": {}, "namespaces": {}}) == []


def test_a_peer_name_that_is_taken_is_refused(node: Node) -> None:
    ip("netns", "add", "a")
    ip("link", "add", "eth0", "type", "bridge", namespace="a")
    spec = veth()
    spec["namespaces"]["a"] = {}
    error = node.refused(spec)
    assert "NK0415" in error
    assert "eth0" in error


def test_a_namespace_with_a_foreign_device_is_left(node: Node) -> None:
    node.apply(veth())
    ip("link", "add", "theirs", "type", "bridge", namespace="a")
    out = node.destroy()
    assert "NK0416" in out.err
    assert "theirs" in out.err
    assert links("a") == {"theirs"}
    assert ip("netns").split()[0] == "a"
    ip("link", "del", "theirs", namespace="a")
    node.destroy()
    assert ip("netns").strip() == ""


def test_a_namespace_without_create_must_exist_and_stays(node: Node) -> None:
    spec = veth()
    spec["namespaces"]["a"] = {}
    assert "NK0410" in node.refused(spec)
    ip("netns", "add", "a")
    node.apply(spec)
    node.destroy()
    assert "a" in ip("netns")
    assert links("a") == set()


def test_a_file_that_is_no_namespace_is_no_obstacle(node: Node) -> None:
    sh("mkdir", "-p", "/run/netns")
    sh("touch", "/run/netns/left-over")
    node.apply(veth())
    node.destroy()
    assert "left-over" in node.run("doctor").out


@needs("netkit")
def test_only_pairs_are_adopted_or_pruned(node: Node) -> None:
    """A bridge that somebody gave our mark is none of our kinds: it is reported by nobody and deleted by nobody."""
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "alias", "nkform:w")
    node.apply(veth("netkit"))
    node.destroy()
    assert links() == {"br0"}


@pytest.mark.parametrize("kind", kinds())
def test_a_pair_that_goes_while_we_look_is_gone(node: Node, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """And not a device that has lost its peer: its namespace is read after the root one."""
    node.apply(veth(kind))
    genuine = observing.read
    looks = 0

    def read(*words: Any) -> Any:
        nonlocal looks
        looks += 1
        found = genuine(*words)
        if looks == 1:
            ip("link", "del", "to-a")
        return found

    monkeypatch.setattr(observing, "read", read)
    assert [(change["name"], change["operation"]) for change in node.changes()] == [("to-a", "create")]


def fallback_tunnels(only_for_init: str) -> None:
    """Whether new network namespaces get sit0 and the like; the machine's own namespace alone has the switch."""
    sh("nsenter", "-t", "1", "-n", "sysctl", "-qw", f"net.core.fb_tunnels_only_for_init_net={only_for_init}")


def test_the_kernels_own_tunnels_keep_no_namespace_alive(node: Node) -> None:
    if LAB:  # its kernels are told to make none (net.core.fb_tunnels_only_for_init_net), but where it is asked for
        fallback_tunnels("0")
    try:
        node.apply(veth())
        tunnel = [IP, "-n", "a", "link", "add", "t0", "type", "sit", "remote", "192.0.2.1"]
        made = subprocess.run(tunnel, capture_output=True, check=False)
    finally:
        if LAB:
            fallback_tunnels("1")
    if b"Unknown device type" in made.stderr:
        pytest.skip("this kernel has no sit tunnels")
    assert not made.returncode, made.stderr
    ip("link", "del", "t0", namespace="a")
    assert "sit0" in links("a")
    node.destroy()
    assert ip("netns").strip() == ""


def test_a_named_namespace_that_went_meanwhile_is_told_of_as_such(node: Node) -> None:
    spec = veth()
    spec["namespaces"]["a"] = {}
    ip("netns", "add", "a")
    node.apply(spec)
    spec["devices"]["to-a"]["mtu"] = 1400
    node.apply(spec)
    ip("netns", "del", "a")
    until(lambda: "to-a" not in links())
    outcome = node.run("rollback", "-y")
    assert outcome.code == 1
    assert "there is no namespace a" in outcome.err
    assert "hint: make it first: ip netns add a\n" in outcome.err
    ip("netns", "add", "a")
    assert node.run("rollback", "-y").code == 0
    assert links("a") == {"eth0"}
