"""Maps: making them, reading and writing their entries, many at once where the kernel can.

Keys and values are bytes as the kernel has them. A per-CPU map has one value for each possible CPU; the functions for
those end in `_percpu`, and the others refuse such a map. Functions that need a map's sizes take its MapInfo, and ask
the kernel for it where none is given: who makes many calls passes it.

Layouts and numbers: include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import errno
import functools
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import IntEnum
from pathlib import Path

from nkform.dataclass import dataclass
from nkform.kernel import bpf
from nkform.kernel.bpf import BpfError, Buffer, Command, Layout
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.descriptors import Owned

BPF_ANY = 0
BPF_NOEXIST = 1
BPF_EXIST = 2
BPF_F_NO_PREALLOC = 1 << 0
BPF_F_RDONLY_PROG = 1 << 7
BPF_F_MMAPABLE = 1 << 10

BATCH_BYTES = 1 << 20
"""Memory for one batch of entries; large maps are read in several."""

BATCH_ENTRIES = 64
"""The least that one batch asks for: a bucket of a hash that does not fit in is refused as a whole."""

MAP_CREATE = Layout(
    "bpf_attr",
    ("map_type", "I"),
    ("key_size", "I"),
    ("value_size", "I"),
    ("max_entries", "I"),
    ("map_flags", "I"),
    ("inner_map_fd", "I"),
    ("numa_node", "I"),
    ("map_name", "16s"),
    ("map_ifindex", "I"),
    ("btf_fd", "I"),
    ("btf_key_type_id", "I"),
    ("btf_value_type_id", "I"),
    ("btf_vmlinux_value_type_id", "I"),
    ("map_extra", "Q"),
)
ELEM = Layout("bpf_attr", ("map_fd", "I"), ("", "4x"), ("key", "Q"), ("value", "Q"), ("flags", "Q"))
BATCH = Layout(
    "bpf_attr.batch",
    ("in_batch", "Q"),
    ("out_batch", "Q"),
    ("keys", "Q"),
    ("values", "Q"),
    ("count", "I"),
    ("map_fd", "I"),
    ("elem_flags", "Q"),
    ("flags", "Q"),
)
MAP_INFO = Layout(
    "bpf_map_info",
    ("type", "I"),
    ("id", "I"),
    ("key_size", "I"),
    ("value_size", "I"),
    ("max_entries", "I"),
    ("map_flags", "I"),
    ("name", "16s"),
    ("ifindex", "I"),
    ("btf_vmlinux_value_type_id", "I"),
    ("netns_dev", "Q"),
    ("netns_ino", "Q"),
    ("btf_id", "I"),
    ("btf_key_type_id", "I"),
    ("btf_value_type_id", "I"),
    ("", "4x"),
    ("map_extra", "Q"),
)


class MapType(IntEnum):
    """enum bpf_map_type, as far as programs at tc hooks use it."""

    HASH = 1
    ARRAY = 2
    PROG_ARRAY = 3
    PERCPU_HASH = 5
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    LRU_PERCPU_HASH = 10
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12
    HASH_OF_MAPS = 13
    QUEUE = 22
    STACK = 23
    RINGBUF = 27


PERCPU = frozenset({MapType.PERCPU_HASH, MapType.PERCPU_ARRAY, MapType.LRU_PERCPU_HASH})


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map. Sizes in bytes; `value_size` of a per-CPU map is that of one CPU's value."""

    id: int
    type: int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    btf_id: int
    btf_key_type_id: int
    btf_value_type_id: int

    @property
    def room(self) -> int:
        """Bytes that the kernel reads or writes for one entry: per CPU a value, each padded to 8 bytes."""
        return _padded(self.value_size) * possible_cpus() if self.type in PERCPU else self.value_size


def _padded(size: int) -> int:
    return (size + 7) & ~7


