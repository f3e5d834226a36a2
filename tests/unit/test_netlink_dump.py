"""A dump that the kernel marks as interrupted is no dump, wherever the mark is."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence

import pytest

from nkform.kernel.error import KernelError
from nkform.kernel.netlink import HEADER, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, Request, Socket

ITEM = 16


class Kernel:
    """What a socket hears: datagrams of messages, each a kind, flags and a body."""

    def __init__(self, *datagrams: Sequence[tuple[int, int, bytes]]) -> None:
        self._datagrams = [b"".join(self._message(*message) for message in some) for some in datagrams]

    def _message(self, kind: int, flags: int, body: bytes) -> bytes:
        return HEADER.pack(HEADER.size + len(body), kind, flags, 1, 0) + body

    def send(self, data: bytes) -> int:
        return len(data)

    def recv(self, size: int) -> bytes:
        datagram = self._datagrams.pop(0)
        assert len(datagram) <= size
        return datagram

    def close(self) -> None:
        pass


def item(value: bytes, flags: int = 0) -> tuple[int, int, bytes]:
    return ITEM, flags, value


def done(code: int = 0, flags: int = 0) -> tuple[int, int, bytes]:
    return NLMSG_DONE, flags, struct.pack("=i", code)


def dumped(at_once: bool, *datagrams: Sequence[tuple[int, int, bytes]]) -> list[bytes]:
    with Socket() as socket:
        socket._socket.close()
        socket._socket = Kernel(*datagrams)  # type: ignore[assignment]
        read = socket.fetch if at_once else socket.dump
        return [m.buffer[m.start : m.end] for m in read(Request(0, 0, b"", "list"))]


@pytest.mark.parametrize("at_once", [False, True])
def test_all_datagrams_of_a_dump_are_read(at_once: bool) -> None:
    found = dumped(at_once, [item(b"a   "), item(b"b   ")], [item(b"c   ")], [item(b"d   "), done()])
    assert found == [b"a   ", b"b   ", b"c   ", b"d   "]
    assert dumped(at_once, [done()]) == []


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("marked", range(4))
def test_one_mark_is_enough(at_once: bool, marked: int) -> None:
    flags = [NLM_F_DUMP_INTR if place == marked else 0 for place in range(4)]
    with pytest.raises(KernelError) as caught:
        dumped(
            at_once, [item(b"a   ", flags[0]), item(b"b   ", flags[1])], [item(b"c   ", flags[2]), done(0, flags[3])]
        )
    assert caught.value.errno == errno.EINTR


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("last", [done(-errno.EPERM), (NLMSG_ERROR, 0, struct.pack("=i", -errno.EPERM) + bytes(16))])
def test_a_dump_that_fails_says_why(at_once: bool, last: tuple[int, int, bytes]) -> None:
    with pytest.raises(KernelError) as caught:
        dumped(at_once, [item(b"a   ")], [last])
    assert caught.value.errno == errno.EPERM


def test_the_answer_to_a_request_is_its_own() -> None:
    late = struct.pack("=IHHII", 20, ITEM, 0, 7, 0) + b"late"
    with Socket() as socket:
        socket._socket.close()
        kernel = Kernel([item(b"mine")])
        kernel._datagrams.insert(0, late)
        socket._socket = kernel  # type: ignore[assignment]
        answer = socket.get(Request(0, 0, b"", "ask"))
    assert answer.buffer[answer.start : answer.end] == b"mine"


def test_a_request_that_fails_says_why() -> None:
    with Socket() as socket:
        socket._socket.close()
        socket._socket = Kernel([(NLMSG_ERROR, 0, struct.pack("=i", -errno.EINVAL) + bytes(16))])  # type: ignore[assignment]
        with pytest.raises(KernelError, match="ask: Invalid argument") as caught:
            socket.get(Request(0, 0, b"", "ask"))
    assert caught.value.errno == errno.EINVAL
