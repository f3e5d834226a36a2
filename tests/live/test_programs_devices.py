"""Programs that the device they are for does not suit: `plan` says so before anything runs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.chain_sites import CLSACT_INGRESS, ENGINES, NODE, SILENCE, TCX_INGRESS, TEMPLATES
from tests.live.support import Node, features, ip, needs
from tests.live.tun import Tun, tun


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
    node.apply(spec({"guard": {"template": "source_guard", "params": {"prefixes": []}}}))
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
