"""Chains at both hooks of a pair, with packets both ways, and bpftool as a witness."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.live.helpers.chain_sites import (
    CLSACT_EGRESS,
    CLSACT_INGRESS,
    DEVICE,
    FAR,
    MACS,
    NEAR,
    NETKIT_PEER,
    NETKIT_PRIMARY,
    OPEN,
    OTHER,
    SHUT,
    SILENCE,
    TCX_EGRESS,
    TCX_INGRESS,
    Packets,
    Site,
    everywhere,
    inside,
    pins,
    udp,
)
from tests.live.helpers.support import Node, features, ip, kinds, link, needs, reaches, sh
from tests.live.helpers.witness import BPFTOOL, IP, needs_bpftool
from tests.live.test_chains import failing_late

pytestmark = pytest.mark.usefixtures("made_once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere(metafunc)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        pytest.param("netkit", "l2", marks=needs("netkit")),
        pytest.param("netkit", "l3", marks=needs("netkit")),
        ("veth", "l2"),
    ],
)
def test_chains_at_both_hooks_of_a_pair(node: Node, kind: str, mode: str, engine: str) -> None:
    """With packets both ways. In mode l3 nothing is left of what answers ARP."""
    outward, inward = (replace(site, mode=mode) for site in hooks(kind))
    spec = outward.spec(["source", "arp", "count", "guard"], engine)
    spec["programs"] |= {
        "source": {"template": "source_guard"},
        "arp": {"template": "arp_responder", "params": {"addresses": ["10.0.0.77"]}},
    }
    spec["devices"][DEVICE]["programs"]["primary"] = ["count", "extra"]
    planned = node.plan(spec)
    assert ("NK0424" in planned.err) == (mode == "l3")
    assert ("arp" in planned.err) == (mode == "l3")
    node.apply(spec)
    assert outward.order() == ("source arp count guard" if mode == "l2" else "source count guard")
    assert inward.order() == "count extra"
    assert ("arp" in " ".join(pins())) == (mode == "l2" and outward.direction is None)
    with Packets(outward) as out, Packets(inward) as into:
        assert out.passing() == {OPEN, OTHER}
        assert into.passing() == {OPEN, SHUT}
    assert reaches("a", NEAR)
    if mode == "l2":
        asked = [IP, "netns", "exec", "a", "ping", "-c", "1", "-W", "1", "10.0.0.77"]
        subprocess.run(asked, capture_output=True, check=False)
        assert MACS[NEAR] in ip("neigh", "show", "10.0.0.77", namespace="a")
    with forged("10.0.0.3") as sent:
        assert not sent()
    with forged(FAR) as sent:
        assert sent()
    assert node.changes() == []


def hooks(kind: str) -> tuple[Site, Site]:
    """Where a pair's chains run: what its peer transmits, and what the primary does."""
    if kind == "netkit":
        return NETKIT_PEER, NETKIT_PRIMARY
    return (TCX_INGRESS, TCX_EGRESS) if "tcx" in features() else (CLSACT_INGRESS, CLSACT_EGRESS)


@needs_bpftool("7.4")  # which shows links at netkit's hooks and tcx's
@pytest.mark.parametrize("kind", kinds())
def test_bpftool_sees_the_same_chains(node: Node, kind: str, engine: str) -> None:
    outward, inward = hooks(kind)
    spec = outward.spec(["extra", "count", "guard"], engine)
    spec["devices"][DEVICE]["programs"]["primary"] = ["count", "extra"]
    node.apply(spec)
    bpftool_agrees(outward)
    bpftool_agrees(inward)


def bpftool_agrees(site: Site) -> None:
    """Names, order and links of a hook are those that bpftool shows."""
    kind = site.name.replace("-", "/")
    (shown,) = json.loads(sh(BPFTOOL, "-j", "net", "show", "dev", DEVICE))
    there = [each for each in shown["tc"] if each["kind"] == kind and each["devname"] == DEVICE]
    ours = site.running()
    assert len(there) == len(ours)
    if site.direction is not None:
        assert [each["id"] for each in there] == [each.program_id for each in ours]
        return
    assert [(each["prog_id"], each["link_id"]) for each in there] == [(e.program_id, e.place) for e in ours]
    found = {each["id"]: each for each in json.loads(sh(BPFTOOL, "-j", "link", "show"))}
    for each in ours:
        assert found[each.place]["type"] == site.name.partition("-")[0]
        assert found[each.place]["prog_id"] == each.program_id
        assert found[each.place]["attach_type"] == site.name.replace("-", "_")


@contextlib.contextmanager
def forged(source: str) -> Iterator[Callable[[], bool]]:
    """Sends packets of the workload from an address of one's choice, and tells whether they arrive."""
    with inside("a"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    into = udp(NEAR, OPEN)
    into.settimeout(SILENCE)

    def sent() -> bool:
        payload = struct.pack("!HHHH", 1234, OPEN, 8, 0)
        header = struct.pack("!BBHHHBBH", 0x45, 0, 28, 1, 0, 64, 17, 0)
        raw.sendto(header + socket.inet_aton(source) + socket.inet_aton(NEAR) + payload, (NEAR, 0))
        with contextlib.suppress(TimeoutError):
            into.recv(64)
            return True
        return False

    try:
        yield sent
    finally:
        raw.close()
        into.close()


def test_answering_arp_goes_on_when_the_pair_is_made_anew(
    node: Node, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program knows the ifindex of its device, which is another one then."""
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS

    def spec(name: str) -> dict[str, Any]:
        other = "eth0" if name == "eth1" else "eth1"
        made = site.spec(["arp"], engine, peer={"name": name})
        made["programs"]["arp"] = {"template": "arp_responder", "params": {"addresses": ["10.0.0.77"]}}
        made["devices"]["z0"] = {"kind": "veth", "peer": {"name": other, "namespace": "a"}}
        return made

    def answers(name: str) -> bool:
        asked = [IP, "netns", "exec", "a", "ping", "-c", "1", "-W", "1", "10.0.0.77"]
        ip("neigh", "flush", "dev", name, namespace="a")
        for _ in range(5):
            subprocess.run(asked, capture_output=True, check=False)
            if MACS[NEAR] in ip("neigh", "show", "10.0.0.77", namespace="a"):
                return True
        return False

    node.apply(spec("eth0"))
    assert answers("eth0")
    index = link(DEVICE)["ifindex"]
    with failing_late(monkeypatch):
        assert "NK0505" in node.refused(spec("eth1"), command="apply")
    if link(DEVICE)["ifindex"] != index:
        assert answers("eth0")
    node.apply(spec("eth1"))
    assert link(DEVICE)["ifindex"] != index
    assert answers("eth1")