@functools.cache
def possible_cpus() -> int:
    """How many CPUs the kernel keeps values for; not all of them must exist."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip()
    ends = (part.partition("-") for part in ranges.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def map_create(
    type: MapType,
    key_size: int,
    value_size: int,
    max_entries: int,
    name: str,
    *,
    flags: int = 0,
    inner_map_fd: int = 0,
    btf_fd: int = 0,
    btf_key_type_id: int = 0,
    btf_value_type_id: int = 0,
    map_extra: int = 0,
) -> int:
    """Makes a map; sizes in bytes. A LPM_TRIE needs BPF_F_NO_PREALLOC. Raises BpfError."""
    attr = MAP_CREATE.fill(
        type,
        key_size,
        value_size,
        max_entries,
        flags,
        inner_map_fd,
        0,
        bpf.object_name(name),
        0,
        btf_fd,
        btf_key_type_id,
        btf_value_type_id,
        0,
        map_extra,
    )
    fd = bpf.call(Command.MAP_CREATE, attr, MAP_CREATE.size)
    if fd < 0:
        raise bpf.error(-fd, f"create map {name} ({_type_name(type)}, {max_entries} entries)", _CREATE_MEANINGS)
    return fd


_CREATE_MEANINGS: Mapping[int, str] = {
    errno.EINVAL: "its type, sizes or flags do not go together, or this kernel does not know the type",
    errno.E2BIG: "its keys, its values or the whole map are too large",
}
_read_map_info = MAP_INFO.reader(
    "id",
    "type",
    "name",
    "key_size",
    "value_size",
    "max_entries",
    "map_flags",
    "btf_id",
    "btf_key_type_id",
    "btf_value_type_id",
)


def map_info(map_fd: int) -> MapInfo:
    """What a map is. Raises BpfError."""
    info = bpf.room(MAP_INFO.size)
    bpf.read_info(map_fd, info, "map")
    number, kind, name, *rest = _read_map_info(info)
    return MapInfo(number, kind, bpf.name_of(name), *rest)


@contextmanager
def maps_of(program: int) -> Iterator[dict[str, int]]:
    """The maps of a loaded program, by name, within the block. Raises BpfError (ENOENT: it is gone)."""
    with Owned(bpf.prog_fd(program)) as prog_fd:
        numbers = prog_info(prog_fd).map_ids
    with ExitStack() as stack:
        opened = [stack.enter_context(Owned(bpf.map_fd(number))) for number in numbers]
        yield {map_info(fd).name: fd for fd in opened}


def map_freeze(map_fd: int) -> None:
    """Forbids further writing through bpf(2), for good; programs go on as they did. Raises BpfError."""
    result = bpf.call(Command.MAP_FREEZE, ELEM.fill(map_fd, 0, 0, 0), ELEM.size)
    if result < 0:
        frozen = "it is frozen already, or "  # kernels differ in which of the two they say
        meanings = {errno.EBUSY: frozen + "mapped writable", errno.EPERM: frozen + bpf.PRIVILEGE}
        raise bpf.error(-result, f"freeze {_map_name(map_fd)}", meanings)


# --- single entries ---------------------------------------------------------------------


def map_lookup(map_fd: int, key: bytes, info: MapInfo | None = None) -> bytes | None:
    """A key's value, None where there is none. Raises BpfError."""
    return _lookup(map_fd, key, _plain(info or map_info(map_fd)))


def map_lookup_percpu(map_fd: int, key: bytes, info: MapInfo | None = None) -> tuple[bytes, ...] | None:
    """A key's values in a per-CPU map, one for each possible CPU, None where there is none. Raises BpfError."""
    info = _percpu(info or map_info(map_fd))
    values = _lookup(map_fd, key, info)
    return None if values is None else _split(values, info)


def _lookup(map_fd: int, key: bytes, info: MapInfo) -> bytes | None:
    _check_key(key, info)
    wanted, value = bpf.memory(key), bpf.room(info.room)
    attr = ELEM.fill(map_fd, bpf.address(wanted), bpf.address(value), 0)
    result = bpf.call(Command.MAP_LOOKUP_ELEM, attr, ELEM.size)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise bpf.error(-result, f"read key {key.hex()} of {_map_name(map_fd)}", _ACCESS_MEANINGS)
    return value.raw


def map_update(map_fd: int, key: bytes, value: bytes, info: MapInfo | None = None, flags: int = BPF_ANY) -> None:
    """Sets a key's value. Raises BpfError (E2BIG: the map is full; EEXIST, ENOENT: as `flags` forbid)."""
    info = _plain(info or map_info(map_fd))
    _check_key(key, info)
    _update(map_fd, key, _checked(value, info), flags)


def map_update_percpu(
    map_fd: int, key: bytes, values: Sequence[bytes], info: MapInfo | None = None, flags: int = BPF_ANY
) -> None:
    """Sets a key's values in a per-CPU map, one for each possible CPU. Raises BpfError."""
    info = _percpu(info or map_info(map_fd))
    _check_key(key, info)
    if len(values) != possible_cpus():
        raise ValueError(f"{len(values)} values for {possible_cpus()} possible CPUs")
    padding = bytes(_padded(info.value_size) - info.value_size)
    _update(map_fd, key, b"".join(_checked(value, info) + padding for value in values), flags)


