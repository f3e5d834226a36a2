"""What the names of pins say of links, and which link a pin holds in truth where somebody has renamed it.

The name of a pin tells what was loaded into which link, so that looking at names is enough. Who is root can rename
pins, or exchange them; such a pin is opened, and what it holds is known by the name that another pin has for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nkform.dataclass import replace
from nkform.kernel import bpffs
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_links import LinkInfo, link_info, open_link
from nkform.kernel.bpffs import NAME_BYTES, Pin
from nkform.kernel.descriptors import Owned
from nkform.numbers import IDS, decimal

Pinned = Mapping[int, tuple[str, str, int]]
"""Name, digest and id of the programs that we put at a hook, by link id."""

Pins = Mapping[tuple[str, str], Pinned]
"""By device and hook."""

UNKNOWN = "-"
"""The digest of a program that a link of ours runs, of which no name says what it was made from."""
MOST = (1 << IDS) - 1


def entry_name(name: str, digest: str, link_id: int, program_id: int) -> str:
    """What the pin of a link is called: what was loaded, and which link, so that looking at names is enough.

    The program's id tells whether that is what runs: whoever has the pin or the link's id can put another program into
    the link (BPF_LINK_UPDATE), which leaves the pin as it is.
    """
    return f"{name}@{digest}@{link_id}@{program_id}"


def read_pins(pins: Iterable[Pin]) -> Pins:
    """What pins say by their names. Those of earlier versions, without the program's id, are taken at their word."""
    found: dict[tuple[str, str], dict[int, tuple[str, str, int]]] = {}
    for pin in pins:
        if said := _said(pin):
            found.setdefault((pin.device, pin.hook), {})[said[0]] = said[1:]
    return found


def _said(pin: Pin) -> tuple[int, str, str, int] | None:
    """Which link a pin holds by its name, and the name, digest and id of its program; None for what we never named."""
    name, *parts = pin.entry.split("@")  # which no program's name has in it
    if len(parts) not in (2, 3):
        return None
    link, loaded = decimal(parts[1], IDS), decimal(parts[2], IDS) if len(parts) == 3 else 0
    return None if link is None or loaded is None else (link, name, parts[0], loaded)


def pins_of(node: str, base: str) -> list[Pin]:
    """The pins of a node under the names that they should have. Raises KernelError."""
    pins = list(bpffs.pins(node, base))
    if not are_misplaced(pins, base):
        return pins
    every = all_pins(base)
    right = right_names(every, base)
    return [pin for pin in (right.get(pin, pin) for pin in every) if pin.node == node]


def are_misplaced(pins: Iterable[Pin], base: str) -> bool:
    """Whether any of these pins holds another link than its name says."""
    return any(pin.touched and _misplaced(pin, base) for pin in pins)


def all_pins(base: str) -> list[Pin]:
    """The pins of all nodes. Raises KernelError."""
    return [pin for node in bpffs.nodes(base) for pin in bpffs.pins(node, base)]


def right_names(pins: Iterable[Pin], base: str) -> dict[Pin, Pin]:
    """The pins that hold another link than they say, each with the one that it should be.

    That is the one whose name has the link. Where none has, it stays ours, with a program that is not known.
    """
    named = {said[0]: pin for pin in pins if (said := _said(pin))}
    right = {}
    for pin in pins:
        if pin.touched and (held := _misplaced(pin, base)):
            right[pin] = named.get(held.id) or replace(pin, entry=_unknown(pin, held))
    return right


def _unknown(pin: Pin, held: LinkInfo) -> str:
    """What the pin of a link is called of which no name tells; somebody can have given it any name."""
    name = pin.entry.partition("@")[0]
    short = name.isascii() and 0 < len(name) < NAME_BYTES // len("%XX") - len(entry_name("", UNKNOWN, MOST, MOST))
    return entry_name(name if short else UNKNOWN, UNKNOWN, held.id, held.prog_id)


def _misplaced(pin: Pin, base: str) -> LinkInfo | None:
    """The link that a pin holds, if that is another one than it says; None also for what we never named so."""
    held = link_in(pin, base)
    said = _said(pin)
    if held is None or "@" not in pin.entry or (said and said[0] == held.id):
        return None
    return held


def link_in(pin: Pin, base: str) -> LinkInfo | None:
    """The link that a pin holds; None where there is none."""
    try:
        fd = open_link(pin.path(base))
    except BpfError:
        return None
    with Owned(fd):
        return link_info(fd)
