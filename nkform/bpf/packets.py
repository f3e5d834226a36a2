"""Packets, from the notation of tests to bytes, with lengths and checksums as they should be.

    {ip: {src: 10.0.0.2, dst: 192.0.2.1}, udp: {dport: 53}, payload: hello}

A packet is a mapping of layers; their order in it does not matter, that on the wire is fixed. What is not given is
taken from what is: the Ethernet type from the layer that follows, the protocol from the one after. Pure.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any

from nkform.bpf.parameters import KINDS, Kind, RefusedError
from nkform.dataclass import dataclass
from nkform.nearest import nearest
from nkform.problem import Path, Problem

MAX_PACKET = 3500
"""Bytes: what the kernel takes for a test run, on every kernel and page size."""

ETHERNET_HEADER = 14

_MAC = Kind("mac")
_ADDRESS = Kind("address")
_IPV4 = Kind("ipv4")
_IPV6 = Kind("ipv6")
_BOOLEAN = Kind("boolean")


def _number(bits: int) -> Kind:
    return Kind("integer", 0, 2**bits - 1)


_U8, _U16, _U32 = _number(8), _number(16), _number(32)

ZERO_MAC = "00:00:00:00:00:00"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"
SENDER_MAC = "02:00:00:00:00:01"
RECEIVER_MAC = "02:00:00:00:00:02"

ARP_OPERATIONS = {"request": 1, "reply": 2}
TCP_FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32}

_HEX = "hex"  # bytes as hexadecimal digits
_FLAGS = "flags"

# Layer → field → kind; what is absent has the default that the builder gives it.
LAYERS: Mapping[str, Mapping[str, Kind | str | tuple[str, ...]]] = {
    "eth": {"src": _MAC, "dst": _MAC, "type": _U16},
    "vlan": {"id": _number(12), "priority": _number(3), "type": _U16},
    "arp": {
        "op": tuple(ARP_OPERATIONS), "sender_mac": _MAC, "sender_ip": _IPV4, "target_mac": _MAC, "target_ip": _IPV4,
        "hardware": _U16, "protocol": _U16,
    },
    "ip": {
        "src": _ADDRESS, "dst": _ADDRESS, "ttl": _U8, "tos": _U8, "proto": _U8, "id": _U16,
        "df": _BOOLEAN, "mf": _BOOLEAN, "offset": _U16, "flow": _number(20), "options": _HEX,
        "version": _number(4), "header_words": _number(4), "length": _U16, "checksum": _U16,
    },
    "udp": {"sport": _U16, "dport": _U16, "length": _U16, "checksum": _U16},
    "tcp": {"sport": _U16, "dport": _U16, "seq": _U32, "ack": _U32, "window": _U16, "flags": _FLAGS, "checksum": _U16},
    "icmp": {"type": _U8, "code": _U8, "body": _HEX, "checksum": _U16},
    "icmp6": {"type": _U8, "code": _U8, "target": _IPV6, "body": _HEX, "checksum": _U16},
}  # fmt: skip

_TRANSPORTS = {"udp": 17, "tcp": 6, "icmp": 1, "icmp6": 58}
_OTHERS = ("hop_by_hop", "payload", "truncate")
_REQUIRED = {"arp": ("sender_ip", "target_ip"), "ip": ("src", "dst")}


@dataclass(frozen=True, slots=True)
class Built:
    """A packet with its Ethernet header, or what is wrong with the notation."""

    data: bytes
    problems: tuple[Problem, ...]


def build(notation: object, mode: str, path: Path = ()) -> Built:
    """The packet that a notation stands for, as it looks in a mode: in l3 the Ethernet addresses are zero."""
    reading = _Reading(path)
    layers = reading.read(notation)
    if reading.problems:
        return Built(b"", tuple(reading.problems))
    data = _assemble(layers, mode)
    if "truncate" in layers:
        data = data[: layers["truncate"]]
    if len(data) > MAX_PACKET:
        problem = Problem("NK0750", f"the packet has {len(data)} bytes; at most {MAX_PACKET} are possible", path=path)
        return Built(b"", (problem,))
    return Built(data, ())


# --- reading ----------------------------------------------------------------------------


class _Reading:
    """Checks a notation and brings its values into their form, noting what is wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems: list[Problem] = []

    def fault(self, message: str, *where: str | int, hint: str = "") -> None:
        self.problems.append(Problem("NK0750", message, path=(*self.path, *where), hint=hint))

    def read(self, notation: object) -> dict[str, Any]:
        if not isinstance(notation, Mapping):
            self.fault("a packet is a mapping of layers", hint="for example {ip: {src: 10.0.0.2, dst: 192.0.2.1}}")
            return {}
        layers: dict[str, Any] = {}
        for name, given in notation.items():
            match name:
                case "payload":
                    layers[name] = self.payload(given)
                case "truncate":
                    layers[name] = self.value(given, Kind("integer", ETHERNET_HEADER, MAX_PACKET), name)
                case "hop_by_hop":
                    layers[name] = self.value(given, _HEX, name)
                case "vlan" if isinstance(given, list):
                    layers[name] = [self.layer("vlan", tag, name, place) for place, tag in enumerate(given[:8])]
                case str() if name in LAYERS:
                    layers[name] = self.layer(name, given, name)
                case _:
                    near = nearest(str(name), (*LAYERS, *_OTHERS))
                    hint = f"did you mean `{near}`?" if near else "known here: " + ", ".join((*LAYERS, *_OTHERS))
                    self.fault(f"a packet has no layer `{str(name)[:60]}`", str(name), hint=hint)
        if not self.problems:
            self.together(layers)
        return layers

    def together(self, layers: Mapping[str, Any]) -> None:
        """What each layer alone cannot tell."""
        if len(transports := [name for name in _TRANSPORTS if name in layers]) > 1:
            self.fault(f"a packet cannot have both {transports[0]} and {transports[1]}", transports[1])
        if "arp" in layers and ("ip" in layers or transports):
            self.fault("a packet cannot have both arp and ip", "arp")
        if (transports or "hop_by_hop" in layers) and "ip" not in layers:
            self.fault(f"{(transports or ['hop_by_hop'])[0]} needs ip before it", hint="ip: {src: …, dst: …}")
        if ip := layers.get("ip"):
            is_ipv6 = ":" in ip["src"]
            if is_ipv6 != (":" in ip["dst"]):
                self.fault("source and destination are of different families", "ip", "dst")
            for name, only_ipv6 in (("icmp", False), ("icmp6", True), ("hop_by_hop", True)):
                if name in layers and is_ipv6 != only_ipv6:
                    self.fault(f"{name} does not go with IPv{6 if is_ipv6 else 4}", name)
            if ip.get("offset", 0) % 8:
                self.fault("the offset of a fragment is a multiple of 8 bytes", "ip", "offset")
            if len(ip.get("options", b"")) > 40:
                self.fault("IPv4 has room for 40 bytes of options", "ip", "options")

    def layer(self, name: str, given: object, *where: str | int) -> dict[str, Any]:
        fields = LAYERS[name]
        if given is None:
            given = {}
        if not isinstance(given, Mapping):
            self.fault(f"`{name}` is a mapping of fields", *where)
            return {}
        read: dict[str, Any] = {}
        for key, value in given.items():
            if key not in fields:
                near = nearest(str(key), fields)
                hint = f"did you mean `{near}`?" if near else "known here: " + ", ".join(fields)
                self.fault(f"`{name}` has no field `{str(key)[:60]}`", *where, str(key), hint=hint)
            else:
                read[key] = self.value(value, fields[key], *where, key)
        for key in _REQUIRED.get(name, ()):
            if key not in given:
                self.fault(f"`{name}` needs `{key}`", *where)
        return read

    def value(self, given: object, kind: Kind | str | tuple[str, ...], *where: str | int) -> Any:
        try:
            match kind:
                case Kind():
                    return KINDS[kind.name](kind, given)
                case "hex":
                    return _bytes(given)
                case "flags":
                    words = Kind("enumeration", words=tuple(TCP_FLAGS))
                    flags = given if isinstance(given, list) else [given]
                    return sum({TCP_FLAGS[str(KINDS["enumeration"](words, flag))] for flag in flags})
                case tuple():
                    return KINDS["enumeration"](Kind("enumeration", words=kind), given)
        except RefusedError as refused:
            self.fault(f"`{where[-1]}` {refused.fault}", *where, hint=refused.hint)
        return 0

    def payload(self, given: object) -> bytes:
        match given:
            case str():
                return given.encode("utf-8", "replace")[: MAX_PACKET + 1]
            case {"size": size, **rest} if not rest:
                return bytes(self.value(size, Kind("integer", 0, MAX_PACKET), "payload", "size"))
            case {"hex": digits, **rest} if not rest:
                found = self.value(digits, _HEX, "payload", "hex")
                return found if isinstance(found, bytes) else b""
        self.fault("a payload is a text, or {hex: DIGITS}, or {size: BYTES}", "payload")
        return b""


