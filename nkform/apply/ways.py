"""The two ways by which programs are attached at a hook: links of tcx and netkit, and filters of legacy tc."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

from nkform.dataclass import dataclass, replace
from nkform.kernel import bpf, bpf_links, bpffs
from nkform.kernel.bpf_links import AttachType
from nkform.kernel.clsact import PRIORITY_END, Direction, Tc
from nkform.model import Attached
from nkform.observe.chains import entry_name, filter_name, read_filters, read_links, read_pins


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program is attached, and as what."""

    position: bpf_links.Position
    name: str
    digest: str


class Way(Protocol):
    """How programs are attached at a hook. Places are link ids or priorities; all methods raise KernelError."""

    def present(self) -> tuple[Attached, ...]: ...

    def roomier(self, present: Sequence[Attached]) -> bpf_links.Position:
        """The side of what is ours that has more room, where places are numbers and the numbers between can run out."""

    def attach(self, fd: int, place: Place) -> int: ...

    def update(self, fd: int, entry: Attached, digest: str) -> None: ...

    def detach(self, entry: Attached) -> None: ...


class Links:
    """The way of links: tcx and netkit. Each is pinned; a link without its pin would be gone with this process."""

    def __init__(self, pin: bpffs.Pin, index: int, attach_type: AttachType, base: str) -> None:
        self._where = pin
        self._index = index
        self._attach_type = attach_type
        self._base = base

    def present(self) -> tuple[Attached, ...]:
        pins = read_pins(bpffs.pins_at(self._where.node, self._where.device, self._where.hook, self._base))
        return read_links(self._index, self._attach_type, pins.get((self._where.device, self._where.hook), {})).linked

    def roomier(self, present: Sequence[Attached]) -> bpf_links.Position:  # noqa: ARG002
        return bpf_links.Last()  # never asked for: links have no numbers to run out of

    def attach(self, fd: int, place: Place) -> int:
        link = bpf_links.link_create(fd, self._index, self._attach_type, place.position)
        try:
            number = bpf_links.link_info(link).id
            bpf.pin(link, bpffs.prepare(self._pin(place.name, place.digest, number), self._base))
        finally:
            os.close(link)
        return number

    def update(self, fd: int, entry: Attached, digest: str) -> None:
        """A crash between the two steps leaves a pin with the old digest, which the next plan updates again."""
        old = self._pin(entry.name, entry.digest, entry.place)
        link = bpf_links.open_link(old.path(self._base))
        try:
            bpf_links.link_update(link, fd)
        finally:
            os.close(link)
        bpffs.rename(old, self._pin(entry.name, digest, entry.place), self._base)

    def detach(self, entry: Attached) -> None:
        """Detached at once, whoever else may hold the link; then the pin goes."""
        pin = self._pin(entry.name, entry.digest, entry.place)
        link = bpf_links.open_link(pin.path(self._base))
        try:
            bpf_links.link_detach(link)
        finally:
            os.close(link)
        bpffs.remove(pin, self._base)

    def _pin(self, name: str, digest: str, link: int) -> bpffs.Pin:
        return replace(self._where, entry=entry_name(name, digest, link))


class Filters:
    """The way of legacy tc: filters of a clsact qdisc, whose priorities are their places."""

    def __init__(self, tc: Tc, node: str, index: int, direction: Direction) -> None:
        self._tc = tc
        self._node = node
        self._index = index
        self._direction = direction

    def present(self) -> tuple[Attached, ...]:
        return read_filters(self._index, self._direction, self._node)

    def ensure(self) -> None:
        self._tc.ensure(self._index)

    def release(self) -> None:
        self._tc.release(self._index)

    def roomier(self, present: Sequence[Attached]) -> bpf_links.Position:
        ours = [number for number, entry in enumerate(present) if entry.ours]
        numbers = [0, *(entry.place for entry in present), PRIORITY_END]
        before = numbers[ours[0] + 1] - numbers[ours[0]]
        after = numbers[ours[-1] + 2] - numbers[ours[-1] + 1]
        if before > after:
            return bpf_links.Before(link_id=present[ours[0]].place)
        return bpf_links.After(link_id=present[ours[-1]].place)

    def attach(self, fd: int, place: Place) -> int:
        said = filter_name(self._node, place.name, place.digest)
        return self._tc.filter_create(fd, self._index, self._direction, place.position, name=said)

    def update(self, fd: int, entry: Attached, digest: str) -> None:
        said = filter_name(self._node, entry.name, digest)
        self._tc.filter_update(self._index, self._direction, entry.place, fd, name=said)

    def detach(self, entry: Attached) -> None:
        self._tc.filter_detach(self._index, self._direction, entry.place)
