"""Compiled objects → loaded programs, a thousand of one structure as cheaply as the kernel allows.

The first program of an object shows what the others need: its instructions with all references resolved, and its maps.
Each further one then is a map for its values, one for each map of its own, and one load.
"""

from __future__ import annotations

import contextlib
import os
import struct
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol

from nkform.bpf.render import Rendered
from nkform.bpf.values import MAP_NAME
from nkform.dataclass import dataclass, field, replace
from nkform.entries import VALUE, keys
from nkform.kernel import bpf_maps
from nkform.kernel.bpf_maps import BPF_F_RDONLY_PROG, MapInfo, MapType, map_create, map_info
from nkform.kernel.bpf_programs import VerifierError, prog_load
from nkform.kernel.child import Answer, ChildError, Limits, Worker
from nkform.model import MapsByParam
from nkform.problem import NkformError, Position, Problem

LOAD_IMMEDIATE = 0x18
"""BPF_LD | BPF_IMM | BPF_DW: the instruction that refers to a map."""

BPF_PSEUDO_MAP_FD = 1
BPF_PSEUDO_MAP_VALUE = 2

SHARED = 64
"""Programs without maps that are kept open for others that want the same; the ones used last."""

_VALUES_KEY = bytes(4)
_VALUES_NAME = "nkform.values"


@dataclass(frozen=True, slots=True)
class MapDefinition:
    """A map that a program needs; sizes in bytes. The types are those of the prototype's BTF, 0 for none."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_key_type_id: int = 0
    btf_value_type_id: int = 0

    def fits(self, info: MapInfo) -> bool:
        """Whether an existing map has this layout."""
        mine = (self.type, self.key_size, self.value_size, self.max_entries, self.flags)
        return mine == (info.type, info.key_size, info.value_size, info.max_entries, info.flags)


@dataclass(frozen=True, slots=True)
class Prototype:
    """What a program is made of: instructions, and by map the places (in bytes) where its file descriptor goes.

    The map of the values (MAP_NAME) is among the places, not among the maps. `btf_fd` is -1 where there is none.
    """

    insns: bytes
    maps: tuple[MapDefinition, ...]
    places: Mapping[str, tuple[int, ...]]
    btf_fd: int = -1


def in_child(
    rendered: Rendered, work: Callable[[], Prototype], limits: Limits, failed: Callable[[ChildError], Problem]
) -> Prototype:
    """What a program is made of, found out in a child within limits; `failed` says what it means if that fails.

    Raises NkformError, KernelError, OSError.
    """
    from nkform.bpf.outcome import heard, told

    def serve(_: bytes) -> Answer:
        made: list[int] = []

        def listed() -> list[Any]:
            prototype = work()
            made.append(prototype.btf_fd)
            definitions = [[getattr(each, name) for name in MapDefinition.__slots__] for each in prototype.maps]
            return [prototype.insns.hex(), definitions, prototype.places]

        answer = told(listed)
        return answer, [fd for fd in made if fd >= 0]

    try:
        with Worker(serve, limits) as worker:
            answer, fds = worker.ask(b"")
    except ChildError as error:
        raise NkformError(replace(failed(error), position=Position(str(rendered.template.path), 1, 1))) from None
    try:
        insns, definitions, places = heard(answer)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return Prototype(
        bytes.fromhex(insns),
        tuple(MapDefinition(*values) for values in definitions),
        {name: tuple(found) for name, found in places.items()},
        fds[0] if fds else -1,
    )


class Object(Protocol):
    """A compiled program, not yet loaded."""

    @property
    def key(self) -> str:
        """What tells it from all others."""

    def belongs_to(self, rendered: Rendered) -> bool:
        """Whether it was compiled from this: with bcc that includes the values."""

    def prototype(self, rendered: Rendered) -> Prototype:
        """Has the kernel look at it once, with one device's values. Raises NkformError, KernelError."""


