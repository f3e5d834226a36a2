"""Entries of a map that a spec sets: how each kind of them is a key of the map, and how a key is told. Touches nothing.

The type of the map and of its keys in C come from here as well, so that the program and what fills its map agree.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any

from nkform.dataclass import dataclass
from nkform.model import Entry, MapContents

VALUE = b"\x01"
"""What every key has: only that it is there matters."""


@dataclass(frozen=True, slots=True)
class Layout:
    """A kind of entry in a map: its key's type in C (nkform.h) and size in bytes, and the type of map that it needs.

    `told` gives a key's entry in its one form, `rank` what entries are sorted by.
    """

    ctype: str
    size: int
    map_type: str
    key: Callable[[Entry], bytes]
    told: Callable[[bytes], Entry]
    rank: Callable[[bytes], Any]


def keys(filled: MapContents) -> frozenset[bytes]:
    """The keys of entries, as the kernel has them."""
    layout = LAYOUTS[filled.layout]
    return frozenset(map(layout.key, filled.entries))


def filled(name: str, layout: str, found: Iterable[bytes]) -> MapContents:
    """A map that holds these keys. Whether they were declared or read, alike maps are equal."""
    kind = LAYOUTS[layout]
    entries = {kind.told(key) for key in found}
    return MapContents(name, layout, tuple(sorted(entries, key=lambda entry: kind.rank(kind.key(entry)))))


# --- layouts ----------------------------------------------------------------------------


def _itself(key: bytes) -> bytes:
    return key


def _number(ctype: str, letter: str) -> Layout:
    form = struct.Struct("=" + letter)

    def told(key: bytes) -> int:
        return int(form.unpack(key)[0])

    return Layout(ctype, form.size, "hash", form.pack, told, told)


def _address(ctype: str, family: int, size: int) -> Layout:
    return Layout(
        ctype, size, "hash", lambda entry: inet_pton(family, str(entry)), lambda key: inet_ntop(family, key), _itself
    )


def _mac() -> Layout:
    return Layout(
        "struct nk_mac", 6, "hash", lambda entry: bytes.fromhex(str(entry).replace(":", "")), lambda key: key.hex(":"),
        _itself,
    )  # fmt: skip


_LENGTH = struct.Struct("=I")


def _prefix(ctype: str, family: int, size: int) -> Layout:
    """A key of a trie: its length in bits, and the address (struct bpf_lpm_trie_key, include/uapi/linux/bpf.h)."""

    def key(entry: Entry) -> bytes:
        address, _, length = str(entry).partition("/")
        return _LENGTH.pack(int(length)) + inet_pton(family, address)

    def told(key: bytes) -> str:
        """What lies beyond the length does not count in a trie, and anybody else may have left bits there."""
        length, bits = _LENGTH.unpack_from(key)[0], size * 8
        address = int.from_bytes(key[_LENGTH.size :], "big") >> (bits - length) << (bits - length)
        return f"{inet_ntop(family, address.to_bytes(size, 'big'))}/{length}"

    def rank(key: bytes) -> tuple[bytes, int]:
        return key[_LENGTH.size :], _LENGTH.unpack_from(key)[0]

    return Layout(ctype, _LENGTH.size + size, "lpm_trie", key, told, rank)


LAYOUTS: Mapping[str, Layout] = {
    "u8": _number("__u8", "B"),
    "u16": _number("__u16", "H"),
    "u32": _number("__u32", "I"),
    "u64": _number("__u64", "Q"),
    "s32": _number("__s32", "i"),
    "s64": _number("__s64", "q"),
    "ipv4": _address("struct nk_ipv4_address", AF_INET, 4),
    "ipv6": _address("struct nk_ipv6_address", AF_INET6, 16),
    "ipv4-prefix": _prefix("struct nk_ipv4_lpm", AF_INET, 4),
    "ipv6-prefix": _prefix("struct nk_ipv6_lpm", AF_INET6, 16),
    "mac": _mac(),
}
"""By name, all kinds of entries."""
