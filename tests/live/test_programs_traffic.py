"""Given a pair with programs at its hooks, when real packets pass, then the programs do on them what they should."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nkform.bpf import packets
from nkform.bpf.loader import Loaded
from nkform.bpf.packet_tests import numbers
from nkform.kernel.bpf_links import AttachType
from tests.live.helpers.bpf_pairs import FAR, HOOKS, PATIENCE, PEER, PORT, PRIMARY, Hook, Site, needs_hook
from tests.live.helpers.programs import FACTS, TEMPLATES, Workshop, workshop
from tests.live.helpers.support import ip

pytestmark = pytest.mark.usefixtures("made_once")

__all__ = ["workshop"]

SOL_PACKET = 263
PACKET_VNET_HDR = 15
FROM_PEER = [hook for hook in HOOKS if hook.sender == PEER]


@contextlib.contextmanager
def site(hook: Hook) -> Iterator[Site]:
    needs_hook(hook.attach_type)
    made = Site(hook)
    try:
        yield made
    finally:
        made.close()


def facts_of(made: Site) -> dict[str, object]:
    netkit = made.hook.kind == "netkit"
    hook = "peer" if made.hook.sender == PEER else "primary"
    return {"kind": made.hook.kind, "mode": "l3" if netkit else "l2", "hook": hook, "ifindex": made.index}


def far_socket(made: Site, *kind: int) -> socket.socket:
    """A socket of the peer's namespace; it stays there when the test goes on in its own."""
    with made.pair.inside(FAR):
        return socket.socket(*kind)


@contextlib.contextmanager
def attached(made: Site, workshop: Workshop, name: str, params: dict[str, object]) -> Iterator[Loaded]:
    with workshop.load(name, params, replace(FACTS, **facts_of(made))) as loaded:  # type: ignore[arg-type]
        made.attach(loaded.prog_fd)
        yield loaded


@pytest.mark.parametrize("hook", HOOKS, ids=str)
def test_counters_count_what_passes_their_hook(workshop: Workshop, hook: Hook) -> None:
    with site(hook) as made, made.pair.sockets(hook.sender) as (out, into):
        with attached(made, workshop, "counters", {}) as loaded:
            into.settimeout(PATIENCE)
            for _ in range(5):
                out.send(b"x" * 100)
                into.recv(200)
            counted = numbers(TEMPLATES["counters"], loaded)["counters"]["ipv4"]
        assert counted == {"packets": 5, "bytes": 5 * (128 + (14 if hook.kind == "veth" else 0))}


@pytest.mark.parametrize("hook", FROM_PEER, ids=str)
def test_the_guard_lets_the_workloads_address_through_and_no_other(workshop: Workshop, hook: Hook) -> None:
    with site(hook) as made:
        ip("addr", "add", "10.9.0.77/24", "dev", "eth0", namespace=FAR)
        with (
            made.pair.sockets(PEER) as (out, into),
            far_socket(made, socket.AF_INET, socket.SOCK_DGRAM) as forged,
            attached(made, workshop, "source_guard", {"prefixes": [f"{PEER}/32"]}),
        ):
            into.settimeout(PATIENCE)
            forged.bind(("10.9.0.77", PORT))
            forged.sendto(b"forged", (PRIMARY, PORT))
            out.send(b"true")
            assert into.recv(100) == b"true"


@pytest.mark.parametrize("hook", FROM_PEER, ids=str)
def test_the_guard_drops_packets_that_are_cut_short(workshop: Workshop, hook: Hook) -> None:
    whole = packets.build({"ip": {"src": PEER, "dst": "10.9.0.99"}, "udp": {"dport": 9}}, "l2").data
    with (
        site(hook) as made,
        made.pair.sockets(PEER),
        far_socket(made, socket.AF_PACKET, socket.SOCK_RAW, 0) as raw,
        attached(made, workshop, "source_guard", {"prefixes": [f"{PEER}/32"]}),
        attached(made, workshop, "counters", {}) as behind,
    ):
        raw.bind(("eth0", 0x0800))
        for size in (*range(15, 34), len(whole)):
            with contextlib.suppress(OSError):  # netkit tells the sender of a packet that was dropped
                raw.send(whole[:size])
        assert numbers(TEMPLATES["counters"], behind)["counters"]["ipv4"]["packets"] == 1