def _bytes(given: object) -> bytes:
    if isinstance(given, int) and not isinstance(given, bool):
        raise RefusedError("must be hexadecimal digits as text, not a number", "put it in quotes")
    try:
        if isinstance(given, str) and len(given) <= 2 * MAX_PACKET:
            return bytes.fromhex(given)
    except ValueError:
        pass
    raise RefusedError("must be an even number of hexadecimal digits", 'for example "0a1b"')


# --- building ---------------------------------------------------------------------------


def _assemble(layers: Mapping[str, Any], mode: str) -> bytes:
    body, ethertype = _network(layers)
    tags = layers.get("vlan", [])
    tags = [tags] if isinstance(tags, dict) else tags
    types = [tag.get("type", 0x8100) for tag in tags]
    for place in range(len(tags) - 1, -1, -1):
        inner = types[place + 1] if place + 1 < len(tags) else ethertype
        tag = tags[place]
        body = struct.pack("!HH", tag.get("priority", 0) << 13 | tag.get("id", 0), inner) + body
    eth = layers.get("eth", {})
    broadcast = "arp" in layers and layers["arp"].get("op", "request") == "request"
    source, destination = (ZERO_MAC, ZERO_MAC) if mode == "l3" else (SENDER_MAC, RECEIVER_MAC)
    if broadcast and mode != "l3":
        destination = BROADCAST_MAC
    kind = types[0] if types else ethertype
    return (
        _mac(eth.get("dst", destination))
        + _mac(eth.get("src", source))
        + struct.pack("!H", eth.get("type", kind))
        + body
    )


