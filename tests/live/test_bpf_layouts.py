"""Every structure of bpf(2) that nkform writes down, compared with the running kernel's own type information (BTF).

BTF's format: include/uapi/linux/btf.h, Documentation/bpf/btf.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nkform.kernel import bpf, bpf_links, bpf_maps, bpf_programs
from nkform.kernel.bpf import Layout

VMLINUX = Path("/sys/kernel/btf/vmlinux")
STRUCT, UNION, ENUM = 4, 5, 6
EXTRA = {1: 4, 3: 12, 14: 4, 17: 4}
"""Bytes after a type's head by kind: INT, ARRAY, VAR, DECL_TAG; those of the others depend on their count."""
PER_MEMBER = {STRUCT: 12, UNION: 12, ENUM: 8, 13: 8, 15: 12, 19: 12}

LAYOUTS = {
    f"{module.__name__.rpartition('.')[2]}.{name}": value
    for module in (bpf, bpf_links, bpf_maps, bpf_programs)
    for name, value in vars(module).items()
    if isinstance(value, Layout) and name.isupper()
}


@dataclass(frozen=True)
class Member:
    name: str
    type: int
    offset: int


class Types:
    """The structures, unions and enumerations that one asks for, out of a kernel's BTF."""

    def __init__(self, data: bytes, wanted: frozenset[str]) -> None:
        self._data = data
        header: int
        strings: int
        _, _, _, header, types, types_size, strings, _ = struct.unpack_from("=HBBIIIII", data)
        self._strings = header + strings
        self._places: list[int] = [0]
        self._named: dict[str, int] = {}
        sought = {self._string_offset(name): name for name in wanted}
        place, end = header + types, header + types + types_size
        head = struct.Struct("=III").unpack_from
        while place < end:
            name, info, _ = head(data, place)
            kind = info >> 24 & 0x1F
            if name in sought and kind in {STRUCT, UNION, ENUM}:
                self._named.setdefault(sought[name], len(self._places))
            self._places.append(place)
            place += 12 + EXTRA.get(kind, 0) + PER_MEMBER.get(kind, 0) * (info & 0xFFFF)

    def _string_offset(self, name: str) -> int:
        place: int = self._data.find(b"\0" + name.encode() + b"\0", self._strings)
        return place + 1 - self._strings

    def _string(self, offset: int) -> str:
        start = self._strings + offset
        return self._data[start : self._data.index(b"\0", start)].decode()

    def _members(self, number: int) -> Iterator[Member]:
        place = self._places[number]
        _, info, _ = struct.unpack_from("=III", self._data, place)
        for member in range(info & 0xFFFF):
            name, kind, offset = struct.unpack_from("=III", self._data, place + 12 + 12 * member)
            yield Member(self._string(name), kind, (offset & 0xFFFFFF if info >> 31 else offset) // 8)

    def _kind(self, number: int) -> int:
        info: int = struct.unpack_from("=I", self._data, self._places[number] + 4)[0]
        return info >> 24 & 0x1F

    def offsets(self, name: str) -> dict[str, int]:
        """The offsets of all members, those of members with a name of their own as `member.inner`."""
        return dict(self._flat(self._named[name], "", 0))

    def _flat(self, number: int, prefix: str, base: int) -> Iterator[tuple[str, int]]:
        for member in self._members(number):
            if member.name:
                yield prefix + member.name, base + member.offset
            if self._kind(member.type) in {STRUCT, UNION}:
                inner = f"{prefix}{member.name}." if member.name else prefix
                yield from self._flat(member.type, inner, base + member.offset)

    def values(self, name: str) -> Mapping[str, int]:
        """An enumeration's constants."""
        place = self._places[self._named[name]]
        _, info, _ = struct.unpack_from("=III", self._data, place)
        pairs = struct.iter_unpack("=Ii", self._data[place + 12 : place + 12 + 8 * (info & 0xFFFF)])
        return {self._string(text): value for text, value in pairs}


ENUMS = ("bpf_cmd", "bpf_attach_type", "bpf_map_type", "bpf_link_type", "bpf_prog_type")


@pytest.fixture(scope="module")
def types() -> Types:
    if not VMLINUX.exists():
        pytest.skip("needs the kernel's type information: CONFIG_DEBUG_INFO_BTF")
    return Types(
        VMLINUX.read_bytes(), frozenset({layout.source.partition(".")[0] for layout in LAYOUTS.values()} | set(ENUMS))
    )


# What the oldest kernel that nkform runs on lacks; everything else must be there.
YOUNGER = {
    "link_create.tcx.relative_fd",
    "link_create.tcx.expected_revision",
    "query.target_ifindex",
    "query.count",
    "query.link_ids",
    "query.link_attach_flags",
    "query.revision",
    "tcx.ifindex",
    "tcx.attach_type",
}


@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_a_layout_is_the_kernels(name: str, types: Types) -> None:
    layout = LAYOUTS[name]
    source, _, part = layout.source.partition(".")
    theirs = types.offsets(source)
    prefix = f"{part}." if part else ""
    base = theirs[part] if part else 0
    modern = bpf_links.supported(bpf_links.AttachType.TCX_INGRESS)
    for field, offset in layout.offsets().items():
        path = prefix + field
        if path not in theirs and path in YOUNGER and not modern:
            continue
        assert theirs[path] - base == offset, path


@pytest.mark.parametrize(
    ("ours", "enumeration", "prefix"),
    [
        (bpf.Command, "bpf_cmd", "BPF_"),
        (bpf_links.AttachType, "bpf_attach_type", "BPF_"),
        (bpf_maps.MapType, "bpf_map_type", "BPF_MAP_TYPE_"),
    ],
)
def test_an_enumeration_is_the_kernels(ours: type[bpf.Command], enumeration: str, prefix: str, types: Types) -> None:
    theirs = types.values(enumeration)
    for constant in ours:
        name = prefix + constant.name
        if name in theirs or not name.startswith(("BPF_TCX", "BPF_NETKIT")):
            assert theirs[name] == constant, name


def test_link_and_program_types_are_the_kernels(types: Types) -> None:
    links = types.values("bpf_link_type")
    assert links.get("BPF_LINK_TYPE_TCX", bpf_links.LINK_TYPE_TCX) == bpf_links.LINK_TYPE_TCX
    assert links.get("BPF_LINK_TYPE_NETKIT", bpf_links.LINK_TYPE_NETKIT) == bpf_links.LINK_TYPE_NETKIT
    assert types.values("bpf_prog_type")["BPF_PROG_TYPE_SCHED_CLS"] == bpf_programs.SCHED_CLS
