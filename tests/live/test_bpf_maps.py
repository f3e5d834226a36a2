"""Maps of all types that chains use: single entries, many at once, per-CPU values."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import pytest

from nkform.kernel import bpf, bpf_maps
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_maps import (
    BPF_EXIST,
    BPF_F_NO_PREALLOC,
    BPF_F_RDONLY_PROG,
    BPF_NOEXIST,
    PERCPU,
    MapInfo,
    MapType,
    map_create,
    map_delete,
    map_delete_many,
    map_freeze,
    map_info,
    map_items,
    map_items_percpu,
    map_lookup,
    map_lookup_percpu,
    map_next,
    map_update,
    map_update_many,
    map_update_percpu,
    possible_cpus,
)
from nkform.kernel.descriptors import Owned

SIZE = 300
PLAIN = (MapType.HASH, MapType.ARRAY, MapType.LRU_HASH, MapType.LPM_TRIE)
KEYED = (MapType.HASH, MapType.LRU_HASH, MapType.LPM_TRIE)


def create(kind: MapType, size: int = SIZE) -> int:
    """A map with values of 12 bytes, which a per-CPU map pads."""
    key_size = 8 if kind == MapType.LPM_TRIE else 4
    return map_create(kind, key_size, 12, size, "m", flags=BPF_F_NO_PREALLOC if kind == MapType.LPM_TRIE else 0)


def key(kind: MapType, number: int) -> bytes:
    """The key of a number: for a trie a prefix of full length."""
    if kind == MapType.LPM_TRIE:
        return (32).to_bytes(4, "little") + number.to_bytes(4, "big")
    return number.to_bytes(4, "little")


def value(number: int) -> bytes:
    return number.to_bytes(12, "little")


@pytest.fixture
def a_map(request: pytest.FixtureRequest) -> Iterator[tuple[int, MapType, MapInfo]]:
    with Owned(create(request.param)) as fd:
        yield fd, request.param, map_info(fd)


every = pytest.mark.parametrize("a_map", PLAIN, indirect=True, ids=lambda kind: kind.name)
keyed = pytest.mark.parametrize("a_map", KEYED, indirect=True, ids=lambda kind: kind.name)
percpu = pytest.mark.parametrize("a_map", sorted(PERCPU), indirect=True, ids=lambda kind: kind.name)
AMap = tuple[int, MapType, MapInfo]


def test_a_map_says_what_it_is() -> None:
    with Owned(map_create(MapType.HASH, 8, 16, 99, "drops.per-second-and-more")) as fd:
        info = map_info(fd)
        assert (info.type, info.key_size, info.value_size, info.max_entries) == (MapType.HASH, 8, 16, 99)
        assert info.name == "drops.per_secon"
        assert info.id in set(bpf.map_ids())
        with Owned(bpf.map_fd(info.id)) as again:
            assert map_info(again) == info


@keyed
def test_entries_come_and_go(a_map: AMap) -> None:
    fd, kind, info = a_map
    one = key(kind, 1)
    assert map_lookup(fd, one) is None
    map_update(fd, one, value(5))
    assert map_lookup(fd, one, info) == value(5)
    map_update(fd, one, value(6), info, BPF_EXIST)
    with pytest.raises(BpfError, match=rf"set key {one.hex()} of map {info.id} \(m, .*: the key is there already"):
        map_update(fd, one, value(7), info, BPF_NOEXIST)
    with pytest.raises(BpfError, match="the key is not there"):
        map_update(fd, key(kind, 2), value(7), info, BPF_EXIST)
    assert map_items(fd) == {one: value(6)}
    assert map_delete(fd, one)
    assert not map_delete(fd, one)
    assert map_items(fd) == {}


@every
def test_many_entries_are_written_and_read(a_map: AMap) -> None:
    fd, kind, info = a_map
    entries = {key(kind, number): value(number) for number in range(SIZE)}
    map_update_many(fd, entries, info)
    found = map_items(fd, info)
    if kind == MapType.LRU_HASH:  # it may have thrown out some early
        assert found.items() <= entries.items()
    else:
        assert found == entries
    assert dict(bpf_maps._read_each(fd, info)) == found, "one by one, as kernels without batches are read"


@keyed
def test_many_entries_are_removed(a_map: AMap, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them are not there (any more): in one batch, and one by one."""
    fd, kind, info = a_map
    entries = {key(kind, number): value(number) for number in range(8)}
    some = [key(kind, number) for number in (0, 20, 2, 2, 21, 4)]
    for _ in range(2):
        map_update_many(fd, entries, info)
        map_delete_many(fd, some, info)
        assert set(map_items(fd, info)) == {key(kind, number) for number in (1, 3, 5, 6, 7)}
        map_delete_many(fd, (), info)
        monkeypatch.setattr(bpf_maps, "_delete_batch", lambda *_: 0)
    with pytest.raises(ValueError, match="a key has"):
        map_delete_many(fd, [b"x"], info)


