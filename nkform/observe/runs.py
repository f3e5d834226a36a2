"""What attached programs have done: run counts, times, and the numbers in their maps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from contextlib import suppress

from nkform.dataclass import dataclass
from nkform.kernel import bpf
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_maps import PERCPU, MapInfo, map_info, map_items, map_items_percpu
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.descriptors import Owned
from nkform.model import Attached

U64 = struct.Struct("=Q")

Names = tuple[tuple[str, ...], tuple[str, ...]]
"""What the keys 0, 1, … of a map are called, and the 64 bit fields of its values."""


@dataclass(frozen=True, slots=True)
class Run:
    """A program at work, with its name in the kernel.

    `time` in ns and `count` grow only while the kernel's statistics are on; `maps`: its numbers. Statistics: `sysctl
    kernel.bpf_stats_enabled=1`, which costs some 20 ns a packet.
    """

    name: str
    count: int
    time: int
    maps: Mapping[str, Mapping[str, Mapping[str, int]]]


def read(entry: Attached, maps: Mapping[str, Names]) -> Run | None:
    """Looks at a program; `maps` say which of its maps hold numbers for people. None if it has gone by now.

    Raises BpfError.
    """
    try:
        return _read(entry, maps)
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def _read(entry: Attached, maps: Mapping[str, Names]) -> Run:
    with Owned(bpf.prog_fd(entry.program_id)) as fd:
        info = prog_info(fd)
    found = {}
    for number in info.map_ids:
        with Owned(bpf.map_fd(number)) as map_fd:
            about = map_info(map_fd)
            if about.name in maps:
                with suppress(BpfError):  # of a kind that cannot be read so
                    found[about.name] = _numbers(_items(map_fd, about), maps[about.name])
    return Run(info.name, info.run_cnt, info.run_time_ns, found)


def _items(map_fd: int, about: MapInfo) -> Mapping[bytes, tuple[bytes, ...]]:
    """The entries of a map, whether it has a value for each CPU or one for all. Raises BpfError."""
    if about.type in PERCPU:
        return map_items_percpu(map_fd, about)
    return {key: (value,) for key, value in map_items(map_fd, about).items()}


def _numbers(items: Mapping[bytes, tuple[bytes, ...]], told: Names) -> dict[str, dict[str, int]]:
    """The sums over all CPUs, by the names that the template gives to keys and fields."""
    found: dict[str, dict[str, int]] = {}
    for key, values in items.items():
        number = int.from_bytes(key, "little")
        if number < len(told[0]):
            found[told[0][number]] = {
                name: sum(U64.unpack_from(value, 8 * place)[0] for value in values)
                for place, name in enumerate(told[1])
                if 8 * place + 8 <= min(map(len, values))
            }
    return found
