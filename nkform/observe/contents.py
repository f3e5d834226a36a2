"""What the maps of attached programs hold that a spec sets: read for programs that the spec declares so, and no others.

A node with thousands of other programs pays nothing for them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack

from nkform.dataclass import replace
from nkform.entries import LAYOUTS, filled
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_maps import map_info, map_items, maps_of
from nkform.model import Attached, Device, Hook, MapContents, MapsByParam, Program

Maps = Callable[[Attached], MapsByParam]
"""Tells which maps of a program to look into, whatever entries stand there."""


def with_contents(devices: Mapping[str, Device], declared: Mapping[str, Device]) -> dict[str, Device]:
    """The devices with what their programs' maps hold, as far as it is declared. Raises KernelError."""
    found = dict(devices)
    for name, device in declared.items():
        hooks = dict(found[name].hooks) if name in found else {}
        for hook in hooks.keys() & _filled(device):
            hooks[hook] = filled_hook(hooks[hook], declared_maps(_programs(device, hook)))
        if hooks:
            found[name] = replace(found[name], hooks=hooks)
    return found


def _filled(device: Device) -> set[str]:
    """The hooks at which programs have maps to look into."""
    return {
        hook for hook in (*device.chains, *device.hooks) if any(program.contents for program in _programs(device, hook))
    }


def _programs(device: Device, hook: str) -> tuple[Program | Attached, ...]:
    """What a device declares at a hook: as a spec does, or (the way back) as what was observed before."""
    chain, seen = device.chains.get(hook), device.hooks.get(hook)
    return (*(chain.programs if chain else ()), *(seen.ours if seen else ()))


def declared_maps(programs: Iterable[Program | Attached]) -> Maps:
    """The maps that these programs of a hook fill."""
    known = {program.name: program.contents for program in programs if program.contents}
    return lambda entry: known.get(entry.name, {})


def filled_hook(hook: Hook, maps: Maps) -> Hook:
    """A hook with what the maps of its programs hold. Raises KernelError."""
    return replace(hook, linked=with_entries(hook.linked, maps), filters=with_entries(hook.filters, maps))


def with_entries(entries: Iterable[Attached], maps: Maps) -> tuple[Attached, ...]:
    """Attached programs, those of ours with what their maps hold. Raises KernelError."""
    return tuple(
        replace(entry, contents=read(entry.program_id, known)) if entry.ours and (known := maps(entry)) else entry
        for entry in entries
    )


def read(program: int, known: MapsByParam) -> MapsByParam:
    """What maps of a program hold, those that `known` names and that have the keys it says. Raises KernelError."""
    with ExitStack() as stack:
        try:
            there = stack.enter_context(maps_of(program))
        except BpfError as error:
            if error.errno == errno.ENOENT:  # gone by now
                return {}
            raise
        found = {name: tuple(_read(there, each) for each in wanted) for name, wanted in known.items()}
    return {name: each for name, some in found.items() if len(each := tuple(f for f in some if f)) == len(some)}


def _read(there: Mapping[str, int], wanted: MapContents) -> MapContents | None:
    fd = there.get(wanted.map)
    if fd is None:
        return None
    info = map_info(fd)
    if info.key_size != LAYOUTS[wanted.layout].size:
        return None
    return filled(wanted.map, wanted.layout, map_items(fd, info))