def udp_frame(source: str, size: int, destination_mac: bytes) -> bytes:
    """An Ethernet frame with a UDP packet that is longer than the notation of tests allows; without UDP checksum."""
    body = struct.pack("!HHHH", PORT, PORT, 8 + size, 0) + bytes(size)
    addresses = socket.inet_aton(source) + socket.inet_aton(PRIMARY)
    header = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 17, 0) + addresses)
    struct.pack_into("!H", header, 10, packets.checksum(header))
    return destination_mac + bytes(6) + b"\x08\0" + bytes(header) + body


@pytest.mark.parametrize("hook", FROM_PEER, ids=str)
def test_the_guard_sees_the_source_of_a_packet_whose_header_is_in_fragments(workshop: Workshop, hook: Hook) -> None:
    with site(hook) as made:
        for name, namespace in (("near", ""), ("eth0", FAR)):
            ip("link", "set", name, "mtu", "9000", namespace=namespace)
        mac = bytes.fromhex(_mac_of("near").replace(":", ""))
        with (
            made.pair.sockets(PEER) as (_, into),
            far_socket(made, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800)) as raw,
            attached(made, workshop, "source_guard", {"prefixes": [f"{PEER}/32"]}),
        ):
            into.settimeout(PATIENCE)
            raw.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
            raw.bind(("eth0", 0x0800))
            only_ethernet = struct.pack("=BBHHHH", 0, 0, 14, 0, 0, 0)  # struct virtio_net_hdr: the rest is paged
            with contextlib.suppress(OSError):  # netkit tells the sender of a packet that was dropped
                raw.send(only_ethernet + udp_frame("10.9.0.77", 6000, mac))
            raw.send(only_ethernet + udp_frame(PEER, 6001, mac))
            assert len(into.recv(9000)) == 6001


def _mac_of(name: str) -> str:
    from tests.live.helpers.support import link

    return str(link(name)["address"])


def test_the_responder_answers_the_workload(workshop: Workshop) -> None:
    hook = next(hook for hook in HOOKS if hook.attach_type == AttachType.TCX_INGRESS)
    with site(hook) as made, made.pair.sockets(PEER):
        params: dict[str, object] = {"addresses": ["169.254.1.1"], "mac": "02:00:00:00:00:aa"}
        with (
            far_socket(made, socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806)) as raw,
            attached(made, workshop, "arp_responder", params),
        ):
            raw.bind(("eth0", 0x0806))
            raw.settimeout(PATIENCE)
            question = {"arp": {"op": "request", "sender_ip": PEER, "target_ip": "169.254.1.1"}}
            raw.send(packets.build(question, "l2").data)
            reply = raw.recv(200)
            while reply[20:22] != b"\0\2":
                reply = raw.recv(200)
    answer = {
        "eth": {"src": "02:00:00:00:00:aa", "dst": "02:00:00:00:00:01"},
        "arp": {
            "op": "reply", "sender_mac": "02:00:00:00:00:aa", "sender_ip": "169.254.1.1",
            "target_mac": "02:00:00:00:00:01", "target_ip": PEER,
        },
    }  # fmt: skip
    assert reply[:42] == packets.build(answer, "l2").data


@pytest.mark.parametrize("hook", HOOKS, ids=str)
def test_the_last_verdict_of_a_closed_chain_drops_what_nobody_decided(workshop: Workshop, hook: Hook) -> None:
    with (
        site(hook) as made,
        made.pair.sockets(hook.sender) as (out, into),
        attached(made, workshop, "counters", {}) as count,
        attached(made, workshop, "verdict", {}),
    ):
        into.settimeout(0.3)
        with contextlib.suppress(OSError):
            out.send(b"lost")
        with pytest.raises(TimeoutError):
            into.recv(100)
        assert numbers(TEMPLATES["counters"], count)["counters"]["ipv4"]["packets"] == 1
