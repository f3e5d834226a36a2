"""Given a packet in the notation of tests, its bytes are those that would be on the wire."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkform.bpf.packets import MAX_PACKET, build, checksum


def packet(notation: object, mode: str = "l3") -> bytes:
    built = build(notation, mode)
    assert not built.problems, built.problems
    return built.data


def problem(notation: object) -> Any:
    (found,) = build(notation, "l3", ("tests", 0, "packet")).problems
    return found


def test_a_udp_packet_as_it_is_on_the_wire() -> None:
    data = packet(
        {"ip": {"src": "10.0.0.2", "dst": "192.0.2.1", "id": 1}, "udp": {"sport": 1, "dport": 53}, "payload": "hi"}
    )
    assert data.hex() == (
        "000000000000" "000000000000" "0800"
        "4500001e00010000" "4011aecb" "0a000002" "c0000201"
        "00010035" "000a" "cb37" "6869"
    )  # fmt: skip


def test_in_l2_there_are_addresses_and_in_l3_zeros() -> None:
    notation = {"ip": {"src": "10.0.0.2", "dst": "192.0.2.1"}}
    assert packet(notation, "l3")[:12] == bytes(12)
    assert packet(notation, "l2")[:12].hex() == "020000000002020000000001"


def test_an_arp_request_goes_to_all() -> None:
    data = packet({"arp": {"sender_ip": "10.0.0.2", "target_ip": "10.0.0.1"}}, "l2")
    assert data[:6] == b"\xff" * 6
    assert data[12:].hex() == "080600010800060400010200000000010a0000020000000000000a000001"


def test_tags_follow_each_other() -> None:
    data = packet({"vlan": [{"id": 7, "type": 0x88A8}, {"id": 8, "priority": 5}], "ip": {"src": "::1", "dst": "::2"}})
    assert data[12:22].hex() == "88a800078100a00886dd"


def test_a_hop_by_hop_header_is_padded() -> None:
    data = packet({"ip": {"src": "::", "dst": "ff02::16"}, "hop_by_hop": "05020000", "icmp6": {"type": 143}})
    assert data[20] == 0
    assert data[54:62].hex() == "3a00050200000100"


@given(
    source=st.ip_addresses(v=4), destination=st.ip_addresses(v=4), payload=st.binary(max_size=200),
    layer=st.sampled_from(["udp", "tcp", "icmp"]),
)  # fmt: skip
def test_checksums_of_ipv4_add_up(source: object, destination: object, payload: bytes, layer: str) -> None:
    data = packet({"ip": {"src": str(source), "dst": str(destination)}, layer: {}, "payload": {"hex": payload.hex()}})
    header, body = data[14:34], data[34:]
    assert checksum(header) == 0
    pseudo = header[12:20] + struct.pack("!BBH", 0, header[9], len(body)) if layer != "icmp" else b""
    assert checksum(pseudo + body) == 0


@given(
    source=st.ip_addresses(v=6), destination=st.ip_addresses(v=6), payload=st.binary(max_size=200),
    layer=st.sampled_from(["udp", "tcp", "icmp6"]),
)  # fmt: skip
def test_checksums_of_ipv6_add_up(source: object, destination: object, payload: bytes, layer: str) -> None:
    data = packet({"ip": {"src": str(source), "dst": str(destination)}, layer: {}, "payload": {"hex": payload.hex()}})
    assert struct.unpack_from("!H", data, 18)[0] == len(data) - 54
    assert checksum(data[22:54] + struct.pack("!II", len(data) - 54, data[20]) + data[54:]) == 0


@pytest.mark.parametrize(
    ("notation", "path", "said"),
    [
        ("udp", (), "mapping of layers"),
        ({"upd": {}}, ("upd",), "no layer"),
        ({"ip": {"src": "10.0.0.2"}}, ("ip",), "needs `dst`"),
        ({"ip": {"src": "10.0.0.2", "dst": "::1"}}, ("ip", "dst"), "different families"),
        ({"ip": {"src": "10.0.0.2", "dst": "x"}}, ("ip", "dst"), "must be an IP address"),
        ({"ip": {"src": "::2", "dst": "::1"}, "icmp": {}}, ("icmp",), "does not go with IPv6"),
        ({"udp": {}}, (), "needs ip"),
        ({"ip": {"src": "::2", "dst": "::1"}, "udp": {"dport": 65536}}, ("udp", "dport"), "between 0 and 65535"),
        ({"ip": {"src": "::2", "dst": "::1"}, "udp": {}, "tcp": {}}, ("tcp",), "both udp and tcp"),
        ({"payload": {"size": 100000}}, ("payload", "size"), "between"),
        ({"payload": {"hex": "abc"}}, ("payload", "hex"), "hexadecimal"),
        ({"truncate": 5}, ("truncate",), "between 14"),
        ({"ip": {"src": "10.0.0.2", "dst": "10.0.0.1", "offset": 7}}, ("ip", "offset"), "multiple of 8"),
    ],
)
def test_what_is_wrong_is_told_at_its_path(notation: object, path: tuple[str, ...], said: str) -> None:
    found = problem(notation)
    assert found.path == ("tests", 0, "packet", *path)
    assert said in found.message


def test_a_packet_that_the_kernel_would_not_take_is_refused() -> None:
    assert build({"payload": "x" * 10000}, "l3").problems
    assert len(packet({"payload": {"size": MAX_PACKET - 14}})) == MAX_PACKET


ADDRESSES = ["10.0.0.1", "::1", "00ff"]
WORDS = ["ip", "src", "dst", "udp", "tcp", "arp", "vlan", "payload", "size", "hex", "flags", "icmp6", "target"]
JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=8), st.sampled_from(ADDRESSES)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(WORDS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)  # fmt: skip


@given(notation=JUNK, mode=st.sampled_from(["l2", "l3"]))
def test_any_notation_gives_a_packet_or_problems_and_never_an_exception(notation: object, mode: str) -> None:
    built = build(notation, mode)
    assert built.problems or 14 <= len(built.data) <= MAX_PACKET
