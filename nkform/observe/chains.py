"""What the hooks of devices run: links and filters, ours known by their pins and names, others by the kernel's names.

Two queries a device; programs of others are looked at one by one, since they are few. Legacy tc is looked at only where
a device has a clsact qdisc.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from nkform.dataclass import replace
from nkform.kernel.bpf import BpfError, link_fd, prog_fd
from nkform.kernel.bpf_links import AttachType, LinkInfo, link_info, query
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.clsact import PREFIX, Direction, Filter, Tc
from nkform.kernel.descriptors import Owned
from nkform.kernel.error import unless_gone
from nkform.kinds import EXTERNAL, KINDS
from nkform.model import Attached, Device, Endpoint, Hook
from nkform.numbers import IDS, decimal
from nkform.observe.pins import Pinned, Pins, pins_of, read_pins

TYPES: Mapping[tuple[str, str], AttachType] = {
    (kind.name, hook): AttachType[site] for kind in KINDS.values() for hook, site in kind.hooks.items()
}
"""Where the chain of a hook is attached, by kind of device; always through the primary's ifindex."""

DIRECTIONS: Mapping[AttachType, Direction] = {
    AttachType.TCX_INGRESS: Direction.INGRESS,
    AttachType.TCX_EGRESS: Direction.EGRESS,
}


def pin_name(entry: Attached) -> str:
    """What the pin of an attached program of ours is called."""
    loaded = f"@{entry.loaded}" if entry.loaded else ""
    return f"{entry.name}@{entry.digest}@{entry.place}{loaded}"


def held_name(entry: Attached) -> str:
    """What the pin of a program is called that a chain lost."""
    return f"{entry.name}@{entry.identity}@{entry.program_id}"


def filter_name(node: str, name: str, digest: str, program_id: int) -> str:
    """What a filter of ours is called, after PREFIX; whoever changes its program may leave the name."""
    return f"{node}@{name}@{digest}@{program_id}"


def with_hooks(
    devices: Mapping[str, Device], node: str, indexes: Mapping[str, int], legacy: Collection[int], base: str
) -> tuple[dict[str, Device], int]:
    """The devices with what their hooks run, and those of others at which something of ours is left.

    And how many links of ours lead to none of these.

    `indexes` are the ifindexes of all devices by name, `legacy` those that have a clsact qdisc. A device that has gone
    meanwhile is left out. Raises KernelError.
    """
    pins = read_pins(pins_of(node, base))
    left = {name for name, _ in pins} | _filtered(node, indexes, legacy)
    others = {
        name: Device(name, EXTERNAL.name, {}, Endpoint(name), index=indexes[name])
        for name in sorted(left)
        if name in indexes and name not in devices
    }
    found = {}
    for device in (*devices.values(), *others.values()):
        relevant = device.owner == node or device.traits.programs_only
        with unless_gone():
            found[device.name] = _with_hooks(device, node, pins, legacy) if relevant else replace(device, hooks={})
    return _followed(found, pins, indexes)


def _with_hooks(device: Device, node: str, pins: Pins, legacy: Collection[int]) -> Device:
    """A device with what its hooks run. Raises KernelError (ENODEV: it has gone)."""
    hooks = {}
    for hook in device.traits.hooks:
        attach_type = TYPES[device.kind, hook]
        hooks[hook] = read_links(device.index, attach_type, pins.get((device.name, hook), {}))
        if device.index in legacy and attach_type in DIRECTIONS:
            filters = read_filters(device.index, DIRECTIONS[attach_type], node)
            hooks[hook] = replace(hooks[hook], filters=filters)
    return replace(device, hooks=hooks)


def _followed(found: dict[str, Device], pins: Pins, indexes: Mapping[str, int]) -> tuple[dict[str, Device], int]:
    """The devices with the links of ours at those that have another name by now than when they were attached."""
    seen = {entry.place for device in found.values() for hook in device.hooks.values() for entry in hook.linked}
    seen -= {e.place for device in found.values() for h in device.hooks.values() for e in h.linked if not e.ours}
    elsewhere = {number: what for some in pins.values() for number, what in some.items() if number not in seen}
    names = {index: name for name, index in indexes.items()} if elsewhere else {}
    followed = 0
    for info in _living(elsewhere):
        if name := names.get(info.ifindex):
            device = found.get(name) or Device(name, EXTERNAL.name, {}, Endpoint(name), index=info.ifindex)
            hooks = dict(device.hooks)
            for hook in device.traits.hooks:
                if (attach_type := TYPES[device.kind, hook]) == info.attach_type:
                    known = {**pins.get((name, hook), {}), **elsewhere}
                    with unless_gone():
                        linked = read_links(device.index, attach_type, known)
                        hooks[hook] = replace(linked, filters=hooks.get(hook, linked).filters)
                        followed += info.id in {entry.place for entry in linked.linked}
                        found[name] = replace(device, hooks=hooks)
    return found, len(elsewhere) - followed


def _living(numbers: Iterable[int]) -> Iterator[LinkInfo]:
    """The links of these ids that are attached somewhere."""
    for number in numbers:
        try:
            fd = link_fd(number)
        except BpfError:
            continue
        with Owned(fd):
            info = link_info(fd)
        if info.ifindex:
            yield info


def _filtered(node: str, indexes: Mapping[str, int], legacy: Collection[int]) -> set[str]:
    """The names of devices that have filters of ours, which no pin tells of."""
    return {
        name
        for name, index in indexes.items()
        if index in legacy and any(e.ours for way in DIRECTIONS.values() for e in read_filters(index, way, node))
    }


def read_links(index: int, attach_type: AttachType, pinned: Pinned | Callable[[], Pinned]) -> Hook:
    """The links at a hook. Where the kernel has no such hook: nothing, with revision 0, or 1 if legacy tc stands in.

    `pinned` says which ones are ours; a function is asked only where there is anything.
    """
    try:
        chain = query(index, attach_type)
    except BpfError as error:
        if error.errno in (errno.EINVAL, errno.ENXIO, errno.EOPNOTSUPP):
            return Hook(revision=1 if attach_type in DIRECTIONS else 0)
        raise
    entries = []
    if callable(pinned):
        pinned = pinned() if chain.entries else {}
    for entry in chain.entries:
        if entry.link_id in pinned:
            name, digest, loaded = pinned[entry.link_id]
            entries.append(Attached(entry.prog_id, entry.link_id, name, digest, True, loaded=loaded))
        else:
            entries.append(Attached(entry.prog_id, entry.link_id, _name(entry.prog_id)))
    return Hook(tuple(entries), (), chain.revision)


def read_filters(index: int, direction: Direction, node: str) -> tuple[Attached, ...]:
    """The filters that packets meet there."""
    with Tc() as tc:
        return tuple(_attached(each, node) for each in tc.filters(index, direction) if not each.chain)


def _attached(each: Filter, node: str) -> Attached:
    parts = each.name.removeprefix(PREFIX).split("@")
    if each.ours and len(parts) in (3, 4) and parts[0] == node:
        loaded = decimal(parts[3], IDS) if len(parts) == 4 else 0
        return Attached(each.prog_id, each.priority, parts[1], parts[2], True, loaded=loaded or 0)
    # Another node's filter has a name that changes with what it runs: the program's is as that of a link.
    name = _name(each.prog_id) if each.ours and each.prog_id else each.name
    return Attached(each.prog_id, each.priority, name or each.kind)


def _name(program: int) -> str:
    """A program's name in the kernel; empty if it is gone by now."""
    try:
        fd = prog_fd(program)
    except BpfError:
        return ""
    with Owned(fd):
        return prog_info(fd).name