def _network(layers: Mapping[str, Any]) -> tuple[bytes, int]:
    """What follows the Ethernet header and its tags, and its Ethernet type."""
    payload: bytes = layers.get("payload", b"")
    if "arp" in layers:
        return _arp(layers["arp"]) + payload, 0x0806
    if "ip" not in layers:
        return payload, layers.get("eth", {}).get("type", 0xFFFF)
    ip = layers["ip"]
    if ":" in ip["src"]:
        return _ipv6(layers, ip, payload), 0x86DD
    return _ipv4(layers, ip, payload), 0x0800


def _arp(arp: Mapping[str, Any]) -> bytes:
    fixed = struct.pack(
        "!HHBBH",
        arp.get("hardware", 1),
        arp.get("protocol", 0x0800),
        6,
        4,
        ARP_OPERATIONS[arp.get("op", "request")],
    )
    sender = _mac(arp.get("sender_mac", SENDER_MAC)) + _address(arp["sender_ip"])
    return fixed + sender + _mac(arp.get("target_mac", ZERO_MAC)) + _address(arp["target_ip"])


def _ipv4(layers: Mapping[str, Any], ip: Mapping[str, Any], payload: bytes) -> bytes:
    source, destination = _address(ip["src"]), _address(ip["dst"])

    def pseudo(protocol: int, length: int) -> bytes:
        return source + destination + struct.pack("!BBH", 0, protocol, length)

    protocol, body = _transport(layers, payload, pseudo)
    options = ip.get("options", b"")
    options += bytes(-len(options) % 4)
    words = 5 + len(options) // 4
    fragment = ip.get("df", False) << 14 | ip.get("mf", False) << 13 | ip.get("offset", 0) >> 3
    header = bytearray(
        struct.pack(
            "!BBHHHBBH",
            ip.get("version", 4) << 4 | ip.get("header_words", words),
            ip.get("tos", 0),
            ip.get("length", words * 4 + len(body)) & 0xFFFF,
            ip.get("id", 0),
            fragment,
            ip.get("ttl", 64),
            ip.get("proto", 255 if protocol is None else protocol),
            0,
        )
        + source
        + destination
        + options
    )
    struct.pack_into("!H", header, 10, ip.get("checksum", checksum(header)))
    return bytes(header) + body


