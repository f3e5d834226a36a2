"""A pair that must be made anew is built beside the old one: packets go on, nothing slips through, all or nothing."""

from __future__ import annotations

import contextlib
import copy
import errno
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.stream import Fate, Stream
from nkform.apply.executor import Executor
from nkform.kernel import bpffs
from nkform.kernel.error import KernelError
from nkform.plan.actions import Action
from tests.live.helpers.chain_sites import inside
from tests.live.helpers.support import Node, ip, link, links, needs, reaches, sysfs
from tests.live.test_rollback import ip_state
from tests.sizes import LAB

pytestmark = [pytest.mark.usefixtures("made_once"), needs("netkit")]

NEAR, FAR = {4: "10.9.0.1", 6: "fd09::1"}, {4: "10.9.0.2", 6: "fd09::2"}
PORT = 7007
INTERVAL = 0.01 if LAB else 0.001
"""Seconds from packet to packet; in the lab they share a processor with the run."""


def pair(layout: str, **device: Any) -> dict[str, Any]:
    """A workload whose addresses are reached by routes (`routed`) or lie in a subnet with the node's (`bridged`)."""
    peer: dict[str, Any] = {"name": "eth0", "namespace": "a", **device.pop("peer", {})}
    own: dict[str, Any] = {"kind": "netkit", "mode": "l3" if layout == "routed" else "l2"}
    if layout == "routed":
        own["addresses"], peer["addresses"] = ["10.9.0.1/32", "fd09::1/128"], ["10.9.0.2/32", "fd09::2/128"]
        own["routes"] = [{"to": "10.9.0.2/32"}, {"to": "fd09::2/128"}]
        peer["routes"] = [
            {"to": "default", "via": "10.9.0.1", "onlink": True},
            {"to": "::/0", "via": "fd09::1", "onlink": True},
        ]
    else:
        own["addresses"], peer["addresses"] = ["10.9.0.1/24", "fd09::1/64"], ["10.9.0.2/24", "fd09::2/64"]
    return {
        "version": 1,
        "node": "w",
        "namespaces": {"a": {"create": True}},
        "programs": {"guard": {"template": "source_guard"}, "count": {"template": "counters"}},
        "devices": {"to-a": {**own, **device, "peer": peer}},
    }


def changed(spec: dict[str, Any], **device: Any) -> dict[str, Any]:
    """The same with other attributes of the device."""
    made = copy.deepcopy(spec)
    peer = device.pop("peer", {})
    made["devices"]["to-a"].update(device)
    made["devices"]["to-a"]["peer"].update(peer)
    return made


def replacement(node: Node, spec: dict[str, Any]) -> str:
    """The reason that the plan gives for making the pair anew."""
    (change,) = node.changes(spec)
    assert change["operation"] == "replace"
    return str(change["reason"])


def bound(family: int, near: bool) -> socket.socket:
    """A socket of one end of the pair, at its address."""
    with inside("" if near else "a"):
        made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        made.bind(((NEAR if near else FAR)[family], PORT))
        return made


@contextlib.contextmanager
def streams() -> Iterator[dict[str, Fate]]:
    """UDP both ways with both families as long as the block runs; afterwards what became of it, by direction."""
    fates: dict[str, Fate] = {}
    with contextlib.ExitStack() as stack:
        started = {}
        for family in (4, 6):
            near, far = (stack.enter_context(bound(family, end)) for end in (True, False))
            near.connect((FAR[family], PORT))
            far.connect((NEAR[family], PORT))
            started[f"in{family}"] = Stream(far, near, INTERVAL)
            started[f"out{family}"] = Stream(near, far, INTERVAL)
        time.sleep(0.3)
        try:
            yield fates
            time.sleep(0.3)
        finally:
            fates.update({name: stream.stop() for name, stream in started.items()})


def lost(fates: dict[str, Fate]) -> dict[str, int]:
    """Packets lost by direction, without those whose sender was stopped while it sent: the kernel may lose them."""
    return {name: fate.lost - fate.stopped for name, fate in fates.items() if fate.lost > fate.stopped}


def tidy() -> None:
    """Nothing is left of a replacement but the pair itself."""
    assert links() == {"to-a"}
    assert links("a") == {"eth0"}
    assert all("~" not in pin.device for pin in bpffs.pins("w"))
    for family in ("-4", "-6"):
        for namespace in ("", "a"):
            assert "~" not in ip(family, "route", "show", "table", "all", namespace=namespace)


