"""Given entries of a map, their keys are those that a program looks up; read back they are in one form and order."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkform.entries import LAYOUTS, filled, keys
from nkform.model import MapContents

KEYS = [
    ("u8", 7, struct.pack("=B", 7)),
    ("u16", 53, struct.pack("=H", 53)),
    ("u32", 70000, struct.pack("=I", 70000)),
    ("u64", 1 << 40, struct.pack("=Q", 1 << 40)),
    ("s32", -5, struct.pack("=i", -5)),
    ("s64", -(1 << 40), struct.pack("=q", -(1 << 40))),
    ("ipv4", "192.0.2.1", bytes((192, 0, 2, 1))),
    ("ipv6", "2001:db8::1", bytes.fromhex("20010db8" + "00" * 11 + "01")),
    ("ipv4-prefix", "10.9.0.0/16", struct.pack("=I4B", 16, 10, 9, 0, 0)),
    ("ipv6-prefix", "fd09::/32", struct.pack("=I", 32) + bytes.fromhex("fd09" + "00" * 14)),
    ("mac", "02:00:00:00:00:01", bytes.fromhex("020000000001")),
]


@pytest.mark.parametrize(("layout", "entry", "key"), KEYS)
def test_an_entry_is_a_key_and_a_key_an_entry(layout: str, entry: int | str, key: bytes) -> None:
    assert keys(MapContents("m", layout, (entry,))) == {key}
    assert filled("m", layout, [key]) == MapContents("m", layout, (entry,))
    assert len(key) == LAYOUTS[layout].size


def test_every_layout_is_among_them() -> None:
    assert {layout for layout, _, _ in KEYS} == set(LAYOUTS)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@given(data=st.data())
def test_whatever_is_in_a_map_is_told_in_one_form_and_order(layout: str, data: st.DataObject) -> None:
    key = st.binary(min_size=LAYOUTS[layout].size, max_size=LAYOUTS[layout].size)
    if layout.endswith("-prefix"):
        bits = 8 * (LAYOUTS[layout].size - 4)
        lengths = st.integers(0, bits).map(lambda length: struct.pack("=I", length))
        key = st.tuples(lengths, key).map(lambda both: both[0] + both[1][4:])
    found = data.draw(st.lists(key, max_size=8))
    told = filled("m", layout, found)
    assert filled("m", layout, reversed(found)) == told
    assert filled("m", layout, keys(told)) == told


def test_numbers_and_addresses_are_in_their_own_order() -> None:
    assert filled("m", "u16", keys(MapContents("m", "u16", (256, 2, 1)))).entries == (1, 2, 256)
    prefixes = ("10.10.0.0/16", "10.9.0.0/16", "10.9.0.0/24", "9.0.0.0/8")
    told = filled("m", "ipv4-prefix", keys(MapContents("m", "ipv4-prefix", prefixes)))
    assert told.entries == ("9.0.0.0/8", "10.9.0.0/16", "10.9.0.0/24", "10.10.0.0/16")


def test_bits_beyond_a_prefix_do_not_count() -> None:
    assert filled("m", "ipv4-prefix", [struct.pack("=I4B", 12, 10, 9, 8, 7)]).entries == ("10.0.0.0/12",)
    assert filled("m", "ipv6-prefix", [struct.pack("=I", 0) + b"\xff" * 16]).entries == ("::/0",)
