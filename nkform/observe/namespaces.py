"""What one namespace holds, read in three dumps. The thread is in that namespace while it is read."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from nkform.kernel import inet, links
from nkform.kernel.netlink import DUMP_TRIES, S32, KernelError, Socket, walk
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


def whole(dump: Callable[[Socket], Iterator[T]], socket: Socket) -> list[T]:
    """A dump that nothing changed under. Raises KernelError (EINTR) when the kernel never sits still."""
    for attempt in range(DUMP_TRIES):
        try:
            return list(dump(socket))
        except KernelError as error:
            if error.errno != errno.EINTR or attempt == DUMP_TRIES - 1:
                raise
    raise AssertionError("unreachable")


def read(buffer: bytearray, deep: Callable[[Mapping[int, links.Link]], bool]) -> Contents:
    """Reads the namespace that the thread is in; addresses and routes only if `deep` says so of its links."""
    with Socket(buffer) as socket:
        found = {link.index: link for link in whole(links.dump, socket)}
        if not deep(found):
            return Contents(found)
        return Contents(found, _grouped(whole(inet.dump_addresses, socket)), _grouped(whole(inet.dump_routes, socket)))


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
