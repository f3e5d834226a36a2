"""The state of a node's devices and programs, for people and as data."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from math import ceil

from nkform.dataclass import replace
from nkform.listing import counted
from nkform.report.colour import Paint
from nkform.report.drift_text import as_dict, clock, iso, said
from nkform.results import DeviceStatus, Pending, ProgramStatus, Status


def render(status: Status, paint: Paint) -> str:
    node, devices, applied = status.node, status.devices, status.applied
    lines = [paint(on_trial(each), "yellow") for each in status.pending]
    lines += [f"node {node}: {counted(len(devices), 'device')}", *(line for d in devices for line in _device(d, paint))]
    if applied is None:
        lines.append("drift: unknown, there is no record of the last apply here; `nkform apply` makes one")
    else:
        for each, since in applied.elsewhere:
            lines.append(paint(f"  {each.kind} {each.name}: drift: {said(each, since)}", "yellow"))
    return "\n".join(lines) + "\n"


def on_trial(pending: Pending) -> str:
    """What to say of an apply that waits to be confirmed."""
    what = f"the apply of {clock(pending.when)} on {pending.node}"
    if pending.problems:
        return f"nobody confirmed {what}, and not all could go back: {'; '.join(pending.problems)}"
    if not pending.left:
        return f"nobody confirmed {what}: it goes back now"
    return f"{what} waits to be confirmed: it goes back in {ceil(pending.left)} s"


def _device(device: DeviceStatus, paint: Paint) -> Iterator[str]:
    state = paint("up", "green") if device.up else paint("down", "red")
    peer = f", peer {device.peer}" if device.peer else ""
    yield f"  {device.name} ({device.kind}{peer}): {state}"
    for each, since in device.drift:
        yield paint(f"    drift: {said(each, since)}", "yellow")
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
    stranger = f"which is `{program.kernel_name}` and not what nkform loaded"
    made = f"digest {program.digest}" if program.digest else stranger
    yield (f"      {program.name}{template}: {program.way} {program.place}, program {program.program_id}, {made}{runs}")
    for values in program.numbers.values():
        for key, fields in values.items():
            if any(fields.values()):
                yield f"        {key}: " + ", ".join(f"{number} {name}" for name, number in fields.items())


def render_json(status: Status) -> str:
    devices, applied = status.devices, status.applied
    document = {
        "node": status.node,
        "applied": iso(applied.when) if applied else None,
        "pending": [_waiting(each) for each in status.pending],
        "devices": [{**_plain(device), "drift": [as_dict(*each) for each in device.drift]} for device in devices],
        "drift": [as_dict(*each) for each in applied.elsewhere] if applied else [],
    }
    return json.dumps(document, indent=2) + "\n"


def _waiting(pending: Pending) -> dict[str, object]:
    left, problems = round(pending.left, 1), list(pending.problems)
    return {"node": pending.node, "applied": iso(pending.when), "seconds_left": left, "problems": problems}


def _plain(device: DeviceStatus) -> dict[str, object]:
    return asdict(replace(device, drift=()))
