"""Programs that the device they are for does not suit: `plan` says so before anything runs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.helpers.chain_sites import CLSACT_INGRESS, ENGINES, NODE, SILENCE, TCX_INGRESS, TEMPLATES
from tests.live.helpers.support import Node, features, ip, needs
from tests.live.helpers.tun import Tun, tun


def spec(programs: dict[str, Any], hook: str = "ingress", device: str = "v9", **more: Any) -> dict[str, Any]:
    """An external device with a chain of these programs."""
    chain = {"chain": list(programs)}
    return {
        "version": 1,
        "node": NODE,
        "templates": [TEMPLATES],
        "programs": programs,
        "devices": {device: {"kind": "external", "programs": {hook: chain}, **more}},
    }


@pytest.fixture(autouse=True)
def _foreign_pair(network: None) -> None:
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    ip("link", "set", "v9", "up")


def test_a_parameter_that_would_be_a_fact_nobody_has_is_refused(node: Node) -> None:
    """A guard that accepts nobody is no guard that anybody asked for."""
    error = node.refused(spec({"guard": {"template": "source_guard"}}))
    for words in ("NK0441", "`prefixes` of guard", "peer's addresses", "prefixes: [10.0.0.2/32", "spec.yaml:"):
        assert words in error
    error = node.refused(spec({"large": {"template": "too_large"}}))
    for words in ("NK0441", "`limit` of large", "MTU", "limit: 1500"):
        assert words in error
    assert "NK0712" in node.refused(spec({"guard": {"template": "source_guard", "params": {"prefixes": []}}}))
    node.apply(spec({"large": {"template": "too_large", "params": {"limit": 100}}}))
    node.destroy()


def test_so_it_is_on_a_pair_whose_peer_has_no_addresses(node: Node) -> None:
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS
    for template, parameter, lacking in (("source_guard", "prefixes", "peer"), ("too_large", "limit", "device")):
        wrong = site.spec(["p"], peer={"addresses": []})
        wrong["programs"]["p"] = {"template": template}
        error = node.refused(wrong)
        assert "NK0441" in error
        assert f"`{parameter}` of p" in error
        assert lacking in error
        right = site.spec(["p"], mtu=1500)
        right["programs"]["p"] = {"template": template}
        assert node.plan(right).code == 0


NEAR, FAR, FORGED = "10.8.0.1", "10.8.0.2", "10.9.9.9"
NEAR6, FAR6, FORGED6 = "fd08::1", "fd08::2", "fd09::9"
PORT = 8000


@contextlib.contextmanager
def receiver(address: str) -> Iterator[Callable[[bytes], bool]]:
    """Tells whether something comes to a port of an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as into:
        into.bind((address, PORT))

        def has(text: bytes) -> bool:
            into.settimeout(SILENCE)
            with contextlib.suppress(TimeoutError):
                while into.recv(64) != text:
                    pass
                return True
            return False

        yield has


