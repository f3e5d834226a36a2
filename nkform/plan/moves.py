"""In which order peers take their new names and places, and which of them cannot, so that their pairs are made anew.

Pure, and the same whatever the order of the devices is. Each peer waits for the one that has its new name now, so what
waits is a line, whose end goes first, or a ring, of which one pair gives its name up.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from nkform.model import Device, Endpoint, Node


def blocked_moves(devices: Mapping[str, Device], live: Node, anew: Collection[str]) -> dict[str, str]:
    """Devices whose peer cannot take its new name because of a device that has it, and what to say of that.

    `anew` are those that are made anew in any case.
    """
    waits = _waits(devices, live, anew)
    at_fault = {name for name, holder in waits.items() if not _moves(holder, devices, live)}
    at_fault |= {min(ring) for ring in _rings(waits)}
    return {name: f"the peer's new name is still in use by {waits[name]}" for name in at_fault}


def in_order(devices: Mapping[str, Device], live: Node, anew: Collection[str]) -> list[str]:
    """The devices, each behind the one that has its peer's new name now."""
    waits = _waits(devices, live, anew)
    found: dict[str, None] = {}
    for name in sorted(devices):
        found.update(dict.fromkeys(reversed(_line(name, waits))))
    return list(found)


def _waits(devices: Mapping[str, Device], live: Node, anew: Collection[str]) -> dict[str, str]:
    """By the name of a device whose peer moves, the device that has its new name now, which may move as well."""
    held = {
        _place(d.peer): d.name for d in live.devices.values() if d.peer and d.name in devices and d.name not in anew
    }
    found = {}
    for name, device in devices.items():
        if device.peer and name not in anew and _moves(name, devices, live):
            holder = held.get(_place(device.peer))
            if holder is not None and holder != name:
                found[name] = holder
    return found


def _moves(name: str, devices: Mapping[str, Device], live: Node) -> bool:
    wanted, found = devices[name].peer, live.devices[name].peer if name in live.devices else None
    return bool(wanted and found) and _place(wanted) != _place(found)


def _place(end: Endpoint | None) -> tuple[str, str]:
    return (end.namespace, end.name) if end else ("", "")


def _line(name: str, waits: Mapping[str, str]) -> list[str]:
    """A device, the one that it waits for, and so on."""
    line = [name]
    while (holder := waits.get(line[-1])) is not None and holder not in line:
        line.append(holder)
    return line


def _rings(waits: Mapping[str, str]) -> Iterator[list[str]]:
    """The devices that wait for each other, once for each of them."""
    for name in waits:
        line = _line(name, waits)
        if waits.get(line[-1]) == name:
            yield line
