"""The state of a node's devices and programs, for people and as data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from nkform.report.colour import Paint

Numbers = Mapping[str, Mapping[str, Mapping[str, int]]]
"""By map, key and field."""


@dataclass(frozen=True, slots=True)
class ProgramStatus:
    """A program at a hook; `place` is its link's id, or with `way` tc its filter's priority. `time` in ns."""

    name: str
    template: str
    way: str
    place: int
    program_id: int
    digest: str
    count: int
    time: int
    numbers: Numbers


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """A device: its kind, whether both ends are up, and the programs of its hooks, foreign ones by name."""

    name: str
    kind: str
    peer: str
    up: bool
    hooks: Mapping[str, Sequence[ProgramStatus | str]]


def render(node: str, devices: Sequence[DeviceStatus], paint: Paint) -> str:
    return (
        "\n".join([f"node {node}: {len(devices)} devices", *(line for d in devices for line in _device(d, paint))])
        + "\n"
    )


def _device(device: DeviceStatus, paint: Paint) -> Iterator[str]:
    state = paint("up", "green") if device.up else paint("down", "red")
    peer = f", peer {device.peer}" if device.peer else ""
    yield f"  {device.name} ({device.kind}{peer}): {state}"
    for hook, programs in device.hooks.items():
        if programs:
            yield f"    {hook}"
        for program in programs:
            if isinstance(program, str):
                yield f"      {program} (not nkform's)"
            else:
                yield from _program(program)


def _program(program: ProgramStatus) -> Iterator[str]:
    template = f" ({program.template})" if program.template else ""
    runs = f", {program.count} runs, {program.time // program.count} ns each" if program.count else ""
    yield (
        f"      {program.name}{template}: {program.way} {program.place}, program {program.program_id}, "
        f"digest {program.digest}{runs}"
    )
    for values in program.numbers.values():
        for key, fields in values.items():
            if any(fields.values()):
                yield f"        {key}: " + ", ".join(f"{number} {name}" for name, number in fields.items())


def render_json(node: str, devices: Sequence[DeviceStatus]) -> str:
    return json.dumps({"node": node, "devices": [asdict(device) for device in devices]}, indent=2) + "\n"
