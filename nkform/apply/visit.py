"""Carries out actions on links of one namespace, which the thread is in.

Requests go out together; a batch ends before whatever must not happen after one that failed.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from nkform.apply import owned
from nkform.apply.router_routes import RouterRoutes
from nkform.dataclass import replace
from nkform.device_sysctls import secret_first
from nkform.kernel import clock, devconf, inet, inet_foreign, link_requests, links, neighbours, sysctl
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Request, Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.model import Attrs, Master, Value, mark
from nkform.namespace_key import ROOT
from nkform.plan.actions import (
    Action,
    AddAddress,
    AddRoute,
    CarryNeighbours,
    CarryRoutes,
    DeleteAddress,
    DeleteRoute,
    End,
    MoveEnd,
    SetLink,
    SetMark,
    SetMaster,
    SetPolicy,
    SetSysctl,
    SetSysctls,
    SetUp,
    WaitForCarrier,
    end_of,
)

SETTLE_SECONDS = 4.0
"""How long a new end is waited for: looking for duplicates of a link-local address takes up to 2 s (RFC 4862, 5.4)."""
SETTLE_PAUSE, LONGEST_PAUSE = 0.005, 0.05
"""Seconds between two looks: at first, and at last, since that takes up to two seconds or no time at all."""


class Steps(Protocol):
    """What is told of the steps of a run, and may stop it by raising."""

    group: int
    """The link group of devices that are not marked yet, and of those that are about to go."""
    holds: bool
    """Whether what the run removes may be wanted again, by a way back."""

    def ahead(self, count: int) -> None:
        """So many more actions will be carried out now."""

    def done(self, action: Action) -> None:
        """An action took effect, wholly or in part; told in order, so that all can be undone."""

    def temporary(self, namespace: str, interface: str, key: str, value: str) -> None:
        """A sysctl is about to change for the time of one request; its value until now."""


class Visit:
    """Actions on links of one namespace, which the thread is in."""

    def __init__(self, namespaces: Namespaces, node: str, key: str, socket: Socket, steps: Steps) -> None:
        self._namespaces = namespaces
        self._node = node
        self._key = key
        self._socket = socket
        self._steps = steps
        self._done = steps.done
        self._pending: list[tuple[Action, Request]] = []
        self._indexes: dict[str, int] = {}
        self._shared = devconf.Shared()
        self._router_routes = RouterRoutes(socket, partial(steps.temporary, key))

    def run(self, actions: Sequence[Action]) -> None:
        self._look_up(_names_at_first(actions))
        before: object = None
        for action in actions:
            if _opens(action) and not (_opens(before) and type(before) is type(action)):
                self._flush()
            self._carry_out(action)
            before = action
        self._flush()

    def _look_up(self, names: Sequence[str]) -> None:
        outcomes, answers = self._socket.ask([links.get(name) for name in names])
        raise_first(outcomes)
        for place, name in enumerate(names):
            self._indexes[name] = links.index_of(answers[place][0])

    def _index(self, end: End) -> int:
        """The ifindex of an end: the one that it had when the plan was made, whatever has its name by now."""
        return end.index or self._indexes[end.name]

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        outcomes, _ = self._socket.ask([request for _, request in pending])
        for place, (action, _) in enumerate(pending):
            outcome = outcomes[place]
            if outcome is not None and (_is_so_already(action, outcome) or _is_of_others(action)):
                outcomes[place] = None
                continue
            # A change of a link can fail half-way: it counts as done, so that undoing it restores all of it.
            if outcome is None or isinstance(action, SetLink | SetPolicy):
                self._done(action)
        raise_first(outcomes)

    def _carry_out(self, action: Action) -> None:
        match action:
            case SetMark(key, name, marked, again, alias):
                self._send(action, link_requests.set_alias(name, mark(self._node) if marked else alias))
                if name == "lo" and key != ROOT and not again:
                    self._flush()  # on record is what is so: a mark that the kernel refused makes nothing ours
                    self._put_on_record(key, marked)
            case SetLink(end, _, after):
                self._send(action, link_requests.change(end.name, after, end.index))
            case SetUp(end, up):
                self._send(action, link_requests.change(end.name, {"up": up}, end.index))
            case SetPolicy(end, own, peer):
                self._send(action, link_requests.change_data(end.name, _after(own), _after(peer), end.index))
            case AddAddress(end, address, again):
                self._send(action, inet.add_address(self._index(end), end.name, address, replace=again))
            case DeleteAddress(end, address):
                self._flush()
                with _SiblingsKept(end.name, address.text, partial(self._steps.temporary, self._key)):
                    self._send(action, inet.delete_address(self._index(end), end.name, address))
                    self._flush()
            case AddRoute(end, route, beside, first):
                index = self._index(end)
                self._send(action, inet.add_route(index, end.name, route, beside=beside, first=first))
            case DeleteRoute(end, route):
                self._send(action, inet.delete_route(self._index(end), end.name, route))
            case _:
                self._flush()
                self._carry_out_alone(action)

    def _carry_out_alone(self, action: Action) -> None:
        """What is more than one request, or none."""
        match action:
            case CarryRoutes(before, after):
                self._done(action)  # half of it is undone like all of it
                self._carry_routes(before, after)
            case CarryNeighbours(before, after):
                self._carry_neighbours(before, after)
                self._done(action)
            case SetMaster(end, before, after):
                self._done(action)  # half of it is undone like all of it
                self._set_master(end, before, after)
            case WaitForCarrier(end):
                self._settle(end)
                self._done(action)
            case SetSysctl(end, key, _, after):
                self._check_name(end)
                if sysctl.read(end.name, key) != after:
                    self._write_sysctl(end.name, key, after)
                self._done(action)
            case SetSysctls(end, values):
                self._give_sysctls(end.name, values)
                self._done(action)
            case MoveEnd():
                self._move(action)
                self._done(action)
            case _:
                raise AssertionError(f"{type(action).__name__} is not carried out here")

    def _send(self, action: Action, request: Request) -> None:
        self._pending.append((action, request))

    def _check_name(self, end: End) -> None:
        """Raises KernelError (ESTALE) where another interface has an end's name: sysctls go by names."""
        if end.index:
            outcomes, answers = self._socket.ask([links.get(end.name)])
            raise_first(outcomes)
            if links.index_of(answers[0][0]) != end.index:
                raise KernelError(errno.ESTALE, f"set a sysctl of {end.name}", "another interface has that name now")

    def _put_on_record(self, name: str, ours: bool) -> None:
        with owned.Notes(self._node) as notes:
            if ours:
                notes.note(name, self._socket.cookie())
            else:
                notes.forget([name])

    def _carry_routes(self, before: End, after: End) -> None:
        """Each is there twice for a moment, and never not at all.

        What the new end cannot have goes with the old one: it is no reason to fail, which a workload could see to.
        Gateways must be reachable: by routes of others, which come first, and by addresses that are there for some time
        only. One that is reached by nothing any more is taken for reachable, as it was.
        """
        old, new = self._index(before), self._index(after)
        addresses = consistent_dump(partial(inet_foreign.dump_foreign_addresses, index=old), self._socket)
        bodies = [body for _, body in addresses]
        self._socket.ask([inet_foreign.add_foreign_address(body, new, after.name, relabelled=True) for body in bodies])
        far = inet_foreign.far_ends(bodies)
        made = consistent_dump(partial(inet_foreign.dump_far_end_routes, far=far, index=old), self._socket)
        self._socket.ask([inet_foreign.add_foreign_route(route, new, after.name) for route in made])
        routes = consistent_dump(partial(inet_foreign.dump_foreign_routes, index=old), self._socket)
        waiting = sorted(routes, key=inet_foreign.has_gateway)
        carried: list[bytes] = []
        for onlink in (False, True):
            progress = True
            while waiting and progress:
                requests = [inet_foreign.add_foreign_route(route, new, after.name, onlink=onlink) for route in waiting]
                outcomes, _ = self._socket.ask(requests)
                carried += [route for route, outcome in zip(waiting, outcomes, strict=True) if outcome is None]
                left = [route for route, outcome in zip(waiting, outcomes, strict=True) if outcome is not None]
                progress, waiting = len(left) < len(waiting), left
        self._socket.ask([inet_foreign.delete_foreign_route(route, old, before.name) for route in carried])

    def _carry_neighbours(self, before: End, after: End) -> None:
        """What the new end cannot have is no reason to fail: it is tried again when the run is done."""
        old, new = self._index(before), self._index(after)
        self._socket.ask([neighbours.add(entry, new, after.name) for _, entry in neighbours.made(self._socket, [old])])

    def _set_master(self, end: End, before: Master | None, after: Master | None) -> None:
        index = self._index(end)
        if after is None:
            check(self._socket, [link_requests.set_master(index, end.name, 0, before.name if before else "its master")])
            return
        outcomes, answers = self._socket.ask([links.get(after.name)])
        master = None if outcomes[0] else links.decode(answers[0][0])
        if master is not None and master.kind == after.kind:
            check(self._socket, [link_requests.set_master(index, end.name, master.index, after.name)])
            if after.options:  # a kernel that does not take all that another one told of keeps its own
                self._socket.ask([link_requests.set_port(index, end.name, after.options)])

    def _give_sysctls(self, name: str, values: Mapping[str, str]) -> None:
        """Looks twice: setting one may have changed another."""
        for _ in range(2):
            present: Mapping[str, str] = {}
            if len(values) > devconf.FILES_AT_MOST:
                outcomes, answers = self._socket.ask([links.get(name)])
                raise_first(outcomes)
                present = devconf.decode(answers[0][0], self._shared)
            wrong = {
                k: v for k, v in secret_first(values) if (present[k] if k in present else sysctl.read(name, k)) != v
            }
            for key, value in wrong.items():
                self._write_sysctl(name, key, value)
            if not wrong:
                break

    def _write_sysctl(self, name: str, key: str, value: str) -> None:
        with self._router_routes.kept(name, key, value):
            sysctl.write(name, key, value)

    def _settle(self, end: End) -> None:
        """What does not settle in time is not waited for any longer: it costs a longer gap, and nothing else."""
        index = self._index(end)
        deadline = clock.monotonic() + SETTLE_SECONDS
        pause = SETTLE_PAUSE
        while clock.monotonic() < deadline:
            outcomes, answers = self._socket.ask([links.get(end.name)])
            raise_first(outcomes)
            if links.is_running(answers[0][0]):
                addresses = partial(inet.dump_tentative, index=index)
                if not consistent_dump(addresses, self._socket):
                    return
            clock.pause(pause)
            pause = min(1.5 * pause, LONGEST_PAUSE)

    def _move(self, action: MoveEnd) -> None:
        before, after = action.before, action.after
        if before.index and self._indexes[before.name] != before.index:
            raise KernelError(errno.ESTALE, f"rename or move {before.name}", "another interface has that name now")
        if before.namespace == after.namespace:
            self._rename(action)
            self._indexes[after.name] = self._indexes[before.name]
            return
        with self._namespaces.open(after.namespace) as fd:
            index = self._indexes[before.name]
            where = after.namespace or "the namespace nkform runs in"
            check(self._socket, [link_requests.move(index, before.name, after.name, fd, where)])

    def _rename(self, action: MoveEnd) -> None:
        """Renames a link; kernels before 6.2 do that only while it is down, which costs it addresses and routes."""
        before, after = action.before, action.after
        request = link_requests.rename(self._indexes[before.name], before.name, after.name)
        outcomes, _ = self._socket.ask([request])
        if outcomes[0] is None:
            return
        if outcomes[0].errno != errno.EBUSY:
            raise outcomes[0]
        check(
            self._socket,
            [link_requests.change(before.name, {"up": False}), request, link_requests.change(after.name, {"up": True})],
        )
        end = end_of(action.device, replace(before, name=after.name))
        index = self._indexes[before.name]
        routes = sorted(before.routes, key=lambda route: route.via is not None)
        check(
            self._socket,
            [inet.add_address(index, end.name, address, replace=True) for address in before.addresses if address.ours]
            + [inet.add_route(index, end.name, route) for route in routes if route.ours],
        )