@every
def test_the_kernel_reads_this_type_in_batches(a_map: AMap) -> None:
    fd, kind, info = a_map
    entries = {key(kind, number): value(number) for number in range(SIZE)}
    assert bpf_maps._update_batch(fd, tuple(entries), tuple(entries.values())) == SIZE
    assert bpf_maps._read_batches(fd, info) is not None


def test_a_large_map_is_read_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bpf_maps, "BATCH_BYTES", 1 << 10)
    for kind in (MapType.HASH, MapType.ARRAY, MapType.LPM_TRIE):
        with Owned(create(kind, 5000)) as fd:
            entries = {key(kind, number): value(number) for number in range(5000)}
            map_update_many(fd, entries)
            assert map_items(fd) == entries


@percpu
def test_a_per_cpu_map_has_a_value_for_each_cpu(a_map: AMap) -> None:
    fd, kind, info = a_map
    for number in range(SIZE):
        map_update_percpu(fd, key(kind, number), [value(number + cpu) for cpu in range(possible_cpus())], info)
    expected = {key(kind, n): tuple(value(n + cpu) for cpu in range(possible_cpus())) for n in range(SIZE)}
    found = map_items_percpu(fd)
    if kind == MapType.LRU_PERCPU_HASH:
        assert found.items() <= expected.items()
    else:
        assert found == expected
    some = next(iter(found))
    assert map_lookup_percpu(fd, some) == expected[some]
    with pytest.raises(ValueError, match="map m has a value per CPU"):
        map_items(fd)
    with pytest.raises(ValueError, match="values for"):
        map_update_percpu(fd, some, [], info)


def test_a_plain_map_has_no_values_per_cpu() -> None:
    with Owned(create(MapType.HASH)) as fd, pytest.raises(ValueError, match="map m has no value per CPU"):
        map_items_percpu(fd)


def test_possible_cpus_are_counted_as_the_kernel_does() -> None:
    assert possible_cpus() >= (os.cpu_count() or 1)


def test_the_walk_of_keys_ends() -> None:
    with Owned(create(MapType.ARRAY, 2)) as fd:
        first = map_next(fd, None)
        assert first == key(MapType.ARRAY, 0)
        second = map_next(fd, first)
        assert second == key(MapType.ARRAY, 1)
        assert map_next(fd, second) is None
    with Owned(create(MapType.HASH)) as fd:
        assert map_next(fd, None) is None


def test_a_full_map_says_so_and_keeps_what_went_in() -> None:
    with Owned(create(MapType.HASH, 4)) as fd:
        entries = {key(MapType.HASH, number): value(number) for number in range(6)}
        with pytest.raises(BpfError, match="the map is full") as caught:
            map_update_many(fd, entries)
        assert caught.value.errno == errno.E2BIG
        assert map_items(fd) == {k: v for k, v in entries.items() if k[0] < 4}


def test_a_frozen_map_is_read_only() -> None:
    with Owned(map_create(MapType.ARRAY, 4, 12, 1, "m.rodata", flags=BPF_F_RDONLY_PROG)) as fd:
        map_update(fd, bytes(4), value(9))
        map_freeze(fd)
        with pytest.raises(BpfError, match=r"set key 00000000 of map .* \(m.rodata, array\): .* frozen or read-only"):
            map_update(fd, bytes(4), value(8))
        assert map_lookup(fd, bytes(4)) == value(9)
        with pytest.raises(BpfError, match="it is frozen already"):
            map_freeze(fd)


def test_errors_say_what_is_wrong() -> None:
    with pytest.raises(BpfError, match=r"create map none \(hash, 0 entries\): .* sizes or flags do not go together"):
        map_create(MapType.HASH, 4, 4, 0, "none")
    with Owned(create(MapType.ARRAY)) as fd:
        with pytest.raises(ValueError, match="map m: a key has 4 bytes, not 1"):
            map_lookup(fd, b"x")
        with pytest.raises(ValueError, match="map m: a value has 12 bytes, not 1"):
            map_update_many(fd, {bytes(4): b"x"})
        with pytest.raises(BpfError, match="entries of this type of map cannot be removed"):
            map_delete(fd, bytes(4))
        with pytest.raises(BpfError, match="the index is beyond its end"):
            map_update(fd, key(MapType.ARRAY, SIZE), value(1))
    with pytest.raises(BpfError, match=r"read the info of a BPF map: .* is not open"):
        map_info(999)