def _ipv6(layers: Mapping[str, Any], ip: Mapping[str, Any], payload: bytes) -> bytes:
    source, destination = _address(ip["src"]), _address(ip["dst"])

    def pseudo(protocol: int, length: int) -> bytes:
        return source + destination + struct.pack("!IHBB", length, 0, 0, protocol)

    protocol, body = _transport(layers, payload, pseudo)
    following = ip.get("proto", 59 if protocol is None else protocol)
    if "hop_by_hop" in layers:
        body = _hop_by_hop(layers["hop_by_hop"], following) + body
        following = 0
    first = ip.get("version", 6) << 28 | ip.get("tos", 0) << 20 | ip.get("flow", 0)
    length = ip.get("length", len(body)) & 0xFFFF
    return struct.pack("!IHBB", first, length, following, ip.get("ttl", 64)) + source + destination + body


def _hop_by_hop(options: bytes, following: int) -> bytes:
    """RFC 8200, section 4.3: padded to a multiple of 8 bytes by Pad1 or PadN."""
    missing = -(2 + len(options)) % 8
    padding = b"" if not missing else b"\0" if missing == 1 else struct.pack("!BB", 1, missing - 2) + bytes(missing - 2)
    return struct.pack("!BB", following, (2 + len(options) + missing) // 8 - 1) + options + padding


def _transport(
    layers: Mapping[str, Any], payload: bytes, pseudo: Callable[[int, int], bytes]
) -> tuple[int | None, bytes]:
    """The protocol number of what follows the IP header (None: nothing known), and all of it."""
    name = next((name for name in _TRANSPORTS if name in layers), None)
    if name is None:
        return None, payload
    layer, protocol = layers[name], _TRANSPORTS[name]
    match name:
        case "udp":
            length = layer.get("length", 8 + len(payload)) & 0xFFFF
            header, place = struct.pack("!HHHH", layer.get("sport", 49152), layer.get("dport", 0), length, 0), 6
        case "tcp":
            ports = layer.get("sport", 49152), layer.get("dport", 0), layer.get("seq", 0), layer.get("ack", 0)
            state = 5 << 4, layer.get("flags", TCP_FLAGS["syn"]), layer.get("window", 65535), 0, 0
            header, place = struct.pack("!HHIIBBHHH", *ports, *state), 16
        case _:
            default = 8 if name == "icmp" else 128
            body = layer.get("body", bytes(4)) + (_address(layer["target"]) if "target" in layer else b"")
            header, place = struct.pack("!BBH", layer.get("type", default), layer.get("code", 0), 0) + body, 2
    whole = bytearray(header + payload)
    covered = whole if name == "icmp" else pseudo(protocol, len(whole)) + whole
    total = checksum(covered)
    if name == "udp" and total == 0:
        total = 0xFFFF  # zero means that there is none
    struct.pack_into("!H", whole, place, layer.get("checksum", total))
    return protocol, bytes(whole)


def checksum(data: bytes | bytearray) -> int:
    """The Internet checksum (RFC 1071)."""
    padded = bytes(data) + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _address(text: str) -> bytes:
    from socket import AF_INET, AF_INET6, inet_pton

    return inet_pton(AF_INET6 if ":" in text else AF_INET, text)