def _names_at_first(actions: Sequence[Action]) -> list[str]:
    """The names of links whose index is needed, but for those that come up on the way, by a new name."""
    names: dict[str, None] = {}
    given: set[str] = set()
    for action in actions:
        names.update(dict.fromkeys(name for name in _need_indexes(action) if name not in given))
        if isinstance(action, MoveEnd) and action.before.namespace == action.after.namespace:
            given.add(action.after.name)
    return list(names)


def _need_indexes(action: Action) -> tuple[str, ...]:
    match action:
        case (
            AddAddress(end)
            | DeleteAddress(end)
            | AddRoute(end)
            | DeleteRoute(end)
            | WaitForCarrier(end)
            | SetMaster(end)
        ):
            return () if end.index else (end.name,)
        case CarryRoutes(before, after) | CarryNeighbours(before, after):
            return tuple(end.name for end in (before, after) if not end.index)
        case MoveEnd(before):
            return (before.name,)
        case _:
            return ()


def _opens(action: object) -> bool:
    """Whether an action may let packets through, and so must not happen after one that failed."""
    return isinstance(action, SetPolicy) or (isinstance(action, SetUp) and action.up)


def _is_of_others(action: Action) -> bool:
    """Whether it gives others what they had. What they cannot have with the spec (IPv6 on a link that is too small for
    it) is no reason to fail, which a workload could see to; where all is to be as before, it is looked at again."""
    return isinstance(action, AddAddress) and not action.address.ours


