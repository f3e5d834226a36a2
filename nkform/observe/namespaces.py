"""What one namespace holds, read in three dumps. The thread is in that namespace while it is read."""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TypeVar

from nkform.dataclass import dataclass, field
from nkform.kernel import inet, links
from nkform.kernel.netlink import S32, KernelError, Socket, walk, whole
from nkform.kernel.netns import NETNSA_NSID, Namespaces, get_nsid
from nkform.model import Address, Route

LOOPBACK = 1
"""The ifindex of `lo` in every namespace (include/linux/netdevice.h, LOOPBACK_IFINDEX)."""
OPEN_AT_ONCE = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Contents:
    """Links by ifindex; addresses and routes by the ifindex of their link."""

    links: Mapping[int, links.Link] = field(default_factory=dict)
    addresses: Mapping[int, tuple[Address, ...]] = field(default_factory=dict)
    routes: Mapping[int, tuple[Route, ...]] = field(default_factory=dict)

    @property
    def alias(self) -> str:
        """The alias of `lo`, where a namespace carries its mark."""
        loopback = self.links.get(LOOPBACK)
        return loopback.alias if loopback else ""


def read(buffer: bytearray, relevant: Callable[[Mapping[int, links.Link]], Collection[int]]) -> Contents:
    """Reads the namespace that the thread is in.

    `relevant` says of its links whose addresses and routes matter; if of none, these are not read.
    """
    with Socket(buffer) as socket:
        found = {link.index: link for link in whole(links.dump, socket)}
        indexes = relevant(found)
        if not indexes:
            return Contents(found)
        return Contents(found, _grouped(_addresses(socket, indexes)), _grouped(whole(inet.dump_routes, socket)))


def _addresses(socket: Socket, indexes: Collection[int]) -> list[tuple[int, Address]]:
    """The addresses of some links.

    Links that came up a moment ago are still being given addresses by the kernel, which interrupts a dump of all of
    them again and again. That of one link fits into one message, and nothing can come between.
    """
    try:
        return list(inet.dump_addresses(socket))
    except KernelError as error:
        if error.errno != errno.EINTR:
            raise
    found: list[tuple[int, Address]] = []
    for index in indexes:
        try:
            found += whole(partial(inet.dump_addresses, index=index), socket)
        except KernelError as error:
            if error.errno != errno.ENODEV:  # it has gone since
                raise
    return found


def _grouped(pairs: Iterable[tuple[int, T]]) -> dict[int, tuple[T, ...]]:
    found: dict[int, tuple[T, ...]] = {}
    for index, item in pairs:
        found[index] = (*found.get(index, ()), item)
    return found


def identify(namespaces: Namespaces, keys: Iterable[str]) -> dict[str, int | None]:
    """By what id the root namespace knows each namespace; None is the root namespace itself.

    Keys that lead nowhere are left out; -1 stands for one without an id, which no link leads to.
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
                        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.ENOTDIR):
                            raise
                outcomes, answers = socket.ask([get_nsid(fd) for _, fd in opened])
                for place, (key, fd) in enumerate(opened):
                    if outcomes[place] is not None:  # a file that is no namespace
                        continue
                    message = answers[place][0]
                    number = S32.unpack_from(walk(message.buffer, message.start + 4, message.end)[NETNSA_NSID])[0]
                    found[key] = None if namespaces.is_root(fd) else number
    return found
