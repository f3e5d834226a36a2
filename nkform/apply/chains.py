"""Carries out changes of chains. What replaces something is attached before what it replaces goes.

Programs that go are held open until the transaction is over, so that undoing it can attach them again as they were,
with their maps.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from nkform.bpf.loader import Loaded
from nkform.kernel import bpf, bpf_links, bpffs
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_links import AttachType
from nkform.kernel.bpf_maps import map_info
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.clsact import Direction, Tc
from nkform.kernel.netlink import KernelError
from nkform.model import After, Attached, Before, Chain, Device, First, Hook, Last, Program
from nkform.observe.chains import DIRECTIONS, TYPES, entry_name, filter_name, read_filters, read_links, read_pins
from nkform.plan import chains as plan
from nkform.plan.actions import SetChain

T = TypeVar("T")

Loader = Callable[[bool], int]
"""Loads a program, alone or shared with other hooks; the file descriptor is the caller's."""


class Programs(Protocol):
    """What loads programs: nkform.bpf.programs.Programs."""

    def load(
        self,
        device: Device,
        hook: str,
        program: Program,
        maps: Mapping[str, int],
        indexes: tuple[int, int],
        *,
        alone: bool,
    ) -> Loaded: ...


class Way(Protocol):
    """How programs are attached at a hook. Places are link ids or priorities; all methods raise KernelError."""

    def attach(self, fd: int, position: bpf_links.Position, program: Program) -> int: ...

    def update(self, fd: int, entry: Attached, program: Program) -> None: ...

    def detach(self, entry: Attached) -> None: ...


class Chains:
    """Attaches programs on behalf of a node. Close it: until then all programs that went are held."""

    def __init__(self, node: str, programs: Programs | None, base: str = bpffs.BASE) -> None:
        self._node = node
        self._programs = programs
        self._base = base
        self._held: dict[tuple[str, str, str, str], int] = {}
        if not bpffs.is_mounted(base):
            bpffs.mount(base)

    def close(self) -> None:
        for fd in self._held.values():
            os.close(fd)
        self._held = {}

    def __enter__(self) -> Chains:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def hold(self, device: str, hooks: Mapping[str, Hook]) -> None:
        """Keeps our programs of a device alive whatever becomes of the device."""
        for hook, found in hooks.items():
            for entry in found.ours:
                self._hold(device, hook, entry)

    def sweep(self) -> None:
        """Removes pins of links whose devices have gone without us."""
        for pin in list(bpffs.pins(self._node, self._base)):
            link = bpf_links.open_link(pin.path(self._base))
            try:
                gone = bpf_links.link_info(link).ifindex == 0
            finally:
                os.close(link)
            if gone:
                bpffs.remove(pin, self._base)

    def forget(self, device: str, hooks: Mapping[str, Hook]) -> None:
        """Removes the pins of a device that is gone: its links lead nowhere now."""
        for hook, found in hooks.items():
            for entry in found.linked:
                if entry.ours:
                    name = entry_name(entry.name, entry.digest, entry.place)
                    bpffs.remove(bpffs.Pin(self._node, device, hook, name), self._base)

    def set(self, action: SetChain, indexes: tuple[int, int]) -> None:
        """Makes a hook run exactly the chain. Raises KernelError (ESTALE: it is not as planned for), NkformError.

        From one way of attachment to the other the new chain is complete before the old one goes: never a gap.
        """
        device, hook = action.device, action.hook
        attach_type = TYPES[device.kind, hook]
        direction = DIRECTIONS.get(attach_type)
        now = read_links(indexes[0], attach_type, read_pins(self._node, self._base).get((device.name, hook), {}))
        if action.revision and now.revision != action.revision:
            asked = f"change the chain {hook} of {device.name}"
            raise KernelError(errno.ESTALE, asked, "somebody changed it since the plan was made")
        links = Links(bpffs.Pin(self._node, device.name, hook, ""), indexes[0], attach_type, self._base)
        if direction is None or not (action.legacy or action.filters):
            self._change(action, links, now.linked, action.after, indexes)
            return
        with Tc() as tc:
            filters = Filters(tc, self._node, indexes[0], direction)
            present = read_filters(indexes[0], direction, self._node)
            if action.legacy:
                tc.ensure(indexes[0])
                self._change(action, filters, present, action.after, indexes)
                self._change(action, links, now.linked, Chain(), indexes)
            else:
                self._change(action, links, now.linked, action.after, indexes)
                self._change(action, filters, present, Chain(), indexes)
            tc.release(indexes[0])

    def _change(
        self, action: SetChain, way: Way, present: Sequence[Attached], chain: Chain, indexes: tuple[int, int]
    ) -> None:
        """From the programs of ours that are attached one way to those of a chain."""
        device, hook = action.device, action.hook
        ours = [entry for entry in present if entry.ours]
        for entry in ours:
            self._hold(device.name, hook, entry)
        moved = bool(chain.programs) and plan.misplaced(present, chain.position)
        places: dict[int, int] = {}
        if not moved:
            kept = plan.kept([entry.name for entry in ours], [program.name for program in chain.programs])
            places = {number: ours[place].place for place, number in kept.items()}
        running = {entry.program_id for entry in present}

        def load(program: Program, old: Attached | None) -> Loader:
            return lambda alone: self._load(device, hook, program, old, running, indexes, alone)

        for step in plan.steps(ours, chain, moved=moved):
            match step:
                case plan.Attach(number, after, before):
                    program = chain.programs[number]
                    old = next((entry for entry in ours if entry.name == program.name), None)
                    if after is not None:
                        position: bpf_links.Position = bpf_links.After(link_id=places[after])
                    elif before is not None:
                        position = bpf_links.Before(link_id=before)
                    else:
                        position = _outer(chain, present)
                    places[number] = _unshared(
                        load(program, old), partial(way.attach, position=position, program=program)
                    )
                case plan.Update(number, entry):
                    program = chain.programs[number]
                    _unshared(load(program, entry), partial(way.update, entry=entry, program=program))
                case plan.Detach(entry):
                    way.detach(entry)

    def _hold(self, device: str, hook: str, entry: Attached) -> None:
        key = (device, hook, entry.name, entry.digest)
        if key not in self._held:
            self._held[key] = bpf.prog_fd(entry.program_id)

    def _load(
        self,
        device: Device,
        hook: str,
        program: Program,
        old: Attached | None,
        running: Collection[int],
        indexes: tuple[int, int],
        alone: bool,
    ) -> int:
        """A file descriptor of a program: the very one that was there before, or a new one with what maps still fit."""
        held = self._held.get((device.name, hook, program.name, program.digest))
        if held is not None and prog_info(held).id not in running:
            return os.dup(held)
        if self._programs is None:
            raise KernelError(errno.ENOENT, f"find the program {program.name} of {device.name}")
        source = old.program_id if old else self._predecessor(device.name, hook, program.name)
        maps = _maps_of(source) if source else {}
        try:
            with self._programs.load(device, hook, program, maps, indexes, alone=alone or old is not None) as loaded:
                return os.dup(loaded.prog_fd)
        finally:
            for fd in maps.values():
                os.close(fd)

    def _predecessor(self, device: str, hook: str, name: str) -> int:
        """The program of that name that went in this transaction, on a device that is replaced; 0 if there was none."""
        for (its_device, its_hook, its_name, _), fd in self._held.items():
            if (its_device, its_hook, its_name) == (device, hook, name):
                return prog_info(fd).id
        return 0