def _is_so_already(action: Action, error: KernelError) -> bool:
    """Whether an action was refused because what it is for has come about by itself; then there is nothing to undo."""
    match action:
        case AddRoute(again=True):
            return error.errno == errno.EEXIST
        case DeleteRoute():
            return error.errno == errno.ESRCH
        case DeleteAddress():
            return error.errno == errno.EADDRNOTAVAIL
        case _:
            return False


def _after(values: Mapping[str, tuple[Value | None, Value]]) -> Attrs:
    return {name: after for name, (_, after) in values.items()}


class _SiblingsKept:
    """While an IPv4 address is removed, the others of its subnet stay, which by default they do not (ip-sysctl)."""

    KEY = "ipv4.promote_secondaries"

    def __init__(self, interface: str, address: str, temporary: Callable[[str, str, str], None]) -> None:
        self._interface = interface
        self._temporary = temporary
        self._needed = ":" not in address and sysctl.read(interface, self.KEY) == "0"

    def __enter__(self) -> None:
        if self._needed:
            self._temporary(self._interface, self.KEY, "0")
            sysctl.write(self._interface, self.KEY, "1")

    def __exit__(self, *_: object) -> None:
        if self._needed:
            sysctl.write(self._interface, self.KEY, "0")


def restore_settings(temporary: Iterable[tuple[str, str, str, str]], namespaces: Namespaces) -> list[KernelError]:
    """Gives sysctls that were to change for a moment (apply/journal.py) their values again; what could not be done."""
    failed = []
    for namespace, interface, key, value in temporary:
        try:
            with namespaces.open(namespace) as fd, namespaces.entered(fd, namespace):
                if sysctl.read(interface, key) != value:
                    sysctl.write(interface, key, value)
        except KernelError as error:
            if error.errno != errno.ENOENT:  # it has gone, and the sysctl with it
                failed.append(error)
    return failed


def raise_first(outcomes: Sequence[KernelError | None]) -> None:
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


def check(socket: Socket, requests: Sequence[Request]) -> None:
    """Sends requests that belong together; raises the first KernelError."""
    outcomes, _ = socket.ask(requests)
    raise_first(outcomes)
