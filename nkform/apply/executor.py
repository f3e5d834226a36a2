"""Carries actions out: each becomes kernel requests, sent many at a time and in order.

Consecutive actions in one namespace are one visit there. The kernel goes on after a request that failed, so a batch
ends before whatever must not happen then: raising a link, opening a policy.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from itertools import groupby
from typing import Protocol

from nkform.apply import held, owned
from nkform.apply.expedite import Expedited
from nkform.apply.visit import Steps, Visit, check, raise_first
from nkform.kernel import link_requests, links
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.kernel.sysfs import Interfaces
from nkform.model import Hook, owner_of
from nkform.namespace_key import ROOT
from nkform.observe.owned import read as owned_by
from nkform.plan.actions import (
    Action,
    CreateNamespace,
    CreatePair,
    DeleteNamespace,
    DeletePair,
    MoveEnd,
    SetChain,
    SetMap,
    namespace_of,
)
from nkform.plan.grace import are_worth_it

PAIRS_AT_ONCE = 200
"""Each open peer namespace costs a file descriptor while a batch of pairs is made."""

NAMESPACES_AT_ONCE = 64
"""So many are looked into, and then deleted side by side."""

AT_ONCE = ("create namespace", "create pair", "set chain")
"""Kinds of batches that take so long that each part of them is told of by itself."""
VISITS = ("visit", "move")
"""Kinds of batches that are carried out in the namespace that their actions name."""


class Chains(Protocol):
    """What attaches programs: nkform.apply.chains.Chains. It is not there where a plan has no programs."""

    def loading(self, actions: Iterable[SetChain]) -> AbstractContextManager[object]: ...

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
        cookies: dict[str, int] | None = None,
    ) -> None:
        """`expedited` shortens what the kernel waits for while programs come and go; None: it waits as usual.

        `cookies` are the numbers of the namespaces that were there when the plan was made, by their keys: nothing is
        done in another one that has taken over a name. Those that are made or removed are kept account of.
        """
        self._namespaces = namespaces
        self._node = node
        self._steps = steps
        self._done = steps.done
        self._chains = chains
        self._expedited = expedited or Expedited(None)
        self._cookies = {} if cookies is None else cookies
        self._decoder = links.Decoder()
        self.deleted: set[str] = set()
        """Namespaces."""
        self.left: dict[str, list[str]] = {}
        """Namespaces that were to be deleted, and the devices that others have there by now."""

    def run(self, actions: Sequence[Action]) -> None:
        chains = [action for action in actions if isinstance(action, SetChain)]
        loading = self._chains.loading(chains) if self._chains and chains else nullcontext()
        with loading, self._namespaces.away() as enter:
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
                    self._delete_namespaces([a for a in some if isinstance(a, DeleteNamespace)])
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
        request = link_requests.claim_loopback(self._node)

        with owned.Notes(self._node) as notes:

            def inside(name: str) -> None:
                with Socket() as socket:
                    check(socket, [request])
                    self._cookies[name] = socket.cookie()
                    notes.note(name, self._cookies[name])

            def known(name: str, cookie: int) -> None:
                with Socket() as socket:
                    if socket.cookie() != cookie:
                        raise KernelError(errno.ESTALE, f"create namespace {name}", "another one is held for it")
                self._cookies[name] = cookie
                notes.note(name, cookie)

            for action in actions:
                assert isinstance(action, CreateNamespace)
                self._steps.ahead(1)
                path = held.find(self._node, action.cookie)
                if path is None:
                    self._namespaces.create(action.name, partial(inside, action.name))
                else:
                    self._namespaces.create(action.name, partial(known, action.name, action.cookie), path)
                self._done(action)

    def _delete_namespaces(self, actions: Sequence[DeleteNamespace]) -> None:
        known = owned_by(self._node)
        for start in range(0, len(actions), NAMESPACES_AT_ONCE):
            some = actions[start : start + NAMESPACES_AT_ONCE]
            names = [action.name for action in some]
            with self._namespaces.away() as enter:
                for action in some:
                    with self._namespaces.open(action.name) as fd:
                        enter(fd, action.name)
                    if others := self._others(
                        action.name, {known.get(action.name), action.cookie or known.get(action.name)}
                    ):
                        self.left[action.name] = others
                        names.remove(action.name)
            some = [action for action in some if action.name in names]
            for action in some if self._steps.holds else ():
                held.hold(self._namespaces, self._node, action.name, action.cookie or known[action.name])
            outcomes = self._namespaces.delete_all(names)
            for action, outcome in zip(some, outcomes, strict=True):
                if outcome is None:
                    self._cookies.pop(action.name, None)
                    self.deleted.add(action.name)
                    self._done(action)
            with owned.Notes(self._node) as notes:
                notes.forget(name for name, outcome in zip(names, outcomes, strict=True) if outcome is None)
            raise_first(outcomes)

    def _others(self, name: str, cookies: Collection[int | None]) -> list[str]:
        """The devices in the namespace that the thread is in, for which it cannot be deleted: they came since it was
        planned. Raises KernelError (ESTALE) where it has not just this one number."""
        with Socket() as socket:
            if {socket.cookie()} != set(cookies):
                told = "that name leads to another namespace now, or it is not on record as nkform's"
                raise KernelError(errno.ESTALE, f"delete namespace {name}", told)
            present = consistent_dump(partial(links.dump, decoder=self._decoder), socket)
        return [link.name for link in present if not links.is_the_kernels(link)]

    def _create_pairs(self, actions: Sequence[CreatePair]) -> None:
        """Makes devices; only those that are new get the mark, so that nothing of others ever does."""
        with Socket() as socket:
            for start in range(0, len(actions), PAIRS_AT_ONCE):
                some = actions[start : start + PAIRS_AT_ONCE]
                self._steps.ahead(len(some))
                with ExitStack() as stack:
                    requests = []
                    for action in some:
                        key = action.device.peer.namespace if action.device.peer else ROOT
                        fd = None if key == ROOT else stack.enter_context(self._namespaces.open(key))
                        requests.append(link_requests.create(action.device, fd, self._steps.group))
                    outcomes, _ = socket.ask(requests)
                made = [action for action, outcome in zip(some, outcomes, strict=True) if outcome is None]
                for action in made:
                    self._done(action)
                raise_first(outcomes)
                check(socket, [link_requests.claim(action.device.primary.name, self._node) for action in made])

    def _delete_pairs(self, actions: Sequence[DeletePair]) -> None:
        """Removes devices together, through a group that they are put into for the purpose."""
        if self._chains:
            for action in actions:
                self._chains.hold(action.device.name, action.device.hooks)
        with Socket() as socket:
            present = {link.name: link for link in consistent_dump(links.dump, socket)}
            gone = []
            for action in actions:
                link = present.get(action.device.primary.name)
                if link is None:
                    raise KernelError(errno.ENODEV, f"delete {action.device.primary.name}")
                self._check_ours(action, link)
                gone.append(link)
            if len(gone) == 1:
                check(socket, [link_requests.delete(gone[0].index, gone[0].name)])
            else:
                self._delete_together(socket, gone, present.values())
        for action in actions:
            self._done(action)
            if self._chains:
                self._chains.forget(action.device.name, action.device.hooks)

    def _check_ours(self, action: DeletePair, link: links.Link) -> None:
        """Raises KernelError where a device is not the one that is to be deleted: not ours, or another of its name."""
        owner = owner_of(link.alias)
        if owner != self._node and (owner is not None or link.group != self._steps.group):
            whose = f"which now belongs to {owner}" if owner else "which does not carry nkform's mark"
            raise KernelError(errno.EPERM, f"delete {link.name}, {whose}")
        if action.device.index not in (0, link.index):
            raise KernelError(errno.ESTALE, f"delete {link.name}", "another device has that name now")

    def _delete_together(self, socket: Socket, gone: Sequence[links.Link], present: Collection[links.Link]) -> None:
        group = self._steps.group
        going = {link.index for link in gone}  # those that never got the mark are in it already
        if any(link.group == group and link.index not in going for link in present):
            raise KernelError(errno.EEXIST, f"delete {len(gone)} devices through the group {group}, which is in use")
        try:
            _put_into(socket, gone, group)
            check(socket, [link_requests.delete_group(group)])
        except KernelError:
            socket.ask([link_requests.set_group(link.index, link.name, link.group) for link in gone])
            raise

    def _set_chains(self, actions: Sequence[SetChain | SetMap]) -> None:
        """Programs attach through the primary, in the namespace nkform runs in."""
        assert self._chains is not None
        names = list(dict.fromkeys(action.device.primary.name for action in actions))
        with Socket() as socket:
            outcomes, answers = socket.ask([links.get(name) for name in names])
        raise_first(outcomes)
        decode = links.Decoder()
        found = {name: decode(answers[place][0]) for place, name in enumerate(names)}
        for action in actions:
            link = found[action.device.primary.name]
            self._steps.ahead(1)
            if action.device.traits.programs_only and action.device.index not in (0, link.index):
                raise KernelError(errno.ESTALE, f"attach programs to {link.name}", "another device has that name now")
            if isinstance(action, SetChain) and action.inherit_maps_from.ours:
                self._chains.hold(action.device.name, {action.hook: action.inherit_maps_from})
            # Half a change of a chain or of a map is undone like a whole one.
            self._done(action)
            if isinstance(action, SetMap):
                self._chains.fill(action, link.index)
            else:
                self._chains.set(action, (link.index, link.link))

    def _visit(self, key: str, actions: Sequence[Action]) -> None:
        """The thread is in that namespace."""
        with Socket() as socket:
            if self._cookies.get(key, 0) not in (0, socket.cookie()):
                raise KernelError(errno.ESTALE, f"work in namespace {key}", "that name leads to another namespace now")
            Visit(self._namespaces, self._node, key, socket, self._steps).run(actions)


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


def _put_into(socket: Socket, some: Sequence[links.Link], group: int) -> None:
    """Puts links into a group, in silence where that can be. Raises KernelError; some may then be in it."""
    try:
        with Interfaces() as interfaces:
            for link in some:
                interfaces.set_group(link.index, link.name, group)
    except KernelError:  # no sysfs for us here, or one has a new name: rtnetlink says what is wrong, if anything is
        check(socket, [link_requests.set_group(link.index, link.name, group) for link in some])