def _unshared(load: Loader, use: Callable[[int], T]) -> T:
    """Uses a program that may be shared with other hooks; where it stands in this chain already, a copy of its own."""
    for alone in (False, True):
        fd = load(alone)
        try:
            return use(fd)
        except BpfError as error:
            if error.errno != errno.EEXIST or alone:
                raise
        finally:
            os.close(fd)
    raise AssertionError("unreachable")


class Links:
    """The way of links: tcx and netkit. Each is pinned; a link without its pin would be gone with this process."""

    def __init__(self, pin: bpffs.Pin, index: int, attach_type: AttachType, base: str) -> None:
        self._where = pin
        self._index = index
        self._attach_type = attach_type
        self._base = base

    def attach(self, fd: int, position: bpf_links.Position, program: Program) -> int:
        link = bpf_links.link_create(fd, self._index, self._attach_type, position)
        try:
            number = bpf_links.link_info(link).id
            bpf.pin(link, bpffs.prepare(self._pin(program.name, program.digest, number), self._base))
        finally:
            os.close(link)
        return number

    def update(self, fd: int, entry: Attached, program: Program) -> None:
        """A crash between the two steps leaves a pin with the old digest, which the next plan updates again."""
        old = self._pin(entry.name, entry.digest, entry.place)
        link = bpf_links.open_link(old.path(self._base))
        try:
            bpf_links.link_update(link, fd)
        finally:
            os.close(link)
        bpffs.rename(old, self._pin(program.name, program.digest, entry.place), self._base)

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

    def attach(self, fd: int, position: bpf_links.Position, program: Program) -> int:
        return self._tc.filter_create(fd, self._index, self._direction, position, name=self._name(program))

    def update(self, fd: int, entry: Attached, program: Program) -> None:
        self._tc.filter_update(self._index, self._direction, entry.place, fd, name=self._name(program))

    def detach(self, entry: Attached) -> None:
        self._tc.filter_detach(self._index, self._direction, entry.place)

    def _name(self, program: Program) -> str:
        return filter_name(self._node, program.name, program.digest)


def _outer(chain: Chain, present: Sequence[Attached]) -> bpf_links.Position:
    """Where a chain of which nothing is attached yet begins, among programs of others."""
    match chain.position:
        case First():
            return bpf_links.First()
        case Before(program):
            return bpf_links.Before(prog_id=_anchor(present, program))
        case After(program):
            return bpf_links.After(prog_id=_anchor(present, program))
        case Last() | None:
            return bpf_links.Last()


def _anchor(present: Sequence[Attached], program: str | int) -> int:
    place = plan.anchor_place(present, program)
    if place is None:
        raise KernelError(errno.ENOENT, f"attach beside the program {program}", "it is not at this hook any more")
    return present[place].program_id


def _maps_of(program: int) -> dict[str, int]:
    """The maps of a loaded program, by name."""
    fd = bpf.prog_fd(program)
    try:
        found = {}
        for number in prog_info(fd).map_ids:
            map_fd = bpf.map_fd(number)
            found[map_info(map_fd).name] = map_fd
        return found
    finally:
        os.close(fd)