@contextlib.contextmanager
def ways(device: Tun) -> Iterator[Callable[..., bool]]:
    """Sends a packet in by a device, or out by it, and tells whether it came through."""
    with receiver(NEAR) as ipv4, receiver(NEAR6) as ipv6:

        def passes(far: str, *, out: bool = False) -> bool:
            text = os.urandom(8).hex()
            is_ipv6 = ":" in far
            if not out:
                device.send(far, NEAR6 if is_ipv6 else NEAR, PORT, text)
                return (ipv6 if is_ipv6 else ipv4)(text.encode())
            family = socket.AF_INET6 if is_ipv6 else socket.AF_INET
            # Some kernels tell the sender that its packet was dropped.
            with socket.socket(family, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
                sender.sendto(text.encode(), (far, PORT))
            return device.receive(text.encode(), SILENCE)

        yield passes


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", [pytest.param("auto", marks=needs("tcx")), "tc"])
def test_programs_know_packets_without_an_ethernet_header(node: Node, engine: str, way: str) -> None:
    """On tun, WireGuard and IP tunnels a packet begins with its IP header."""
    known = [f"{FAR}/32", f"{FAR6}/128"]
    by_destination = {"prefixes": known, "match": "destination", "listed": "next", "others": "drop"}
    programs = {
        "count": {"template": "counters"},
        "guard": {"template": "source_guard", "params": {"prefixes": known}},
        "list": {"template": "prefix_filter", "params": by_destination},
    }
    with tun("t0", f"{NEAR}/24", f"{NEAR6}/64") as device, ways(device) as passes:
        declared = spec(programs, device="t0", attach=way)
        declared["engine"] = engine
        declared["devices"]["t0"]["programs"] = {"ingress": ["count", "guard"], "egress": ["count", "list"]}
        for name, proto in (("conf.all", "ipv4"), ("conf.t0", "ipv4")):
            Path(f"/proc/sys/net/{proto}/{name.replace('.', '/')}/rp_filter").write_text("0")
        node.apply(declared)
        for far, forged, other in ((FAR, FORGED, "10.8.0.3"), (FAR6, FORGED6, "fd08::3")):
            assert (passes(far), passes(forged)) == (True, False)
            assert (passes(far, out=True), passes(other, out=True)) == (True, False)
        hooks = node.run("status", "--node", NODE, "--json").json()["devices"][0]["hooks"]
        numbers = hooks["ingress"][0]["numbers"]["counters"]
        assert (numbers["ipv4"]["packets"], numbers["ipv6"]["packets"]) >= (2, 2)
        assert numbers["ipv4"]["bytes"] == numbers["ipv4"]["packets"] * (20 + 8 + 16)
        node.destroy()


def test_a_template_that_expects_an_ethernet_header_is_refused_where_there_is_none(node: Node) -> None:
    with tun("t0"):
        error = node.refused(spec({"ports": {"template": "udp_ports", "params": {"ports": [1]}}}, device="t0"))
        for words in ("NK0443", "udp_ports", "t0", "Ethernet header"):
            assert words in error
        assert (
            "NK0424"
            in node.apply(
                spec({"arp": {"template": "arp_responder", "params": {"addresses": [NEAR]}}}, device="t0")
            ).err
        )


def template(folder: Path, needs: str = "[]", parameters: str = "{}", body: str = "return NK_NEXT;") -> dict[str, Any]:
    """A spec for v9 with a template of one's own, `mine`."""
    place = folder / "templates" / "mine"
    place.mkdir(parents=True, exist_ok=True)
    said = (
        f"version: 1\npurpose: x\nhooks: [ingress, egress]\nmodes: [l2, l3]\nneeds: {needs}\nparameters: {parameters}\n"
    )
    (place / "manifest.yaml").write_text(said)
    (place / "program.bpf.c.j2").write_text(f'#include "packet.h"\n\n{{{{ program() }}}}\n{{\n\t{body}\n}}\n')
    return {**spec({"mine": {"template": "mine"}}), "templates": [str(folder / "templates")]}


def test_what_a_template_needs_of_the_kernel_is_looked_for(node: Node, tmp_path: Path) -> None:
    assert node.plan(template(tmp_path, "[gso_ipv4]")).code == 0
    missing = "netkit" if "netkit" not in features() else "sysctl:ipv4.no_such_thing"
    error = node.refused(template(tmp_path, f"[gso_ipv4, '{missing}']"))
    for words in ("NK0401", "mine", missing, "spec.yaml:"):
        assert words in error
    error = node.refused(template(tmp_path, "[gso_ipv5]"))
    for words in ("NK0702", "gso_ipv5", "gso_ipv4", "manifest.yaml:5"):
        assert words in error


@pytest.mark.parametrize("chain", [True, False], ids=["programs", "no programs"])
def test_a_folder_of_objects_that_is_not_there_is_an_error(node: Node, chain: bool) -> None:
    """Also where nothing has to be loaded."""
    declared = spec({"count": {"template": "counters"}}) if chain else {"version": 1, "node": NODE}
    node.apply(declared)
    for command in ("plan", "apply"):
        error = node.refused(declared, "--objects", "/nonexistent", command=command)
        assert "NK0733" in error
        assert "/nonexistent" in error
    node.folder.joinpath("objects").mkdir(mode=0o700)
    if chain:
        error = node.refused({**declared, "engine": "bcc"}, "--objects", str(node.folder / "objects"))
        assert "NK0736" in error


@pytest.mark.parametrize("chain", [True, False], ids=["programs", "no programs"])
def test_a_folder_of_templates_that_is_not_there_is_an_error(node: Node, chain: bool) -> None:
    """Also where nothing is made of them."""
    declared = spec({"count": {"template": "counters"}}) if chain else {"version": 1, "node": NODE}
    for command in ("plan", "apply"):
        error = node.refused({**declared, "templates": ["/nonexistent"]}, command=command)
        assert "NK0701" in error
        assert "/nonexistent" in error


OUT = "{out: {role: value, description: x, type: string, format: ifindex}}"


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("way", [pytest.param("auto", marks=needs("tcx")), "tc"])
def test_a_parameter_can_name_a_device(node: Node, tmp_path: Path, engine: str, way: str) -> None:
    """By name, whether it is there already or the same spec makes it, or by its number."""
    made = template(tmp_path, "[]", OUT, 'return bpf_redirect({{ value("out") }}, 0);')
    made["engine"] = engine
    made["devices"]["v9"]["attach"] = way
    ip("link", "add", "r0", "type", "veth", "peer", "name", "r1")
    ip("link", "set", "r0", "up")
    ip("link", "set", "r1", "up")
    made["devices"]["s0"] = {"kind": "veth", "peer": {"name": "s1"}}
    ip("link", "set", "v9p", "up")
    for out, end in (("r0", "r1"), ("s0", "s1"), (socket.if_nametoindex("r0"), "r1")):
        made["programs"]["mine"]["params"] = {"out": out}
        node.apply(made)
        assert redirected(end)
    made["programs"]["mine"]["params"] = {"out": "nowhere"}
    error = node.refused(made)
    for words in ("NK0444", "nowhere", "`out`", "spec.yaml:"):
        assert words in error
    made["programs"]["mine"]["params"] = {"out": "r0"}
    node.apply(made)
    ip("link", "del", "r0")
    ip("link", "add", "r0", "type", "veth", "peer", "name", "r1")
    ip("link", "set", "r0", "up")
    ip("link", "set", "r1", "up")
    (change,) = node.changes()  # another device by that name: the program knows the old one's number
    assert change["name"] == "v9"
    node.apply()
    assert redirected("r1")


def redirected(end: str) -> bool:
    """Whether a frame that comes in at v9 arrives at an end."""
    ETH_P_ALL = 3  # noqa: N806  # include/uapi/linux/if_ether.h
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as listening:
        listening.bind((end, 0))
        listening.settimeout(SILENCE)
        text = os.urandom(20)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sending:
            sending.bind(("v9p", 0))
            for _ in range(20):
                sending.send(b"\xff" * 6 + b"\2" * 6 + b"\x88\xb5" + text)
                with contextlib.suppress(TimeoutError):
                    while text not in listening.recv(200):
                        pass
                    return True
    return False
