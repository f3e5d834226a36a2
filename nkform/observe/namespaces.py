"""What one namespace holds, read in three dumps. The thread is in that namespace while it is read."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from nkform.dataclass import dataclass, field
from nkform.kernel import inet, inet_foreign, links
from nkform.kernel.descriptors import Owned
from nkform.kernel.error import KernelError, unless_gone
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces, get_nsid, nsid_of
from nkform.model import Address, Route, Taken
from nkform.namespace_key import ROOT
from nkform.observe.taken import Place, Slot, look, with_hops

OPEN_AT_ONCE = 256
LINKS_ONE_BY_ONE = 2
"""Routes of so many links are asked for link by link: each time the kernel goes through all routes there."""
LEADS_NOWHERE = (errno.ENOENT, errno.ESRCH, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EINVAL)
"""No such file or process; links that lead in a circle; a socket; or a file that is no network namespace (setns(2))."""
NOT_ALLOWED = (errno.EACCES, errno.EPERM)
"""It leads somewhere, where this process may not go: a process that it may not look into (ptrace(2)), or a namespace of
another user namespace (setns(2))."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contents:
    """Links by ifindex; addresses and routes by the ifindex of their link; by end, what others have in its place."""

    links: Mapping[int, links.Link] = field(default_factory=dict)
    addresses: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)
    routes: Mapping[int, tuple[Route, ...]] = field(default_factory=dict)
    taken: Mapping[Slot, Sequence[Taken]] = field(default_factory=dict)
    cookie: int = 0

    @property
    def alias(self) -> str:
        """The alias of `lo`, where a namespace carries its mark."""
        loopback = self.links.get(links.LOOPBACK)
        return loopback.alias if loopback else ""


Relevant = Callable[[Mapping[int, links.Link], Socket], tuple[Collection[int], Sequence[Place]]]
"""Says of a namespace's links (and may ask more on the socket there) whose addresses and routes matter, and which ends
a spec has there."""


def read(decoder: links.Decoder, relevant: Relevant) -> Contents:
    """Reads the namespace that the thread is in. Addresses and routes are not read where they matter of no link."""
    with Socket() as socket:
        known = {link.index: link for link in consistent_dump(partial(links.dump, decoder=decoder), socket)}
        indexes, places = relevant(known, socket)
        addresses: dict[int, tuple[Address, ...]] = {}
        routes: dict[int, tuple[Route, ...]] = {}
        if indexes:
            dumped = _grouped(inet_foreign.of_links(partial(inet.dump_addresses, among=indexes), socket, indexes))
            addresses = {index: _as_added(some) for index, some in dumped.items()}
            through, gone = _routes(socket, indexes)
            routes = _grouped(through)
            for index in gone:
                known.pop(index, None)
        if not places:
            return Contents(known, addresses, routes, cookie=socket.cookie())
        seen = look(socket, places, addresses, routes, {link.index: link.name for link in known.values()})
        return Contents(known, addresses, with_hops(routes, seen) if seen.hops else routes, seen.taken, socket.cookie())


def _as_added(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """Addresses of an end in the order in which they were added: of IPv6 the kernel lists the newest one first."""
    ipv6 = [address for address in addresses if ":" in address.text]
    return addresses if len(ipv6) < 2 else (*(a for a in addresses if ":" not in a.text), *reversed(ipv6))


def _routes(socket: Socket, indexes: Collection[int]) -> tuple[list[tuple[int, Route]], Collection[int]]:
    """Our routes through some links, and which of these have gone since.

    Of a workload's few, the kernel passes over what else it has there, with whatever number.
    """
    if len(indexes) > LINKS_ONE_BY_ONE:
        return [each for each in consistent_dump(inet.dump_routes, socket) if each[0] in indexes], ()
    found: list[tuple[int, Route]] = []
    present = set()
    for index in indexes:
        with unless_gone():
            found += consistent_dump(partial(inet.dump_routes, index=index), socket)
            present.add(index)
    return found, set(indexes) - present


def _grouped(pairs: Iterable[tuple[int, T]]) -> dict[int, tuple[T, ...]]:
    groups: dict[int, list[T]] = {}
    for index, item in pairs:
        groups.setdefault(index, []).append(item)
    return {index: tuple(items) for index, items in groups.items()}


def visit(namespaces: Namespaces, keys: Iterable[str], look: Callable[[str, bool], None]) -> dict[str, str]:
    """Enters one namespace after the other, and calls `look` there with its key and whether it is the root namespace.

    Keys that lead nowhere are passed over, and those that lead where this process may not go, which are returned, and
    those where something is too large for the kernel to tell of it, which comes with them.
    Raises KernelError, also where this process may enter no namespace at all, not even its own.
    """
    barred: dict[str, str] = {}
    with namespaces.away() as enter, namespaces.open(ROOT) as home:
        for key in keys:
            if ":" in key:  # /proc/self, or our own process, leads to where the thread is
                enter(home, ROOT)
            try:
                with Owned(namespaces.descriptor(key)) as fd:
                    is_root = namespaces.is_root(fd)
                    enter(fd, key)
            except KernelError as error:
                if error.errno in NOT_ALLOWED:
                    barred[key] = ""
                elif error.errno not in LEADS_NOWHERE:
                    raise
            else:
                try:
                    look(key, is_root)
                except KernelError as error:
                    if error.errno != errno.EMSGSIZE or is_root:
                        raise
                    barred[key] = str(error)
    return barred


def identify(namespaces: Namespaces, keys: Iterable[str]) -> dict[str, int | None]:
    """By what id the root namespace knows each namespace; None is the root namespace itself.

    Keys that lead nowhere are left out; -1 stands for one without an id, which no link leads to, and for one where this
    process may not go. The kernel goes through all ids for each of them (net/core/net_namespace.c, __peernet2id): ask
    for few.
    """
    todo = list(keys)
    found: dict[str, int | None] = {}
    with Socket() as socket:
        while todo:
            some, todo = todo[:OPEN_AT_ONCE], todo[OPEN_AT_ONCE:]
            with ExitStack() as stack:
                opened: list[tuple[str, int]] = []
                for key in some:
                    try:
                        opened.append((key, stack.enter_context(namespaces.open(key))))
                    except KernelError as error:
                        if error.errno in NOT_ALLOWED:
                            found[key] = -1
                        elif error.errno not in LEADS_NOWHERE:
                            raise
                outcomes, answers = socket.ask([get_nsid(fd) for _, fd in opened])
                for place, (key, fd) in enumerate(opened):
                    if outcomes[place] is not None:  # a file that is no namespace
                        continue
                    found[key] = None if namespaces.is_root(fd) else nsid_of(answers[place][0])
    return found
