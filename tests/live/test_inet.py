"""Addresses of links that the kernel is still at work on: a dump of all is interrupted, that of one is not."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from nkform.kernel import inet, inet_foreign
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket
from nkform.model import Address
from tests.live.helpers.support import ip, link


def busy(socket: Socket, index: int = 0) -> Iterator[tuple[int, Address]]:
    """A dump of addresses as it is where links come up all the time."""
    if not index:
        raise KernelError(errno.EINTR, "list the addresses")
    return inet.dump_addresses(socket, index=index)


@pytest.fixture
def indexes() -> list[int]:
    """Of v0 and v1, which have an address each."""
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("addr", "add", "192.0.2.1/32", "dev", "v0")
    ip("addr", "add", "192.0.2.2/32", "dev", "v1")
    return sorted([link("v0")["ifindex"], link("v1")["ifindex"]])


def test_addresses_are_asked_for_link_by_link_where_a_dump_of_all_is_interrupted(indexes: list[int]) -> None:
    with Socket() as socket:
        assert inet_foreign.of_links(busy, socket, indexes) == list(inet.dump_addresses(socket, among=set(indexes)))
        second = [each for each in inet.dump_addresses(socket) if each[0] == indexes[1]]
        assert len(second) == 1
        assert inet_foreign.of_links(busy, socket, [indexes[1]]) == second
        assert inet_foreign.of_links(busy, socket, [max(indexes) + 1]) == []  # one that went


def test_addresses_of_others_on_one_link_can_be_asked_for(indexes: list[int]) -> None:
    with Socket() as socket:
        both = [each for each in inet_foreign.dump_foreign_addresses(socket) if each[0] in indexes]
        assert [index for index, _ in both] == indexes
        assert list(inet_foreign.dump_foreign_addresses(socket, index=indexes[1])) == both[1:]


def test_what_else_is_wrong_with_a_dump_is_told() -> None:
    def broken(_: Socket, index: int = 0) -> Iterator[tuple[int, Address]]:
        raise KernelError(errno.ENOMEM, "list the addresses")

    with Socket() as socket, pytest.raises(KernelError):
        inet_foreign.of_links(broken, socket, [1])
