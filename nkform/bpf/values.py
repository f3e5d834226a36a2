"""Values of a program: how each lies in read-only data, and how it is written as C.

A value that is a list lies in an array whose size is one of a few (CAPACITIES), beside the count of what is in it: so
devices with one prefix and devices with three share one compiled object. Pure.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from socket import AF_INET, AF_INET6, inet_pton

from nkform.bpf.parameters import Canonical, Kind
from nkform.dataclass import dataclass

CAPACITIES = (4, 16, 64, 256)
"""Sizes of arrays. Each costs one more compilation, so they are few."""

MAP_NAME = ".rodata.nkform"
"""The section that holds the values, which libbpf makes a map of the same name."""

STRUCT_NAME = "nk_values"

Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Form:
    """A type in C: its name, its parts (empty name: the value itself), the format of each (struct module), how a
    canonical value becomes their numbers."""

    ctype: str
    parts: tuple[str, ...]
    format: str
    encode: Callable[[Canonical], Numbers]

    @cached_property
    def align(self) -> int:
        return max(struct.calcsize(f"={letter}") for letter in self.format)

    @cached_property
    def packer(self) -> struct.Struct:
        return struct.Struct("=" + self.format)

    @property
    def size(self) -> int:
        return self.packer.size


@dataclass(frozen=True, slots=True)
class Field:
    """One member of a program's values. `capacity` is None for a single one, else the size of its array."""

    name: str
    form: Form
    capacity: int | None = None

    @property
    def size(self) -> int:
        return self.form.size * (self.capacity or 1)


Values = Mapping[str, Canonical]
"""By a field's name its value in canonical form; a tuple for a list."""


