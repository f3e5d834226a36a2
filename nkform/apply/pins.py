"""Gives pins that somebody has renamed or exchanged their names back, before anything is done by them.

At each moment each link is held by a pin, so that none is detached, and a run that is killed leaves nothing that the
next one cannot put right.
"""

from __future__ import annotations

from nkform.dataclass import replace
from nkform.kernel import bpf, bpffs
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.bpffs import Pin
from nkform.kernel.descriptors import close
from nkform.observe.pins import Pinned, all_pins, are_misplaced, link_in, read_pins, right_names


def linked_at(where: Pin, base: str) -> Pinned:
    """What is ours at the hook of a pin, by link id; its pins are in order then. Raises KernelError."""
    pins = list(bpffs.pins_at(where.node, where.device, where.hook, base))
    if are_misplaced(pins, base):
        put_right(base)
        pins = list(bpffs.pins_at(where.node, where.device, where.hook, base))
    return read_pins(pins).get((where.device, where.hook), {})


def pins_in_order(node: str, base: str) -> list[Pin]:
    """All pins of a node, each of which holds what it says. Raises KernelError."""
    pins = list(bpffs.pins(node, base))
    if are_misplaced(pins, base):
        put_right(base)
        pins = list(bpffs.pins(node, base))
    return pins


def remove(pin: Pin, base: str) -> None:
    """Removes a pin, but not what another one should hold. Raises KernelError."""
    if _is_misplaced(pin, base):
        put_right(base)
        if _is_misplaced(pin, base):
            return
    bpffs.remove(pin, base)


def _is_misplaced(pin: Pin, base: str) -> bool:
    return are_misplaced([replace(pin, touched=bpffs.is_touched(pin, base))], base)


def held_program(pin: Pin, number: int, base: str) -> int | None:
    """The program that a pin of a held one holds, if it is the one of that id. Raises BpfError."""
    fd = bpf.get(pin.path(base))
    if bpf.kind(fd) == "program" and prog_info(fd).id == number:
        return fd
    close(fd)
    return None


def put_right(base: str) -> None:
    """Renames all pins that hold another link than they say. Raises KernelError."""
    right = right_names(all_pins(base), base)
    for pin in list(right):
        while target := right.pop(pin, None):
            _move(pin, target, right, base)


def _move(pin: Pin, target: Pin, right: dict[Pin, Pin], base: str) -> None:
    """One pin to its place; what has that place, and belongs elsewhere, comes to where the pin was."""
    if target in right:
        bpffs.exchange(pin, target, base)
        bpffs.accept(target, base)
        further = right.pop(target)
        if further == pin:
            bpffs.accept(pin, base)
        else:
            right[pin] = further
    elif not bpffs.is_taken(target, base):
        bpffs.rename(pin, target, base)
    elif link_in(target, base) == link_in(pin, base):  # pinned twice
        bpffs.remove(pin, base)
