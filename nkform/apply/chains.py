"""Carries out changes of chains. What replaces something is attached before what it replaces goes.

Programs that go are held open until the transaction is over, so that undoing it can attach them again as they were,
with their maps and between the same programs of others. They are also pinned, below a folder of their own, so that
going back is possible when this process is gone.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Protocol, TypeVar

from nkform.apply.attach_backends import AttachBackend, Filters, Links, Place
from nkform.apply.maps import fill as set_entries
from nkform.apply.maps import refill
from nkform.apply.observed import Observed
from nkform.apply.pins import held_program, linked_at, pins_in_order
from nkform.apply.pins import remove as remove_pin
from nkform.bpf.loader import Loaded
from nkform.dataclass import replace
from nkform.kernel import bpf, bpf_links, bpffs, mounts
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_links import AttachType
from nkform.kernel.bpf_maps import maps_of
from nkform.kernel.bpf_programs import load_drop, prog_info
from nkform.kernel.clsact import Tc
from nkform.kernel.descriptors import Owned, close, duplicate
from nkform.kernel.error import KernelError
from nkform.kernel.netns import RUN
from nkform.model import STRANGER, Attached, Device, Explanation, Hook, Last, Node, Program
from nkform.numbers import IDS, decimal
from nkform.observe.chains import DIRECTIONS, TYPES, held_name, pin_name, read_filters, read_links
from nkform.observe.pins import Pinned
from nkform.plan import chains as plan
from nkform.plan.actions import (
    AfterEntry,
    AfterNew,
    Attach,
    Backend,
    BeforeClosing,
    BeforeEntry,
    Close,
    Detach,
    Entry,
    Open,
    SetChain,
    SetMap,
    Step,
    Update,
    Where,
)
from nkform.plan.chain_steps import anew
from nkform.plan.chains import CLOSING

if TYPE_CHECKING:
    from nkform.kernel.ahead import Ahead

T = TypeVar("T")

Loader = Callable[[bool], int]
"""Loads a program, alone or shared with other hooks; the file descriptor is the caller's."""

Coming = tuple[str, str, str]
"""A program that is to be attached: device, hook, name."""

AHEAD_FROM = 8
"""So many new programs are worth a thread that loads them ahead of their turn."""


class ProgramLoader(Protocol):
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

    def load_ahead(self, device: Device, hook: str, program: Program) -> Loaded | None: ...


