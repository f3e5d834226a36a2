"""Addresses and prefixes: text to canonical text, quickly and strictly.

`ipaddress` would do, at ten times the cost; a spec has thousands of them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import NamedTuple

_KNOWN = 256
"""Texts whose addresses are remembered: a spec has the same gateways and destinations again and again."""


class Prefix(NamedTuple):
    """An address with a prefix length. `value` is the address as a number, `text` its canonical form without length."""

    family: int
    value: int
    length: int
    text: str

    @property
    def bits(self) -> int:
        return 32 if self.family == AF_INET else 128

    @property
    def host_bits(self) -> int:
        """The part of the address that the prefix does not cover."""
        return self.value & ((1 << (self.bits - self.length)) - 1)

    @property
    def network(self) -> str:
        """The prefix with its host bits cleared, in canonical text."""
        size = self.bits // 8
        return f"{inet_ntop(self.family, (self.value - self.host_bits).to_bytes(size, 'big'))}/{self.length}"

    def __str__(self) -> str:
        return f"{self.text}/{self.length}"


class BadAddress(ValueError):  # noqa: N818
    """What is wrong with a text, as the rest of a sentence, and what to do about it."""

    def __init__(self, fault: str, hint: str = "") -> None:
        super().__init__(fault)
        self.fault = fault
        self.hint = hint


@lru_cache(_KNOWN)
def parse_ip(text: str) -> Prefix:
    """An address without a prefix length, as a host prefix (/32 or /128). Raises BadAddress."""
    family = AF_INET6 if ":" in text else AF_INET
    try:
        packed = inet_pton(family, text)
    except (OSError, ValueError):
        raise _explain(text) from None
    canonical = text if family == AF_INET else inet_ntop(family, packed)  # of IPv4, inet_pton takes no other spelling
    return Prefix(family, int.from_bytes(packed, "big"), len(packed) * 8, canonical)


@lru_cache(_KNOWN)
def parse_prefix(text: str) -> Prefix:
    """An address with its prefix length. Raises BadAddress; without a length, with the host length as a hint."""
    address, slash, length = text.partition("/")
    ip = parse_ip(address)
    if not slash:
        raise BadAddress("has no prefix length", f"write {ip} for the address alone, or the length of its network")
    if not (length.isascii() and length.isdecimal()) or (length[0] == "0" and length != "0"):
        raise BadAddress(f"has the prefix length {length[:9]}, which is not a number", f"for example {ip}")
    if len(length) > 3 or int(length) > ip.length:
        raise BadAddress(f"has the prefix length {length[:9]}; at most {ip.length} is possible", f"for example {ip}")
    return Prefix(ip.family, ip.value, int(length), ip.text)


def is_multicast(ip: Prefix) -> bool:
    return ip.value >> 28 == 0xE if ip.family == AF_INET else ip.value >> 120 == 0xFF


def is_link_local(ip: Prefix) -> bool:
    return ip.value >> 16 == 0xA9FE if ip.family == AF_INET else ip.value >> 118 == 0x3FA


def unicast_fault(ip: Prefix) -> str | None:
    """Why no interface other than a loopback may have the address, or None."""
    if is_multicast(ip):
        return "is a multicast address"
    if ip.value == 0:
        return "is the unspecified address"
    if ip.family == AF_INET6 and ip.value == 1:
        return "is the loopback address"
    if ip.family == AF_INET and ip.value == 0xFFFFFFFF:
        return "is the broadcast address"
    return None


class Own:
    """The addresses of an end, which rule out gateways of its routes."""

    def __init__(self, addresses: Iterable[Prefix]) -> None:
        self._hosts: set[tuple[int, int]] = set()
        self._broadcasts: dict[int, Prefix] = {}
        for own in addresses:
            self._hosts.add((own.family, own.value))
            if own.family == AF_INET and own.length < 31:
                self._broadcasts[own.value | ((1 << (32 - own.length)) - 1)] = own

    def rules_out(self, via: Prefix, *, onlink: bool) -> str | None:
        """Why the end can have no route through a gateway, or None.

        A loopback address is none: the kernel refuses it as soon as `lo` is up. Without `onlink`, IPv4 takes an address
        of its own (net/ipv4/fib_semantics.c, fib_check_nh_v4_gw); IPv6 never does.
        """
        if via.family == AF_INET and via.value >> 24 == 127:
            return "is a loopback address"
        if (via.family, via.value) in self._hosts and (onlink or via.family == AF_INET6):
            return "is an address of the same end"
        if via.family == AF_INET and (own := self._broadcasts.get(via.value)) is not None:
            return f"is the broadcast address of {own.network}"
        return None


def _explain(text: str) -> BadAddress:
    if "%" in text:
        return BadAddress("has a zone (%…)", "leave the zone out: an address belongs to the device it stands under")
    if ":" in text:
        return BadAddress("is not an IPv6 address")
    parts = text.split(".")
    if len(parts) == 4 and all(p.isascii() and p.isdecimal() and len(p) < 9 for p in parts):
        if any(int(p) > 255 for p in parts):
            return BadAddress("is not an IPv4 address: each part is at most 255")
        return BadAddress(
            "is not an IPv4 address: a leading zero would make a part octal",
            "write " + ".".join(str(int(p)) for p in parts),
        )
    return BadAddress("is not an IP address")
