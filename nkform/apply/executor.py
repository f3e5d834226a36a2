"""Carries actions out: each becomes kernel requests, sent many at a time and in order.

Consecutive actions in one namespace are one visit there. The kernel goes on after a request that failed, so a batch
ends before whatever must not happen then: raising a link, opening a policy.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import groupby
from typing import Protocol

from nkform.apply.expedite import Expedited
from nkform.dataclass import replace
from nkform.kernel import inet, links, sysctl
from nkform.kernel.netlink import KernelError, Request, Socket, whole
from nkform.kernel.netns import Namespaces
from nkform.kernel.sysfs import Interfaces
from nkform.model import ROOT, Attrs, Hook, Value, owner_of
from nkform.plan.actions import (
    Action,
    AddAddress,
    AddRoute,
    CarryRoutes,
    CreateNamespace,
    CreatePair,
    DeleteAddress,
    DeleteNamespace,
    DeletePair,
    DeleteRoute,
    End,
    MoveEnd,
    ReplaceRoute,
    SetChain,
    SetLink,
    SetMap,
    SetMark,
    SetPolicy,
    SetSysctl,
    Settle,
    SetUp,
    end_of,
    namespace_of,
)
from nkform.plan.grace import are_worth_it

PAIRS_AT_ONCE = 200
"""Each open peer namespace costs a file descriptor while a batch of pairs is made."""

AT_ONCE = ("create namespace", "create pair", "set chain")
"""Kinds of batches that take so long that each part of them is told of by itself."""
VISITS = ("visit", "move")
"""Kinds of batches that are carried out in the namespace that their actions name."""


class Steps(Protocol):
    """What is told of the steps of a run, and may stop it by raising."""

    group: int
    """The link group of devices that are not marked yet, and of those that are about to go."""

    def ahead(self, count: int) -> None:
        """So many more actions will be carried out now."""

    def done(self, action: Action) -> None:
        """An action took effect, wholly or in part; told in order, so that all can be undone."""

    def lent(self, namespace: str, interface: str, key: str, value: str) -> None:
        """A sysctl is about to change for the time of one request; its value until now."""


SETTLE_SECONDS = 4.0
"""How long a new end is waited for: looking for duplicates of a link-local address takes up to 2 s (RFC 4862, 5.4)."""
SETTLE_PAUSE = 0.005


class Chains(Protocol):
    """What attaches programs: nkform.apply.chains.Chains. It is not there where a plan has no programs."""

    def set(self, action: SetChain, indexes: tuple[int, int]) -> None: ...

    def fill(self, action: SetMap, index: int) -> None: ...

    def hold(self, device: str, hooks: Mapping[str, Hook]) -> None: ...

    def forget(self, device: str, hooks: Mapping[str, Hook]) -> None: ...


class Executor:
    """Carries out actions on behalf of a node, and tells `steps` of each."""

    def __init__(
        self,
        namespaces: Namespaces,
        node: str,
        steps: Steps,
        chains: Chains | None = None,
        expedited: Expedited | None = None,
    ) -> None:
        """`expedited` shortens what the kernel waits for while programs come and go; None: it waits as usual."""
        self._namespaces = namespaces
        self._node = node
        self._steps = steps
        self._done = steps.done
        self._chains = chains
        self._expedited = expedited or Expedited(None)
        self._decoder = links.Decoder()

    def run(self, actions: Sequence[Action]) -> None:
        with self._namespaces.away() as enter:
            self._run(actions, enter)

    def _run(self, actions: Sequence[Action], enter: Callable[[int, str], None]) -> None:
        """`enter` takes the thread to a namespace; from one to the next it need not come home in between."""
        for (kind, key), group in groupby(actions, lambda a: (_batch_kind(a), namespace_of(a))):
            some = tuple(group)
            if kind not in AT_ONCE:
                self._steps.ahead(len(some))
            where = key if kind in VISITS else ROOT
            with self._namespaces.open(where) as fd:
                enter(fd, where)
            match kind:
                case "create namespace":
                    self._create_namespaces(some)
                case "delete namespace":
                    self._delete_namespaces(some)
                case "create pair":
                    self._create_pairs([a for a in some if isinstance(a, CreatePair)])
                case "delete pair":
                    with self._expedited.during(are_worth_it(some)):
                        self._delete_pairs([a for a in some if isinstance(a, DeletePair)])
                case "set chain":
                    with self._expedited.during(are_worth_it(some)):
                        self._set_chains([a for a in some if isinstance(a, SetChain | SetMap)])
                case _:
                    self._visit(key, some)

    def _create_namespaces(self, actions: Sequence[Action]) -> None:
        request = links.claim_loopback(self._node)

        def inside() -> None:
            with Socket() as socket:
                _check(socket, [request])

        for action in actions:
            assert isinstance(action, CreateNamespace)
            self._steps.ahead(1)
            self._namespaces.create(action.name, inside)
            self._done(action)

    def _delete_namespaces(self, actions: Sequence[Action]) -> None:
        with self._namespaces.away() as enter:
            for action in actions:
                assert isinstance(action, DeleteNamespace)
                name = action.name
                with self._namespaces.open(name) as fd:
                    enter(fd, name)
                with Socket() as socket:
                    present = whole(partial(links.dump, decoder=self._decoder), socket)
                if others := [link.name for link in present if link.name != "lo"]:
                    raise KernelError(errno.ENOTEMPTY, f"delete namespace {name}, which holds {', '.join(others)}")
                self._namespaces.delete(name)
                self._done(action)

    def _create_pairs(self, actions: Sequence[CreatePair]) -> None:
        """Makes pairs; only those that are new get the mark, so that nothing of others ever does."""
        with Socket() as socket:
            for start in range(0, len(actions), PAIRS_AT_ONCE):
                some = actions[start : start + PAIRS_AT_ONCE]
                self._steps.ahead(len(some))
                with ExitStack() as stack:
                    requests = []
                    for action in some:
                        assert action.device.peer is not None
                        key = action.device.peer.namespace
                        fd = None if key == ROOT else stack.enter_context(self._namespaces.open(key))
                        requests.append(links.create(action.device, fd, self._steps.group))
                    outcomes, _ = socket.ask(requests)
                made = [action for action, outcome in zip(some, outcomes, strict=True) if outcome is None]
                for action in made:
                    self._done(action)
                _raise_first(outcomes)
                _check(socket, [links.claim(action.device.primary.name, self._node) for action in made])

    def _delete_pairs(self, actions: Sequence[DeletePair]) -> None:
        """Removes pairs together, through a group that they are put into for the purpose."""
        if self._chains:
            for action in actions:
                self._chains.hold(action.device.name, action.device.hooks)
        with Socket() as socket:
            present = {link.name: link for link in whole(links.dump, socket)}
            gone = []
            for action in actions:
                link = present.get(action.device.primary.name)
                if link is None:
                    raise KernelError(errno.ENODEV, f"delete {action.device.primary.name}")
                if owner_of(link.alias) not in (self._node, None):
                    raise KernelError(errno.EPERM, f"delete {link.name}, which now belongs to {owner_of(link.alias)}")
                gone.append(link)
            if len(gone) == 1:
                _check(socket, [links.delete(gone[0].index, gone[0].name)])
            else:
                self._delete_together(socket, gone, present.values())
        for action in actions:
            self._done(action)
            if self._chains:
                self._chains.forget(action.device.name, action.device.hooks)

    def _delete_together(self, socket: Socket, gone: Sequence[links.Link], present: Collection[links.Link]) -> None:
        group = self._steps.group
        going = {link.index for link in gone}  # those that never got the mark are in it already
        if any(link.group == group and link.index not in going for link in present):
            raise KernelError(errno.EEXIST, f"delete {len(gone)} devices through the group {group}, which is in use")
        try:
            _put_into(socket, gone, group)
            _check(socket, [links.delete_group(group)])
        except KernelError:
            socket.ask([links.set_group(link.index, link.name, link.group) for link in gone])
            raise

    def _set_chains(self, actions: Sequence[SetChain | SetMap]) -> None:
        """Programs attach through the primary, in the namespace nkform runs in."""
        assert self._chains is not None
        names = list(dict.fromkeys(action.device.primary.name for action in actions))
        with Socket() as socket:
            outcomes, answers = socket.ask([links.get(name) for name in names])
        _raise_first(outcomes)
        found = {name: links.decode(answers[place][0]) for place, name in enumerate(names)}
        for action in actions:
            link = found[action.device.primary.name]
            self._steps.ahead(1)
            if isinstance(action, SetChain) and action.heir_of.ours:
                self._chains.hold(action.device.name, {action.hook: action.heir_of})
            # Half a change of a chain or of a map is undone like a whole one.
            self._done(action)
            if isinstance(action, SetMap):
                self._chains.fill(action, link.index)
            else:
                self._chains.set(action, (link.index, link.link))

    def _visit(self, key: str, actions: Sequence[Action]) -> None:
        """The thread is in that namespace."""
        with Socket() as socket:
            _Visit(self._namespaces, self._node, key, socket, self._steps).run(actions)


class _Visit:
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
        _raise_first(outcomes)
        for place, name in enumerate(names):
            self._indexes[name] = links.index_of(answers[place][0])

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        outcomes, _ = self._socket.ask([request for _, request in pending])
        for (action, _), outcome in zip(pending, outcomes, strict=True):
            # A change of a link can fail half-way: it counts as done, so that undoing it restores all of it.
            if outcome is None or isinstance(action, SetLink | SetPolicy):
                self._done(action)
        _raise_first(outcomes)

    def _carry_out(self, action: Action) -> None:
        match action:
            case SetMark(_, name, marked):
                self._send(action, links.set_mark(name, self._node) if marked else links.set_alias(name, ""))
            case SetLink(end, _, after):
                self._send(action, links.change(end.name, after))
            case SetUp(end, up):
                self._send(action, links.change(end.name, {"up": up}))
            case SetPolicy(end, own, peer):
                self._send(action, links.change_data(end.name, _after(own), _after(peer)))
            case AddAddress(end, address, again):
                self._send(action, inet.add_address(self._indexes[end.name], end.name, address, replace=again))
            case DeleteAddress(end, address):
                self._flush()
                with _SiblingsKept(end.name, address.text, partial(self._steps.lent, self._key)):
                    self._send(action, inet.delete_address(self._indexes[end.name], end.name, address))
                    self._flush()
            case AddRoute(end, route, beside):
                self._send(action, inet.add_route(self._indexes[end.name], end.name, route, beside=beside))
            case ReplaceRoute(end, _, route):
                self._send(action, inet.replace_route(self._indexes[end.name], end.name, route))
            case DeleteRoute(end, route):
                self._send(action, inet.delete_route(self._indexes[end.name], end.name, route))
            case CarryRoutes(before, after):
                self._flush()
                self._done(action)  # half of it is undone like all of it
                self._carry_routes(before, after)
            case Settle(end):
                self._flush()
                self._settle(end)
                self._done(action)
            case SetSysctl(end, key, _, after):
                self._flush()
                if sysctl.read(end.name, key) != after:
                    sysctl.write(end.name, key, after)
                self._done(action)
            case MoveEnd(before, after):
                self._flush()
                if before.namespace == after.namespace:
                    self._rename(action)
                    self._indexes[after.name] = self._indexes[before.name]
                else:
                    with self._namespaces.open(after.namespace) as fd:
                        index = self._indexes[before.name]
                        where = after.namespace or "the namespace nkform runs in"
                        _check(self._socket, [links.move(index, before.name, after.name, fd, where)])
                self._done(action)
            case _:
                raise AssertionError(f"{type(action).__name__} is not carried out here")

    def _send(self, action: Action, request: Request) -> None:
        self._pending.append((action, request))

    def _carry_routes(self, before: End, after: End) -> None:
        """Each is there twice for a moment, and never not at all."""
        old, new = self._indexes[before.name], self._indexes[after.name]
        routes = whole(partial(inet.dump_foreign_routes, index=old), self._socket)
        _check(self._socket, [inet.add_foreign_route(route, new, after.name) for route in routes])
        _check(self._socket, [inet.delete_foreign_route(route, old, before.name) for route in routes])

    def _settle(self, end: End) -> None:
        """What does not settle in time is not waited for any longer: it costs a longer gap, and nothing else."""
        index = self._indexes[end.name]
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            outcomes, answers = self._socket.ask([links.get(end.name)])
            _raise_first(outcomes)
            if links.is_running(answers[0][0]):
                addresses = partial(inet.dump_tentative, index=index)
                if not whole(addresses, self._socket):
                    return
            time.sleep(SETTLE_PAUSE)

    def _rename(self, action: MoveEnd) -> None:
        """Renames a link; kernels before 6.2 do that only while it is down, which costs it addresses and routes."""
        before, after = action.before, action.after
        request = links.rename(self._indexes[before.name], before.name, after.name)
        outcomes, _ = self._socket.ask([request])
        if outcomes[0] is None:
            return
        if outcomes[0].errno != errno.EBUSY:
            raise outcomes[0]
        _check(
            self._socket,
            [links.change(before.name, {"up": False}), request, links.change(after.name, {"up": True})],
        )
        end = end_of(action.device, replace(before, name=after.name))
        index = self._indexes[before.name]
        _check(
            self._socket,
            [inet.add_address(index, end.name, address, replace=True) for address in before.addresses if address.ours]
            + [inet.add_route(index, end.name, route) for route in before.routes],
        )


def _batch_kind(action: Action) -> str:
    match action:
        case CreateNamespace():
            return "create namespace"
        case DeleteNamespace():
            return "delete namespace"
        case CreatePair():
            return "create pair"
        case DeletePair():
            return "delete pair"
        case MoveEnd():
            return "move"
        case SetChain() | SetMap():
            return "set chain"
        case _:
            return "visit"


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
        case AddAddress(end) | DeleteAddress(end) | AddRoute(end) | ReplaceRoute(end) | DeleteRoute(end) | Settle(end):
            return (end.name,)
        case CarryRoutes(before, after):
            return before.name, after.name
        case MoveEnd(before):
            return (before.name,)
        case _:
            return ()


def _opens(action: object) -> bool:
    """Whether an action may let packets through, and so must not happen after one that failed."""
    return isinstance(action, SetPolicy) or (isinstance(action, SetUp) and action.up)


def _after(values: Mapping[str, tuple[Value | None, Value]]) -> Attrs:
    return {name: after for name, (_, after) in values.items()}


class _SiblingsKept:
    """While an IPv4 address is removed, the others of its subnet stay, which by default they do not (ip-sysctl)."""

    KEY = "ipv4.promote_secondaries"

    def __init__(self, interface: str, address: str, lent: Callable[[str, str, str], None]) -> None:
        self._interface = interface
        self._lent = lent
        self._needed = ":" not in address and sysctl.read(interface, self.KEY) == "0"

    def __enter__(self) -> None:
        if self._needed:
            self._lent(self._interface, self.KEY, "0")
            sysctl.write(self._interface, self.KEY, "1")

    def __exit__(self, *_: object) -> None:
        if self._needed:
            sysctl.write(self._interface, self.KEY, "0")


def give_back(lent: Iterable[tuple[str, str, str, str]], namespaces: Namespaces) -> list[KernelError]:
    """Gives sysctls that were lent (apply/journal.py) their values again; what could not be done."""
    failed = []
    for namespace, interface, key, value in lent:
        try:
            with namespaces.open(namespace) as fd, namespaces.entered(fd, namespace):
                if sysctl.read(interface, key) != value:
                    sysctl.write(interface, key, value)
        except KernelError as error:
            if error.errno != errno.ENOENT:  # it has gone, and the sysctl with it
                failed.append(error)
    return failed


def _put_into(socket: Socket, some: Sequence[links.Link], group: int) -> None:
    """Puts links into a group, in silence where that can be. Raises KernelError; some may then be in it."""
    try:
        with Interfaces() as interfaces:
            for link in some:
                interfaces.set_group(link.index, link.name, group)
    except KernelError:  # no sysfs for us here, or one has a new name: rtnetlink says what is wrong, if anything is
        _check(socket, [links.set_group(link.index, link.name, group) for link in some])


def _raise_first(outcomes: Sequence[KernelError | None]) -> None:
    for outcome in outcomes:
        if outcome is not None:
            raise outcome


def _check(socket: Socket, requests: Sequence[Request]) -> None:
    """Sends requests that belong together; raises the first KernelError."""
    outcomes, _ = socket.ask(requests)
    _raise_first(outcomes)