def _update(map_fd: int, key: bytes, value: bytes, flags: int) -> None:
    wanted, new = bpf.memory(key), bpf.memory(value)
    attr = ELEM.fill(map_fd, bpf.address(wanted), bpf.address(new), flags)
    result = bpf.call(Command.MAP_UPDATE_ELEM, attr, ELEM.size)
    if result < 0:
        raise bpf.error(-result, f"set key {key.hex()} of {_map_name(map_fd)}", _ACCESS_MEANINGS)


def map_delete(map_fd: int, key: bytes) -> bool:
    """Removes a key; whether it was there. Raises BpfError (EINVAL: an array's entries cannot be removed)."""
    wanted = bpf.memory(key)
    result = bpf.call(Command.MAP_DELETE_ELEM, ELEM.fill(map_fd, bpf.address(wanted), 0, 0), ELEM.size)
    if result < 0 and result != -errno.ENOENT:
        meanings = {**_ACCESS_MEANINGS, errno.EINVAL: "entries of this type of map cannot be removed"}
        raise bpf.error(-result, f"remove key {key.hex()} of {_map_name(map_fd)}", meanings)
    return result == 0


def map_next(map_fd: int, key: bytes | None, info: MapInfo | None = None) -> bytes | None:
    """The key after another (of one that is not there, and of None: the first key), None after the last.

    Raises BpfError.
    """
    info = info or map_info(map_fd)
    before = bpf.memory(key) if key is not None else None
    after = bpf.room(info.key_size)
    attr = ELEM.fill(map_fd, bpf.address(before) if before is not None else 0, bpf.address(after), 0)
    result = bpf.call(Command.MAP_GET_NEXT_KEY, attr, ELEM.size)
    if result == -errno.ENOENT:
        return None
    if result < 0:
        raise bpf.error(-result, f"walk the keys of {_map_name(map_fd)}", _ACCESS_MEANINGS)
    return after.raw


# --- many entries -----------------------------------------------------------------------


def map_items(map_fd: int, info: MapInfo | None = None) -> dict[bytes, bytes]:
    """All entries, in the kernel's order. Of a map that changes meanwhile, some may be missed. Raises BpfError."""
    return dict(_items(map_fd, _plain(info or map_info(map_fd))))


def map_items_percpu(map_fd: int, info: MapInfo | None = None) -> dict[bytes, tuple[bytes, ...]]:
    """All entries of a per-CPU map, with one value for each possible CPU. Raises BpfError."""
    info = _percpu(info or map_info(map_fd))
    return {key: _split(values, info) for key, values in _items(map_fd, info)}


def map_update_many(map_fd: int, items: Mapping[bytes, bytes], info: MapInfo | None = None) -> None:
    """Sets many entries, in as few calls as the kernel allows. Raises BpfError; what was set before stays."""
    info = _plain(info or map_info(map_fd))
    for key, value in items.items():
        _check_key(key, info)
        _checked(value, info)
    keys, values = tuple(items), tuple(items.values())
    done = _update_batch(map_fd, keys, values) if len(items) > 1 else 0
    for key, value in zip(keys[done:], values[done:], strict=True):
        _update(map_fd, key, value, BPF_ANY)


def map_delete_many(map_fd: int, keys: Iterable[bytes], info: MapInfo | None = None) -> None:
    """Removes many entries, in as few calls as the kernel allows; some may be gone already. Raises BpfError."""
    info = info or map_info(map_fd)
    left = tuple(keys)
    for key in left:
        _check_key(key, info)
    for key in left[_delete_batch(map_fd, left) if len(left) > 1 else 0 :]:
        map_delete(map_fd, key)


_count = BATCH.getter("count")


def _update_batch(map_fd: int, keys: Sequence[bytes], values: Sequence[bytes]) -> int:
    """How many entries one batch has set: all, or those before one that failed, none where there are no batches."""
    wanted, new = bpf.memory(b"".join(keys)), bpf.memory(b"".join(values))
    attr = BATCH.fill(0, 0, bpf.address(wanted), bpf.address(new), len(keys), map_fd, BPF_ANY, 0)
    return _done(Command.MAP_UPDATE_BATCH, attr, len(keys))


def _delete_batch(map_fd: int, keys: Sequence[bytes]) -> int:
    """How many entries one batch has removed, up to one that was not there; none where there are no batches."""
    wanted = bpf.memory(b"".join(keys))
    attr = BATCH.fill(0, 0, bpf.address(wanted), 0, len(keys), map_fd, 0, 0)
    return _done(Command.MAP_DELETE_BATCH, attr, len(keys))