class Chains:
    """Attaches programs on behalf of a node. Close it: until then all programs that went are held.

    `explained` is what is on record of programs that were only observed.
    """

    def __init__(
        self,
        node: str,
        programs: ProgramLoader | None,
        base: str = bpffs.BASE,
        explained: Iterable[Explanation] = (),
    ) -> None:
        self._node = node
        self._programs = programs
        self._base = base
        self._observed = Observed(explained)
        self._held: dict[tuple[str, str, str, str], list[int]] = {}
        self._by_id: dict[int, int] = {}
        self._gone: set[str] = set()
        self._returning = False
        self._ahead: Ahead[Coming, int] | None = None
        self._loading = threading.Lock()
        """Programs are compiled and loaded by one thread at a time."""
        if not bpffs.is_mounted(base):
            if mounts.are_outlived(str(RUN)):
                told = "this mount namespace, and all pins with it, would end with the command"
                raise KernelError(errno.EXDEV, f"mount a bpffs at {base}", told)
            bpffs.mount(base)

    def close(self) -> None:
        close(*self._by_id.values())
        self._held, self._by_id = {}, {}
        self._observed.close()

    def __enter__(self) -> Chains:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recall(self) -> None:
        """Takes up the programs that earlier runs held."""
        for pin in bpffs.pins(self._node, self._base, bpffs.HELD):
            if (parts := _parts(pin.entry)) is None:
                continue
            name, digest, number = parts
            if number not in self._by_id:
                if (fd := held_program(pin, number, self._base)) is None:
                    continue  # somebody has put another one there
                self._by_id[number] = fd
            self._keep((pin.device, pin.hook, name, digest), self._by_id[number])

    def turn_back(self) -> None:
        """What comes from now on is the way back."""
        self._returning = True

    def made_anew(self, devices: Iterable[str]) -> None:
        """These devices come back, with other ifindexes."""
        self._gone |= set(devices)

    def release(self, kept: Iterable[Device]) -> None:
        """Lets go of held programs but those that these devices, as observed, ran."""
        needed = {
            (device.name, hook, entry.program_id)
            for device in kept
            for hook, found in device.hooks.items()
            for entry in found.ours
        }
        for pin in list(bpffs.pins(self._node, self._base, bpffs.HELD)):
            parts = _parts(pin.entry)
            if parts and (pin.device, pin.hook, parts[2]) not in needed:
                bpffs.remove(pin, self._base)

    def hold(self, device: str, hooks: Mapping[str, Hook]) -> None:
        """Keeps our programs of a device alive, which is about to go."""
        self._gone.add(device)
        for hook, found in hooks.items():
            for entry in found.ours:
                self._hold(device, hook, entry)

    @contextmanager
    def loading(self, actions: Iterable[SetChain]) -> Iterator[None]:
        """Within the block, programs of hooks that ran none of ours are loaded ahead of their turn."""
        coming: dict[Coming, Callable[[], int | None]] = {}
        for action in actions if self._programs and not self._returning else ():
            device, hook = action.device, action.hook
            if not (action.before.ours or action.inherit_maps_from.ours or device.name in self._gone):
                for program in action.after.programs:
                    if program.template:
                        coming[device.name, hook, program.name] = partial(self._load_ahead, device, hook, program)
        if len(coming) < AHEAD_FROM:
            yield
            return
        from nkform.kernel.ahead import Ahead

        with Ahead(coming, close) as ahead:
            self._ahead = ahead
            try:
                yield
            finally:
                self._ahead = None

    def _load_ahead(self, device: Device, hook: str, program: Program) -> int | None:
        """A file descriptor of a program that takes nothing over; None if it must know more of its device."""
        assert self._programs is not None
        with self._loading:
            loaded = self._programs.load_ahead(device, hook, program)
        if loaded is None:
            return None
        with loaded:
            return duplicate(loaded.prog_fd)

    def sweep(self, live: Node | None = None, *, away: bool = False) -> list[bpffs.Pin]:
        """Removes pins of links that hold nothing: their devices have gone without us, or they were detached.

        `live`: the node as it was just observed; the links that its hooks run need no second look. `away`: of all other
        links too, whose devices somebody has moved to another namespace: they are detached. Returns the pins of these.
        """
        detached = []
        devices = live.devices.values() if live else ()
        attached = {
            pin_name(entry)
            for device in devices
            for hook in device.hooks.values()
            for entry in hook.linked
            if entry.ours
        }
        for pin in pins_in_order(self._node, self._base):
            if pin.entry in attached:
                continue
            try:
                link = bpf_links.open_link(pin.path(self._base))
            except BpfError as error:
                if error.errno in (errno.ENOENT, errno.EINVAL):  # somebody else was faster, or put something else there
                    continue
                raise
            with Owned(link):
                gone = bpf_links.link_info(link).ifindex == 0
                if away and not gone:
                    bpf_links.link_detach(link)
                    detached.append(pin)
            if gone or away:
                bpffs.remove(pin, self._base)
        return detached

    def forget(self, device: str, hooks: Mapping[str, Hook]) -> None:
        """Removes the pins of a device that is gone: its links lead nowhere now."""
        for hook, found in hooks.items():
            for entry in found.linked:
                if entry.ours:
                    remove_pin(bpffs.Pin(self._node, device, hook, pin_name(entry)), self._base)

    def set(self, action: SetChain, indexes: tuple[int, int]) -> None:
        """Takes the steps to a chain.

        Raises KernelError (ESTALE: the hook is not as planned for), NkformError. A clsact qdisc of ours stays as long
        as a pair does: the kernel stops a device that is up while one comes or goes (dev_deactivate in
        net/sched/sch_api.c, qdisc_graft), and what the device transmits at that moment is lost.
        """
        device, hook, index = action.device, action.hook, indexes[0]
        attach_type = TYPES[device.kind, hook]
        direction = DIRECTIONS.get(attach_type)
        now = self._read(device.name, hook, action.before, index, attach_type)
        links = Links(bpffs.Pin(self._node, device.name, hook, ""), index, attach_type, self._base)
        with ExitStack() as stack:
            backends: dict[Backend, AttachBackend] = {"link": links}
            filters: Filters | None = None
            if direction is not None and (action.backend == "tc" or action.before.legacy):
                filters = Filters(stack.enter_context(Tc()), self._node, index, direction)
                backends["tc"] = filters
                now = replace(now, filters=filters.present())
            _check_fresh(action, now, tc=filters is not None)
            self._check_pins(action, now)
            for entry in now.ours:
                self._hold(device.name, hook, entry)
            if filters is not None and action.backend == "tc":
                filters.ensure()
            self._take(_Change(action, now, indexes), backends)
            if filters is not None and device.traits.programs_only:
                filters.release()

    def _check_pins(self, action: SetChain, now: Hook) -> None:
        """Raises KernelError where programs of ours could be taken for those of others, and be attached twice."""
        known = {entry.place for entry in now.linked if entry.ours}
        planned = action.before.linked if action.revision is not None else ()
        strange = [entry.name for entry in planned if entry.ours and entry.place not in known]
        if strange:
            asked = f"change the chain {action.hook} of {action.device.name}"
            told = f"the pins of {', '.join(strange)} below {self._base} are gone: is another bpffs mounted over it?"
            raise KernelError(errno.ENOENT, asked, told)

    def fill(self, action: SetMap, index: int) -> None:
        """Makes a map of an attached program hold exactly what the action says. Raises KernelError (ESTALE)."""
        name, hook, wanted = action.device.name, action.hook, action.after.map
        attach_type = TYPES[action.device.kind, hook]
        now = self._read(name, hook, action.device.hooks.get(hook, Hook()), index, attach_type)
        if attach_type in DIRECTIONS:
            now = replace(now, filters=read_filters(index, DIRECTIONS[attach_type], self._node))
        found = [entry.program_id for entry in now.ours if entry.name == action.program]
        with ExitStack() as stack:
            maps = stack.enter_context(maps_of(found[0])) if len(found) == 1 else {}
            if wanted not in maps:
                asked = f"change the map {wanted} of {action.program} at {hook} of {name}"
                raise KernelError(errno.ESTALE, asked, "the program is not there as it was when the plan was made")
            set_entries(maps[wanted], action.before, action.after)

    def _read(self, device: str, hook: str, before: Hook, index: int, attach_type: AttachType) -> Hook:
        """The links at a hook. Pins of those that were attached when the device had another name go to its folder."""
        now = read_links(index, attach_type, partial(self._pinned, device, hook))
        known = {entry.place for entry in now.linked if entry.ours}
        astray = {pin_name(entry) for entry in before.linked if entry.ours and entry.place not in known}
        if not astray:
            return now
        for pin in [pin for pin in pins_in_order(self._node, self._base) if pin.entry in astray]:
            bpffs.rename(pin, replace(pin, device=device, hook=hook), self._base)
        return read_links(index, attach_type, partial(self._pinned, device, hook))

    def _pinned(self, device: str, hook: str) -> Pinned:
        """What we put at a hook, by link id."""
        return linked_at(bpffs.Pin(self._node, device, hook, ""), self._base)

    def _take(self, change: _Change, backends: Mapping[Backend, AttachBackend]) -> None:
        """Step after step."""
        action = change.action
        for backend, group in groupby(action.steps, _backend):
            steps = list(group)
            try:
                for step in steps:
                    self._step(change, step, backends[backend])
            except BpfError as error:
                present = backends[backend].present()
                moved = plan.misplaced(change.present(backend), action.after.position)
                # Beside what is ours there is room, but where a position is asked for that is another place.
                if error.errno != errno.ENOSPC or moved or not any(entry.ours for entry in present):
                    raise
                for step in anew(present, action.after, backend, backends[backend].roomier(present)):
                    self._step(change, step, backends[backend])

    def _step(self, change: _Change, step: Step, backend: AttachBackend) -> None:
        chain = change.action.after
        match step:
            case Attach(_, name, number, where):
                program = chain.programs[number]
                place = Place(change.position(where), name, program.digest)
                change.places[number] = _unshared(self._loader(change, step), partial(backend.attach, place=place))
            case Update(_, _, number, entry):
                digest = chain.programs[number].digest
                _unshared(self._loader(change, step), partial(backend.update, entry=entry, digest=digest))
            case Detach(_, entry):
                backend.detach(entry)
            case Close():
                with Owned(load_drop("closing")) as fd:
                    change.closing = backend.attach(fd, Place(Last(), CLOSING, "-"))
            case Open():
                for entry in backend.present():
                    if entry.place == change.closing:
                        backend.detach(entry)

    def _loader(self, change: _Change, step: Attach | Update) -> Loader:
        """What loads the program of a step, with what it takes over from the one of its name."""
        action, present = change.action, change.present(step.backend)
        program = action.after.programs[step.number]
        old = next((entry for entry in present if entry.ours and entry.name == program.name), None)
        running = {entry.program_id for entry in present}
        return lambda alone: self._load(action.device, action.hook, program, old, running, change.indexes, alone)

    def _hold(self, device: str, hook: str, entry: Attached) -> None:
        if entry.program_id not in self._by_id:
            self._by_id[entry.program_id] = bpf.prog_fd(entry.program_id)
        fd = self._by_id[entry.program_id]
        self._keep((device, hook, entry.name, entry.identity), fd)
        pin = bpffs.Pin(self._node, device, hook, held_name(entry), bpffs.HELD)
        if not bpffs.is_taken(pin, self._base):
            bpf.pin(fd, bpffs.prepare(pin, self._base))

    def _keep(self, what: tuple[str, str, str, str], fd: int) -> None:
        """Of one digest there may be several, whose maps hold different entries."""
        fds = self._held.setdefault(what, [])
        if fd not in fds:
            fds.append(fd)

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
        """A file descriptor of a program: the very one that was there before, or a new one with what maps still fit.

        Of a device that is made anew, a program that the spec declares is a new one if it can be, since programs know
        the ifindexes of their device. So is one whose maps the spec fills: the one that went keeps what they held, for
        going back. A program that was only observed is new where the one that is held knows ifindexes that are not
        those of its devices any more, and where none is held.
        """
        held = self._find_held(device.name, hook, program, running)
        if program.template:
            stale = self._programs is not None and (device.name in self._gone or program.contents)
        else:
            stale = self._observed.is_stale(device.name, hook, program, self._gone)
        if held is not None and not stale:
            refill(held, program.contents)
            return duplicate(held)
        load = self._programs.load if self._programs is not None and program.template else self._observed.load
        source = old.program_id if old else self._predecessor(device.name, hook, program.name)
        if old and old.strange:
            source = 0  # what somebody else put there hands nothing down
        with ExitStack() as stack:
            maps = stack.enter_context(maps_of(source)) if source else {}
            if self._ahead and not source and not alone:
                fd = self._ahead.take((device.name, hook, program.name))
                if fd is not None:
                    return fd
            with self._loading:
                loaded = load(device, hook, program, maps, indexes, alone=alone or old is not None)
            with loaded:
                return duplicate(loaded.prog_fd)

    def _find_held(self, device: str, hook: str, program: Program, running: Collection[int]) -> int | None:
        """A held program that does not run at the hook: the very one, if that is known, or any of its digest."""
        fds = self._held.get((device, hook, program.name, program.digest), ())
        free = {prog_info(fd).id: fd for fd in fds}
        free = {number: fd for number, fd in free.items() if number not in running}
        return free.get(program.program_id, next(iter(free.values()), None))

    def _predecessor(self, device: str, hook: str, name: str) -> int:
        """The program of that name that went in this transaction, on a device that is replaced; 0 if there was none."""
        for (its_device, its_hook, its_name, identity), fds in self._held.items():
            if (its_device, its_hook, its_name) == (device, hook, name) and STRANGER not in identity:
                return prog_info(fds[-1]).id
        return 0