REASONS = [
    pytest.param({"scrub": "none"}, "scrub", marks=needs("netkit_scrub")),
    pytest.param({"peer": {"scrub": "none"}}, "peer.scrub", marks=needs("netkit_scrub")),
    pytest.param({"mode": "l2"}, "mode"),
    pytest.param({"headroom": 64}, "headroom", marks=needs("netkit_room")),
    pytest.param({"tailroom": 32}, "tailroom", marks=needs("netkit_room")),
    pytest.param({"kind": "veth"}, "kind"),
]


@pytest.mark.parametrize(("change", "attribute"), REASONS)
def test_every_reason_replaces_without_losing_a_packet(node: Node, change: dict[str, Any], attribute: str) -> None:
    spec = pair("routed", programs={"peer": ["guard"], "primary": ["count"]})
    node.apply(spec)
    assert reaches("a", NEAR[4])
    index = link("to-a")["ifindex"]
    anew = changed(spec, **change)
    if attribute == "kind":
        del anew["devices"]["to-a"]["mode"]
    assert replacement(node, anew) == f"{attribute} cannot change in place; the new pair is built beside the old one"
    with streams() as fates:
        node.apply(anew)
    assert link("to-a")["ifindex"] != index
    tidy()
    assert all(fate.sent > 10 for fate in fates.values())
    assert lost(fates) == {}, fates


@needs("netkit_scrub")
@pytest.mark.parametrize("strict", [False, True], ids=["", "strict rp_filter"])
def test_a_subnet_goes_over_and_comes_back(node: Node, strict: bool) -> None:
    """Connected routes and neighbours; with a strict rp_filter the gap is that between the two ends' turns."""
    spec = pair("bridged", sysctl={"ipv4": {"rp_filter": int(strict)}})
    node.apply(spec)
    assert reaches("a", NEAR[4])
    assert reaches("a", NEAR[6])
    macs = link("to-a")["address"], link("eth0", "a")["address"]
    for scrub in ("none", "default"):
        with streams() as fates:
            node.apply(changed(spec, scrub=scrub))
        tidy()
        assert (link("to-a")["address"], link("eth0", "a")["address"]) == macs
        assert lost(fates).keys() <= ({"in4"} if strict else set()), fates
        assert all(fate.arrived for fate in fates.values())


@needs("netkit_scrub")
@pytest.mark.parametrize("family", [4, 6])
def test_a_datagram_held_back_meanwhile_is_lost(node: Node, family: int) -> None:
    """What docs/spec.md says of a packet whose route was looked up before it went; the next one arrives."""
    spec = pair("bridged")
    node.apply(spec)
    with contextlib.closing(bound(family, near=True)) as out, contextlib.closing(bound(family, near=False)) as into:
        out.connect((FAR[family], PORT))
        into.settimeout(20)
        out.send(b"before")
        assert into.recv(64) == b"before"
        out.send(b"held ", socket.MSG_MORE)
        node.apply(changed(spec, scrub="none"))
        out.send(b"back")
        out.send(b"after")
        assert into.recv(64) == b"after"


@needs("netkit_scrub")
def test_a_connection_survives(node: Node) -> None:
    spec = pair("routed")
    node.apply(spec)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server((NEAR[4], PORT)))
        with inside("a"):
            client = stack.enter_context(socket.create_connection((NEAR[4], PORT)))
        server = stack.enter_context(listening.accept()[0])
        for place, scrub in enumerate(("none", "default")):
            node.apply(changed(spec, scrub=scrub))
            for out, into in ((client, server), (server, client)):
                into.settimeout(20)
                out.sendall(bytes([place]) * 5000)
                received = b""
                while len(received) < 5000:
                    received += into.recv(5000)
                assert set(received) == {place}