def _done(command: Command, attr: Buffer, wanted: int) -> int:
    if bpf.call(command, attr, BATCH.size) == 0:
        return wanted
    done = _count(attr)  # untouched where the kernel refused the batch as such
    return done if done < wanted else 0


def _items(map_fd: int, info: MapInfo) -> Iterable[tuple[bytes, bytes]]:
    batched = _read_batches(map_fd, info)
    return batched.items() if batched is not None else _read_each(map_fd, info)


def _read_batches(map_fd: int, info: MapInfo) -> dict[bytes, bytes] | None:
    """All entries in large batches; None where the kernel cannot do that, for whatever reason."""
    if not info.key_size:
        return None
    found: dict[bytes, bytes] = {}
    size = min(max(BATCH_ENTRIES, BATCH_BYTES // (info.key_size + info.room)), max(BATCH_ENTRIES, info.max_entries))
    place: Buffer | None = None  # where the next batch begins: a key or a bucket's number, to the kernel alone
    read = 0
    while read <= 2 * info.max_entries:  # keys that are removed meanwhile can make the kernel begin anew
        keys, values = bpf.room(size * info.key_size), bpf.room(size * info.room)
        after = bpf.room(max(info.key_size, 4))
        attr = BATCH.fill(
            bpf.address(place) if place is not None else 0,
            bpf.address(after),
            bpf.address(keys),
            bpf.address(values),
            size,
            map_fd,
            0,
            0,
        )
        result = bpf.call(Command.MAP_LOOKUP_BATCH, attr, BATCH.size)
        if result == -errno.ENOSPC and size <= info.max_entries:
            size *= 2
            continue
        if result not in (0, -errno.ENOENT):
            return None
        count = _count(attr)
        read += count
        found.update(zip(_pieces(keys, info.key_size, count), _pieces(values, info.room, count), strict=True))
        if result:  # ENOENT: that was the last one
            break
        place = after
    return found


def _pieces(buffer: Buffer, size: int, count: int) -> list[bytes]:
    return [piece for (piece,) in struct.iter_unpack(f"={size}s", buffer.raw[: size * count])]


def _read_each(map_fd: int, info: MapInfo) -> Iterator[tuple[bytes, bytes]]:
    """Key by key. A key that is removed meanwhile makes the kernel begin anew: no more steps than the map can have."""
    key = map_next(map_fd, None, info)
    for _ in range(info.max_entries):
        if key is None:
            return
        value = _lookup(map_fd, key, info)
        if value is not None:
            yield key, value
        key = map_next(map_fd, key, info)


# --- sizes ------------------------------------------------------------------------------

_ACCESS_MEANINGS: Mapping[int, str] = {
    errno.E2BIG: "the map is full, or the index is beyond its end",
    errno.EEXIST: "the key is there already",
    errno.ENOENT: "the key is not there",
    errno.EPERM: "the map is frozen or read-only, or " + bpf.PRIVILEGE,
    errno.EOPNOTSUPP: "maps of this type have no such access",
}


def _plain(info: MapInfo) -> MapInfo:
    if info.type in PERCPU:
        raise ValueError(f"map {info.name} has a value per CPU; use the functions for those")
    return info


def _percpu(info: MapInfo) -> MapInfo:
    if info.type not in PERCPU:
        raise ValueError(f"map {info.name} has no value per CPU")
    return info


def _check_key(key: bytes, info: MapInfo) -> None:
    if len(key) != info.key_size:
        raise ValueError(f"map {info.name}: a key has {info.key_size} bytes, not {len(key)}")


def _checked(value: bytes, info: MapInfo) -> bytes:
    if len(value) != info.value_size:
        raise ValueError(f"map {info.name}: a value has {info.value_size} bytes, not {len(value)}")
    return value


def _split(values: bytes, info: MapInfo) -> tuple[bytes, ...]:
    step = _padded(info.value_size)
    return tuple(values[place : place + info.value_size] for place in range(0, len(values), step))


def _type_name(number: int) -> str:
    try:
        return MapType(number).name.lower()
    except ValueError:
        return f"type {number}"


def _map_name(map_fd: int) -> str:
    try:
        info = map_info(map_fd)
    except BpfError:
        return f"file descriptor {map_fd}, which is no map"
    return f"map {info.id} ({info.name or 'without a name'}, {_type_name(info.type)})"
