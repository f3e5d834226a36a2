"""The two ways by which programs are attached at a hook: links of tcx and netkit, and filters of legacy tc."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Protocol

from nkform.apply.pins import linked_at
from nkform.dataclass import dataclass, replace
from nkform.kernel import bpf, bpf_links, bpffs
from nkform.kernel.bpf_links import AttachType
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.clsact import PRIORITY_END, Direction, Tc
from nkform.kernel.descriptors import Owned, close
from nkform.kernel.error import KernelError
from nkform.model import Attached, Last
from nkform.observe.chains import filter_name, pin_name, read_filters, read_links
from nkform.observe.pins import entry_name
from nkform.plan.actions import AfterEntry, BeforeEntry, Entry, Where


@dataclass(frozen=True, slots=True)
class Place:
    """Where a program is attached, and as what."""

    position: bpf_links.Position
    name: str
    digest: str


class AttachBackend(Protocol):
    """How programs are attached at a hook. Places are link ids or priorities; all methods raise KernelError."""

    def present(self) -> tuple[Attached, ...]: ...

    def roomier(self, present: Sequence[Attached]) -> Where:
        """The side of what is ours that has more room, where places are numbers and the numbers between can run out."""

    def attach(self, fd: int, place: Place) -> int: ...

    def update(self, fd: int, entry: Attached, digest: str) -> None:
        """Puts a program in the place of an attached one."""

    def detach(self, entry: Attached) -> None: ...


class Links:
    """The way of links: tcx and netkit. Each is pinned; a link without its pin would be gone with this process."""

    def __init__(self, pin: bpffs.Pin, index: int, attach_type: AttachType, base: str) -> None:
        self._where = pin
        self._index = index
        self._attach_type = attach_type
        self._base = base

    def present(self) -> tuple[Attached, ...]:
        return read_links(self._index, self._attach_type, linked_at(self._where, self._base)).linked

    def roomier(self, present: Sequence[Attached]) -> Where:  # noqa: ARG002
        return Last()  # never asked for: links have no numbers to run out of

    def attach(self, fd: int, place: Place) -> int:
        with Owned(bpf_links.link_create(fd, self._index, self._attach_type, place.position)) as link:
            made = bpf_links.link_info(link)
            said = entry_name(place.name, place.digest, made.id, made.prog_id)
            bpf.pin(link, bpffs.prepare(self._pin(said), self._base))
        return made.id

    def update(self, fd: int, entry: Attached, digest: str) -> None:
        """A crash between the two steps leaves a pin with the old program's id, so that the next plan updates again."""
        old = self._pin(pin_name(entry))
        with Owned(self._open(entry, old)) as link:
            bpf_links.link_update(link, fd)
            number = bpf_links.link_info(link).prog_id
        bpffs.rename(old, self._pin(entry_name(entry.name, digest, entry.place, number)), self._base)

    def detach(self, entry: Attached) -> None:
        """Detached at once, whoever else may hold the link; then the pin goes."""
        pin = self._pin(pin_name(entry))
        with Owned(self._open(entry, pin)) as link:
            bpf_links.link_detach(link)
        bpffs.remove(pin, self._base)

    def _open(self, entry: Attached, pin: bpffs.Pin) -> int:
        """The link of an attached program; the ids say that it is that one, since they are given once.

        Raises KernelError (ESTALE: the pin holds another one).
        """
        path = pin.path(self._base)
        fd = bpf_links.open_link(path)
        found = bpf_links.link_info(fd)
        if (found.id, found.prog_id) == (entry.place, entry.program_id):
            return fd
        close(fd)
        told = (
            f"the pin {path} holds link {found.id} with program {found.prog_id} instead of link {entry.place} with "
            f"program {entry.program_id}: put the right one there, or remove the pin"
        )
        raise KernelError(errno.ESTALE, f"change program {entry.name} of {pin.device} {pin.hook}", told)

    def _pin(self, said: str) -> bpffs.Pin:
        return replace(self._where, entry=said)


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

    def roomier(self, present: Sequence[Attached]) -> Where:
        ours = [number for number, entry in enumerate(present) if entry.ours]
        numbers = [0, *(entry.place for entry in present), PRIORITY_END]
        before = numbers[ours[0] + 1] - numbers[ours[0]]
        after = numbers[ours[-1] + 2] - numbers[ours[-1] + 1]
        if before > after:
            return BeforeEntry(Entry(present[ours[0]].place))
        return AfterEntry(Entry(present[ours[-1]].place))

    def attach(self, fd: int, place: Place) -> int:
        said = filter_name(self._node, place.name, place.digest, prog_info(fd).id)
        return self._tc.filter_create(fd, self._index, self._direction, place.position, name=said)

    def update(self, fd: int, entry: Attached, digest: str) -> None:
        said = filter_name(self._node, entry.name, digest, prog_info(fd).id)
        self._tc.filter_update(self._index, self._direction, entry.place, fd, name=said)

    def detach(self, entry: Attached) -> None:
        self._tc.filter_detach(self._index, self._direction, entry.place)