@dataclass(frozen=True)
class Layout:
    """Fields in the order in which they lie in memory: the most aligned first, so that there is no room between."""

    fields: tuple[Field, ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes, with what the compiler adds at the end."""
        total = sum(f.size for f in self.fields)
        align = max((f.form.align for f in self.fields), default=1)
        return -(-total // align) * align

    def pack(self, values: Values) -> bytes:
        """The values as read-only data."""
        data = bytearray()
        for f in self.fields:
            value = values[f.name]
            items: Sequence[Canonical] = (value,) if f.capacity is None else value  # type: ignore[assignment]
            packed = b"".join(f.form.packer.pack(*f.form.encode(item)) for item in items)
            data += packed.ljust(f.size, b"\0")
        return bytes(data.ljust(self.size, b"\0"))


def arrange(fields: Sequence[Field]) -> Layout:
    """The layout of some fields, whatever their order."""
    return Layout(tuple(sorted(fields, key=lambda f: (-f.form.align, f.name))))


def capacity_for(count: int) -> int:
    """The size of the array that holds so many items."""
    return next(size for size in CAPACITIES if size >= count)


def declaration(layout: Layout) -> list[str]:
    """The values as a structure in read-only data, in C."""
    lines = ["const volatile struct {"]
    for f in layout.fields:
        size = "" if f.capacity is None else f"[{f.capacity}]"
        lines.append(f"\t{f.form.ctype} {f.name}{size};")
    return [*lines, f'}} {STRUCT_NAME} __attribute__((section("{MAP_NAME}"), used)) = {{}};']


def definitions(layout: Layout, values: Values) -> list[str]:
    """The values as macros, in C, for an engine that has no read-only data."""
    lines = []
    for f in sorted(layout.fields, key=lambda f: f.name):
        value = values[f.name]
        if f.capacity is None:
            lines += _literals(macro(f.name), f.form, value)
        elif isinstance(value, tuple):
            for place, item in enumerate(value):
                lines += _literals(macro(f.name, place), f.form, item)
    return lines


def macro(name: str, place: int | None = None) -> str:
    """The name of the macro that stands for a value, or for an item of a list."""
    return f"NK_VALUE_{name}" if place is None else f"NK_VALUE_{name}_{place}"


def part(expression: str, name: str, *, of_macro: bool) -> str:
    """A part of a value whose C expression is given."""
    if not name:
        return expression
    return f"{expression}_{name}" if of_macro else f"{expression}.{name}"


def _literals(name: str, form: Form, value: Canonical) -> list[str]:
    numbers = zip(form.parts, form.encode(value), form.format, strict=True)
    return [f"#define {part(name, p, of_macro=True)} {literal(number, letter)}" for p, number, letter in numbers]


_SUFFIXES = {"Q": "ULL", "q": "LL", "I": "U", "H": "U", "B": "U"}


def literal(number: int, letter: str) -> str:
    """A number of a format (struct module) in C."""
    text = hex(number) if number > 9 else str(number)
    if number < 0:  # the smallest number has no literal of its own in C
        return f"({number + 1}{_SUFFIXES.get(letter, '')} - 1)"
    return text + _SUFFIXES.get(letter, "")


# --- forms ------------------------------------------------------------------------------


def _native(packed: bytes) -> int:
    """Bytes as they stand in a packet, as the number that the program reads there."""
    return int.from_bytes(packed, sys.byteorder)


def _ipv4(value: Canonical) -> Numbers:
    return (_native(inet_pton(AF_INET, str(value))),)


def _ipv6(value: Canonical) -> Numbers:
    packed = inet_pton(AF_INET6, str(value))
    return _native(packed[:8]), _native(packed[8:])


def _mask(length: int, bits: int) -> bytes:
    return ((1 << bits) - (1 << (bits - length))).to_bytes(bits // 8, "big")


def _ipv4_prefix(value: Canonical) -> Numbers:
    address, _, length = str(value).partition("/")
    return (*_ipv4(address), _native(_mask(int(length), 32)))


def _ipv6_prefix(value: Canonical) -> Numbers:
    address, _, length = str(value).partition("/")
    mask = _mask(int(length), 128)
    return (*_ipv6(address), _native(mask[:8]), _native(mask[8:]))


def _mac(value: Canonical) -> Numbers:
    packed = bytes.fromhex(str(value).replace(":", ""))
    return _native(packed[:2]), _native(packed[2:4]), _native(packed[4:])


def _plain(value: Canonical) -> Numbers:
    return (int(value),)  # type: ignore[arg-type]


IPV4 = Form("struct nk_ipv4_address", ("address",), "I", _ipv4)
IPV6 = Form("struct nk_ipv6_address", ("high", "low"), "QQ", _ipv6)
IPV4_PREFIX = Form("struct nk_ipv4_prefix", ("address", "mask"), "II", _ipv4_prefix)
IPV6_PREFIX = Form("struct nk_ipv6_prefix", ("high", "low", "mask_high", "mask_low"), "QQQQ", _ipv6_prefix)
MAC = Form("struct nk_mac", ("a", "b", "c"), "HHH", _mac)
BOOLEAN = Form("__u8", ("",), "B", _plain)
U32 = Form("__u32", ("",), "I", _plain)

_INTEGERS = (
    ("__u8", "B", 0, 2**8 - 1),
    ("__u16", "H", 0, 2**16 - 1),
    ("__u32", "I", 0, 2**32 - 1),
    ("__u64", "Q", 0, 2**64 - 1),
    ("__s32", "i", -(2**31), 2**31 - 1),
    ("__s64", "q", -(2**63), 2**63 - 1),
)

_FORMS = {
    "boolean": BOOLEAN,
    "ifindex": U32,
    "ipv4": IPV4,
    "ipv6": IPV6,
    "ipv4-prefix": IPV4_PREFIX,
    "ipv6-prefix": IPV6_PREFIX,
    "mac": MAC,
}

_BOTH = {"address": (IPV4, IPV6), "prefix": (IPV4_PREFIX, IPV6_PREFIX)}


def form_of(kind: Kind) -> Form:
    """How a single value of a kind lies in memory."""
    if kind.name == "integer":
        return next(
            Form(ctype, ("",), letter, _plain)
            for ctype, letter, low, high in _INTEGERS
            if low <= kind.low and kind.high <= high
        )
    return _FORMS[kind.name]


def families(kind: Kind) -> tuple[tuple[str, Form], ...]:
    """For a kind whose lists hold both families: each family's name and form. Empty for all others."""
    both = _BOTH.get(kind.name)
    return (("ipv4", both[0]), ("ipv6", both[1])) if both else ()


def of_family(items: Sequence[Canonical], family: str) -> tuple[Canonical, ...]:
    """The items of a list that belong to one family."""
    return tuple(item for item in items if (":" in str(item)) == (family == "ipv6"))