class _Change:
    """A change of a chain under way: what the hook ran, and the places of what is attached by now."""

    def __init__(self, action: SetChain, now: Hook, indexes: tuple[int, int]) -> None:
        self.action = action
        self.indexes = indexes
        self.places: dict[int, int] = {}
        """Those of programs that were attached, by their numbers in the chain."""
        self.closing = 0
        self._now = now

    def present(self, backend: Backend) -> Sequence[Attached]:
        """What ran before, attached in one way."""
        return self._now.linked if backend == "link" else self._now.filters

    def position(self, where: Where) -> bpf_links.Position:
        """A place in the plan as one that the kernel knows."""
        match where:
            case AfterNew(number):
                return bpf_links.After(link_id=self.places[number])
            case BeforeClosing():
                return bpf_links.Before(link_id=self.closing)
            case BeforeEntry(Entry(place, program)):
                return bpf_links.Before(link_id=place) if place else bpf_links.Before(prog_id=program)
            case AfterEntry(Entry(place, program)):
                return bpf_links.After(link_id=place) if place else bpf_links.After(prog_id=program)
            case _:
                return where


def _backend(step: Step) -> Backend:
    return step.backend if isinstance(step, Attach | Update | Detach) else "link"


def _check_fresh(action: SetChain, now: Hook, *, tc: bool) -> None:
    """Raises KernelError (ESTALE) where a hook is not as it was when the plan was made."""
    filters = _bare(action.before.filters) if tc else ()
    if action.revision is not None and (now.revision, now.filters) != (action.revision, filters):
        asked = f"change the chain {action.hook} of {action.device.name}"
        raise KernelError(errno.ESTALE, asked, "somebody changed it since the plan was made")


def _parts(entry: str) -> tuple[str, str, int] | None:
    """Name, digest and id in the name of a held program's pin; None where it is none that nkform gave."""
    name, *parts = entry.rsplit("@", 2)
    number = decimal(parts[1], IDS) if len(parts) == 2 else None
    return None if number is None else (name, parts[0], number)


def _unshared(load: Loader, use: Callable[[int], T]) -> T:
    """Uses a program that may be shared with other hooks; where it stands in this chain already, a copy of its own."""
    for alone in (False, True):
        with Owned(load(alone)) as fd:
            try:
                return use(fd)
            except BpfError as error:
                if error.errno != errno.EEXIST or alone:
                    raise
    raise AssertionError("unreachable")


def _bare(entries: Sequence[Attached]) -> tuple[Attached, ...]:
    """Attached programs without what their maps hold, as looking at a hook alone finds them."""
    return tuple(replace(entry, contents={}) for entry in entries)