@needs("netkit_scrub")
@pytest.mark.parametrize("closed", ["policy", pytest.param("chain", marks=pytest.mark.smoke)])
def test_nothing_slips_through(node: Node, closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while a closed workload is made anew, nor while that is undone."""
    spec = pair("routed", peer={"policy": "blackhole"})
    if closed == "chain":
        spec = pair("routed", programs={"peer": {"default": "drop", "chain": ["count"]}})
    node.apply(spec)
    with streams() as fates:
        with failing(monkeypatch, -1):
            assert "NK0505" in node.refused(changed(spec, scrub="none"), command="apply")
        node.apply(changed(spec, scrub="none"))
    tidy()
    assert [fates[name].arrived for name in ("in4", "in6")] == [0, 0]


@needs("netkit_scrub")
def test_what_others_have_on_the_old_pair_goes_over(node: Node) -> None:
    spec = pair("routed")
    node.apply(spec)
    ip("addr", "add", "192.0.2.1/24", "dev", "to-a")
    ip("route", "add", "203.0.113.0/24", "dev", "to-a", "metric", "5", "mtu", "1300", "proto", "99")
    ip("-6", "route", "add", "2001:db8:7::/48", "dev", "to-a", "table", "7")
    ip("route", "add", "198.51.100.0/24", "via", NEAR[4], "dev", "eth0", "onlink", namespace="a")
    before = ip_state()
    node.apply(changed(spec, scrub="none"))
    tidy()
    assert ip_state().replace("scrub none", "scrub default") == before


def full() -> dict[str, Any]:
    """A pair with something of everything."""
    return pair(
        "routed",
        sysctl={"ipv4": {"forwarding": 1}},
        programs={"peer": ["guard", "count"], "primary": ["count"]},
    )


def other() -> dict[str, Any]:
    """The same, made anew, with other addresses and routes as well."""
    made = changed(full(), mode="l2", addresses=["10.9.0.1/32", "fd09::7/64"], programs={"peer": ["count"]})
    made["devices"]["to-a"]["routes"] = [{"to": "10.9.0.2/32", "mtu": 1400}, {"to": "10.77.0.0/16"}]
    made["devices"]["to-a"]["peer"]["routes"] = [{"to": "default", "via": "10.9.0.1", "onlink": True}]
    return made


class _Stopped(BaseException):
    """The end of the process: nothing is undone."""


@contextlib.contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, place: int, problem: BaseException | None = None) -> Iterator[None]:
    """The first run of actions ends before that of a number, with an error of the kernel if no other is given."""
    genuine = Executor.run
    first = True

    def run(self: Executor, actions: list[Action]) -> None:
        nonlocal first
        if not first:  # the undoing
            genuine(self, actions)
            return
        first = False
        genuine(self, actions[:place])
        raise problem or KernelError(errno.ENOMEM, f"carry out action {place}")

    with monkeypatch.context() as patch:
        patch.setattr(Executor, "run", run)
        yield


def pins() -> list[str]:
    return sorted(f"{pin.device}/{pin.hook}/{pin.entry.rsplit('@', 2)[0]}" for pin in bpffs.pins("w"))


def test_a_failure_at_any_action_leaves_the_old_pair(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """At every third one: test_attacks.py attacks each of random replacements."""
    node.apply(full())
    before, pinned, index = ip_state(), pins(), link("to-a")["ifindex"]
    types = [action["type"] for action in node.plan(other(), "--json").json()["actions"]]
    assert len(types) > 25
    for place in range(0, len(types) + 1, 3):
        with failing(monkeypatch, place):
            error = node.refused(other(), command="apply")
        assert "NK0503" not in error, f"after action {place}: {error}"
        assert "NK0504" not in error, f"after action {place}: {error}"
        assert ip_state().splitlines() == before.splitlines(), f"after action {place}"
        assert pins() == pinned
        # Only when it is gone for good must it be made again.
        assert (link("to-a")["ifindex"] == index) == (place <= types.index("DeletePair"))
        assert node.changes(full()) == []
    node.apply(other())
    tidy()


def test_after_a_stop_at_any_action_one_apply_converges(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the spec is applied again or taken back."""
    node.apply(full())
    whole_full, pins_full = ip_state(), pins()
    total = len(node.plan(other(), "--json").json()["actions"])
    node.apply(other())
    whole_other, pins_other = ip_state(), pins()
    for place in range(1, total + 1, 3):
        node.apply(full())
        with failing(monkeypatch, place, _Stopped()), pytest.raises(_Stopped):
            node.run("apply", "-y", str(node.write(other())))
        back = place % 2 == 0
        node.apply(full() if back else other())
        tidy()
        assert pins() == (pins_full if back else pins_other), f"after action {place}"
        assert ip_state().splitlines() == (whole_full if back else whole_other).splitlines(), f"after action {place}"


def test_after_a_stop_at_any_action_recovering_brings_the_old_pair_back(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The very pair, as long as it is there, whichever of the two has its names by then."""
    node.apply(full())
    before, pinned = ip_state(), pins()
    types = [action["type"] for action in node.plan(other(), "--json").json()["actions"]]
    for place in range(1, len(types) + 1, 3):
        index = link("to-a")["ifindex"]
        with failing(monkeypatch, place, _Stopped()), pytest.raises(_Stopped):
            node.run("apply", "-y", str(node.write(other())))
        outcome = node.run("recover", "-y")
        assert outcome.code == 0, outcome.err
        assert ip_state().splitlines() == before.splitlines(), f"after action {place}"
        assert pins() == pinned
        assert (link("to-a")["ifindex"] == index) == (place <= types.index("DeletePair")), f"after action {place}"
        node.apply(full())
        tidy()


def two() -> dict[str, Any]:
    spec = pair("routed")
    spec["devices"]["to-b"] = {"kind": "netkit", "peer": {"name": "eth1", "namespace": "a"}}
    return spec


def test_where_another_one_wants_what_the_old_pair_has_that_goes_first(node: Node) -> None:
    node.apply(two())
    names = two()
    for device, name in (("to-a", "eth2"), ("to-b", "eth0")):
        names["devices"][device].update(mode="l2")
        names["devices"][device]["peer"].update(name=name, routes=[], addresses=[])
    reasons = {change["name"]: change["reason"] for change in node.changes(names)}
    assert reasons["to-a"].endswith("the old pair goes first: to-b shall have its peer's name")
    assert reasons["to-b"].endswith("built beside the old one")  # the name is free by then
    node.apply(names)
    assert links("a") == {"eth0", "eth2"}
    backwards = {**two(), "devices": dict(reversed(two()["devices"].items()))}
    backwards["devices"]["to-b"].update(mode="l3")
    backwards["devices"]["to-b"]["peer"]["name"] = "eth2"
    backwards["devices"]["to-a"]["peer"]["name"] = "eth1"
    reasons = {change["name"]: change["reason"] for change in node.changes(backwards)}
    assert reasons["to-a"].endswith("the old pair goes first: to-b shall have its peer's name")
    assert reasons["to-b"].endswith("built beside the old one")
    node.apply(backwards)
    routes = two()
    routes["devices"]["to-a"].update(mode="l2", routes=[])
    routes["devices"]["to-b"].update(mode="l2", routes=[{"to": "10.9.0.2/32"}])
    node.apply(two())
    reasons = {change["name"]: change["reason"] for change in node.changes(routes)}
    assert "10.9.0.2/32 shall be that of to-b" in reasons["to-a"]
    node.apply(routes)
    assert sysfs("to-b", "operstate") == "up"


@needs("netkit_scrub")
def test_many_are_replaced_together(node: Node) -> None:
    """Names that begin alike make different spare names, in one namespace as well."""
    spec = pair("routed")
    for number in range(6):
        peer = {"name": f"interface-no-{number}", "namespace": "a"}
        spec["devices"][f"workload-no-{number}"] = {"kind": "netkit", "peer": peer}
    node.apply(spec)
    anew = copy.deepcopy(spec)
    for device in anew["devices"].values():
        device["scrub"] = "none"
    node.apply(anew)
    assert links() == set(spec["devices"])
    assert links("a") == {device["peer"]["name"] for device in spec["devices"].values()}


@needs("netkit_scrub")
def test_what_goes_with_the_old_pair_is_said(node: Node) -> None:
    spec = pair("bridged")
    node.apply(spec)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "to-a", "master", "br0")
    said = node.plan(changed(spec, scrub="none")).err
    assert "NK0426" in said
    assert "bridge" in said


@needs("netkit_scrub")
def test_both_ends_in_one_namespace(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """With several addresses each, which all keep the names of their devices as labels."""
    spec = pair("routed", addresses=["10.9.0.1/24", "10.8.0.1/24", "fd09::1/64"], routes=[])
    del spec["namespaces"]
    spec["devices"]["to-a"]["peer"] = {"name": "eth0", "addresses": ["10.9.0.2/24", "10.8.0.2/24"]}
    node.apply(spec)
    before = ip_state()
    with failing(monkeypatch, -1):
        assert "NK0505" in node.refused(changed(spec, scrub="none"), command="apply")
    assert links() == {"to-a", "eth0"}
    node.apply(changed(spec, scrub="none"))
    node.apply(spec)
    assert links() == {"to-a", "eth0"}
    assert ip_state() == before


def test_a_peer_gets_another_name_or_namespace_with_its_new_pair(node: Node) -> None:
    spec = pair("routed", programs={"peer": ["count"]})
    node.apply(spec)
    node.apply(changed(spec, mode="l2", peer={"name": "net0"}))
    assert (links(), links("a")) == ({"to-a"}, {"net0"})
    assert reaches("a", NEAR[4])
    moved = changed(spec, mode="l3", peer={"namespace": "b"})
    moved["namespaces"] = {"b": {"create": True}}
    assert [c["reason"].partition("; ")[2] for c in node.changes(moved) if c["kind"] == "device"] == [
        "the new pair is built beside the old one"
    ]
    node.apply(moved)
    assert (links(), links("b")) == ({"to-a"}, {"eth0"})
    assert reaches("b", NEAR[4])