@dataclass(slots=True)
class Loaded:
    """A loaded program and its maps, by file descriptor; close it. `fresh` names the maps that were made for it."""

    prog_fd: int
    maps: dict[str, int] = field(default_factory=dict)
    fresh: frozenset[str] = frozenset()

    def close(self) -> None:
        for fd in (self.prog_fd, *self.maps.values()):
            if fd >= 0:
                os.close(fd)
        self.prog_fd, self.maps = -1, {}

    def __enter__(self) -> Loaded:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Loader:
    """Loads programs; remembers each object's prototype, and programs that several devices can share. Close it."""

    def __init__(self) -> None:
        self._prototypes: dict[str, Prototype] = {}
        self._shared: dict[tuple[str, bytes], int] = {}

    def load(
        self,
        built: Object,
        rendered: Rendered,
        maps: Mapping[str, int] | None = None,
        *,
        alone: bool = False,
        contents: MapsByParam | None = None,
    ) -> Loaded:
        """Loads a program with its values and with its maps filled.

        `maps` are maps of an earlier program, by name: one that has the layout that is asked for is taken over (the
        caller's file descriptor stays the caller's). One that `contents` names (None: as the parameters say) must hold
        just that, else there is a new one: packets then meet the old entries or the new, never some of each. A program
        without maps is loaded once for all who want the same, unless it is to be `alone`: a hook does not take the same
        program twice.
        Raises NkformError (the verifier refuses it, a fact is unknown), KernelError, ValueError (the object is of
        another program).
        """
        if not built.belongs_to(rendered):
            raise ValueError(f"an object of another program than {rendered.name}, or one with other values")
        packed = rendered.packed() if rendered.layout.fields else b""
        prototype = self._prototypes.get(built.key)
        if prototype is None:
            prototype = self._prototypes[built.key] = built.prototype(rendered)
        if prototype.maps or alone:
            return self._fresh(built, prototype, rendered, packed, maps or {}, contents)
        shared = self._shared.pop((built.key, packed), -1)
        if shared < 0:
            shared = self._fresh(built, prototype, rendered, packed, {}).prog_fd
            if len(self._shared) >= SHARED:
                os.close(self._shared.pop(next(iter(self._shared))))
        self._shared[built.key, packed] = shared  # at the end: used last
        return Loaded(os.dup(shared))

    def close(self) -> None:
        for prototype in self._prototypes.values():
            if prototype.btf_fd >= 0:
                os.close(prototype.btf_fd)
        for fd in self._shared.values():
            os.close(fd)
        self._prototypes, self._shared = {}, {}

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fresh(
        self,
        built: Object,
        prototype: Prototype,
        rendered: Rendered,
        packed: bytes,
        old: Mapping[str, int],
        contents: MapsByParam | None = None,
    ) -> Loaded:
        said = _keys(rendered.contents)
        exactly = said if contents is None else _keys(contents)
        with contextlib.ExitStack() as undo:
            maps: dict[str, int] = {}
            fresh = set()
            for definition in prototype.maps:
                wanted = exactly.get(definition.name)
                fd = _take_over(definition, old, wanted)
                if fd < 0:
                    fd = _made(definition, prototype.btf_fd, said.get(definition.name) if wanted is None else wanted)
                    fresh.add(definition.name)
                maps[definition.name] = fd
                undo.callback(os.close, fd)
            fds = dict(maps)
            with contextlib.ExitStack() as after:
                if MAP_NAME in prototype.places and rendered.engine == "clang":
                    fds[MAP_NAME] = _values_map(packed)
                    after.callback(os.close, fds[MAP_NAME])
                try:
                    prog_fd = prog_load(_patched(prototype, fds), rendered.name, license=rendered.license)
                except VerifierError as error:
                    built.prototype(rendered)  # says the same, with the lines of the source
                    from nkform.bpf.diagnose import verifier_error

                    raise verifier_error(rendered, error.log, error.last_line) from error
            undo.pop_all()
        return Loaded(prog_fd, maps, frozenset(fresh))


def _keys(contents: MapsByParam) -> dict[str, frozenset[bytes]]:
    """What maps hold, by their names."""
    return {each.map: keys(each) for some in contents.values() for each in some}


def _take_over(definition: MapDefinition, old: Mapping[str, int], wanted: Collection[bytes] | None) -> int:
    """A file descriptor of one's own for an existing map that fits and, if any are wanted, has these keys; or -1."""
    fd = old.get(definition.name, -1)
    if fd < 0 or not definition.fits(map_info(fd)):
        return -1
    if wanted is not None and bpf_maps.map_items(fd).keys() != wanted:
        return -1
    return os.dup(fd)


def _made(definition: MapDefinition, btf_fd: int, wanted: Collection[bytes] | None) -> int:
    """A new map, with these keys in it if a parameter fills it."""
    fd = _make(definition, btf_fd)
    try:
        if wanted:
            bpf_maps.map_update_many(fd, dict.fromkeys(wanted, VALUE))
    except BaseException:
        os.close(fd)
        raise
    return fd


def _make(definition: MapDefinition, btf_fd: int) -> int:
    typed = btf_fd >= 0 and definition.btf_value_type_id > 0
    return map_create(
        definition.type,  # type: ignore[arg-type]  # a number that the kernel knows, named in MapType or not
        definition.key_size,
        definition.value_size,
        definition.max_entries,
        definition.name,
        flags=definition.flags,
        btf_fd=btf_fd if typed else 0,
        btf_key_type_id=definition.btf_key_type_id if typed else 0,
        btf_value_type_id=definition.btf_value_type_id if typed else 0,
    )


def _values_map(packed: bytes) -> int:
    """A map with a program's values that nobody can change any more: so the verifier takes them for constants."""
    fd = map_create(MapType.ARRAY, 4, len(packed), 1, _VALUES_NAME, flags=BPF_F_RDONLY_PROG)
    try:
        info = MapInfo(0, MapType.ARRAY, _VALUES_NAME, 4, len(packed), 1, BPF_F_RDONLY_PROG, 0, 0, 0)
        bpf_maps.map_update(fd, _VALUES_KEY, packed, info)
        bpf_maps.map_freeze(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


_IMMEDIATE = struct.Struct("=i")


def _patched(prototype: Prototype, fds: Mapping[str, int]) -> bytes:
    insns = bytearray(prototype.insns)
    for name, places in prototype.places.items():
        for place in places:
            _IMMEDIATE.pack_into(insns, place, fds[name])
    return bytes(insns)


def references(insns: bytes) -> Iterator[tuple[int, int]]:
    """Where instructions refer to maps: the place of the file descriptor in bytes, and the file descriptor."""
    source_shift = 4 if sys.byteorder == "little" else 0
    place = 0
    while place < len(insns):
        if insns[place] == LOAD_IMMEDIATE:
            if (insns[place + 1] >> source_shift) & 0xF in (BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE):
                yield place + 4, _IMMEDIATE.unpack_from(insns, place + 4)[0]
            place += 8
        place += 8


def no_program(rendered: Rendered) -> NkformError:
    """A template whose C has no program of its own."""
    return NkformError(Problem("NK0741", f"the template {rendered.template.name} has no program: it needs program()"))


def places_of(insns: bytes, names: Mapping[int, str]) -> dict[str, tuple[int, ...]]:
    """By name of a map the places that refer to it. `names` are the maps by file descriptor."""
    places: dict[str, tuple[int, ...]] = {}
    for place, fd in references(insns):
        if fd not in names:
            raise NkformError(Problem("NK0741", "a program refers to a map that is not in its object file"))
        places[names[fd]] = (*places.get(names[fd], ()), place)
    return places
