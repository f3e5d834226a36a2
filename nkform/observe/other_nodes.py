"""Programs of other nodes, told from ours where pins may be out of sight. Reads, changes nothing.

Something is mounted over the bpffs then. Pins that can be seen say whose their links are; of the others, each node has
on record which programs it has where (explanations.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress

from nkform.dataclass import replace
from nkform.kernel import bpffs, rundir
from nkform.kernel.error import KernelError
from nkform.model import Attached, Device
from nkform.observe import explanations
from nkform.observe.pins import read_pins

KERNEL_NAME = 15
"""BPF_OBJ_NAME_LEN less the closing NUL: how much of a template's name the kernel keeps. Bytes."""

Place = tuple[str, str, str]
"""A device, a hook, and what the kernel calls a program."""


def known(devices: Mapping[str, Device], node: str, base: str = bpffs.BASE) -> dict[str, Device]:
    """The devices, the digest beside each program of another node. Raises KernelError."""
    others = sorted({*rundir.nodes(), *bpffs.nodes(base)} - {node})
    pinned = {
        link: digest
        for other in others
        for some in read_pins(bpffs.pins(other, base)).values()
        for link, (_, digest, _) in some.items()
    }
    recorded: Counter[Place] = Counter()
    for other in others:
        with suppress(KernelError):  # what others could write to says nothing
            for each in explanations.read(other):
                recorded.update((device, hook, each.template[:KERNEL_NAME]) for device, hook, _ in each.at)
    found = {}
    for name, device in devices.items():
        hooks = {}
        for key, hook in device.hooks.items():
            linked = [_pinned(entry, pinned) for entry in hook.linked]
            recorded.subtract((name, key, entry.name) for entry in linked if entry.digest and not entry.ours)
            hooks[key] = replace(hook, linked=tuple(_recorded(entry, (name, key), recorded) for entry in linked))
        found[name] = replace(device, hooks=hooks)
    return found


def _pinned(entry: Attached, pinned: Mapping[int, str]) -> Attached:
    return replace(entry, digest=pinned[entry.place]) if not entry.ours and entry.place in pinned else entry


def _recorded(entry: Attached, where: tuple[str, str], recorded: Counter[Place]) -> Attached:
    place = (*where, entry.name)
    if entry.ours or entry.digest or recorded[place] <= 0:
        return entry
    recorded[place] -= 1
    return replace(entry, digest="of another node")
