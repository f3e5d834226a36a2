"""rtnetlink: messages out, acknowledgements and dumps in. Touches sockets, knows no device.

pyroute2 decodes every attribute of a message, which costs ten times what this tool has to spend (docs/benchmarks.md);
here a message is walked once and only what the tables name is decoded. Requests go out many to a datagram, which the
kernel handles in order, and their acknowledgements are read together.

Layouts: include/uapi/linux/netlink.h, netlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from nkform.dataclass import dataclass

NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10
NETLINK_EXT_ACK = 11
NETLINK_GET_STRICT_CHK = 12
SO_RCVBUFFORCE = 33

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_DUMP = 0x300
NLM_F_DUMP_INTR = 0x10
NLM_F_REPLACE = 0x100
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_APPEND = 0x800
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED = 0x8000
NLA_TYPE_MASK = 0x3FFF

HEADER = struct.Struct("=IHHII")
ATTRIBUTE = struct.Struct("=HH")
ERROR = struct.Struct("=i")
U8 = struct.Struct("=B")
U16 = struct.Struct("=H")
U32 = struct.Struct("=I")
S32 = struct.Struct("=i")

RECEIVE_BYTES = 1 << 16
BATCH_BYTES = 1 << 15
BATCH_MESSAGES = 256
"""Answers of a batch wait in the socket's buffer: 256 of at most about 4 KiB each stay well below QUEUE_BYTES."""
QUEUE_BYTES = 4 << 20

PAUSES = (0.0, 0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 2.0)
"""Seconds before each further try of a dump that was interrupted."""

T = TypeVar("T")


class KernelError(OSError):
    """The kernel refused a request: errno, its own explanation (extack) and what was asked of it."""

    def __init__(self, number: int, asked: str, extack: str = "") -> None:
        super().__init__(number, os.strerror(number))
        self.asked = asked
        self.extack = extack

    def __str__(self) -> str:
        name = errno.errorcode.get(self.errno or 0, str(self.errno))
        told = f"{self.strerror}: {self.extack}" if self.extack else self.strerror
        return f"{self.asked}: {told} ({name})"


@dataclass(frozen=True, slots=True)
class Request:
    """One message: its type (RTM_*), its flags without REQUEST and ACK, its body, and what it asks in words."""

    kind: int
    flags: int
    body: bytes
    asked: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an answer: its type, and its body as a place in a buffer that lives until the next receive."""

    kind: int
    buffer: memoryview
    start: int
    end: int


def attribute(number: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def nested(number: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(number | NLA_F_NESTED, b"".join(attributes))


def text(number: int, value: str) -> bytes:
    """A NUL-terminated string."""
    return attribute(number, value.encode() + b"\0")


def u32(number: int, value: int) -> bytes:
    return attribute(number, U32.pack(value))


def walk(buffer: memoryview, start: int, end: int) -> dict[int, memoryview]:
    """The attributes between two places of a buffer, by number; of one that repeats, the last."""
    found: dict[int, memoryview] = {}
    unpack = ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, number = unpack(buffer, start)
        if length < 4 or start + length > end:
            break
        found[number & NLA_TYPE_MASK] = buffer[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def string(payload: memoryview | None) -> str:
    """A string attribute's text; names in the kernel are bytes, and what is no UTF-8 survives as surrogates."""
    return bytes(payload).split(b"\0", 1)[0].decode(errors="surrogateescape") if payload is not None else ""


class Socket:
    """A netlink socket of the namespace that the thread was in when it was made.

    Raises KernelError for what the kernel refuses.
    """

    def __init__(self, buffer: bytearray | None = None) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._buffer = memoryview(buffer if buffer is not None else bytearray(RECEIVE_BYTES))
        self._sequence = 0
        self._roomy = False

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def dump(self, request: Request, *, at_once: bool = False) -> Iterator[Message]:
        """All objects that a dump request finds; each message must be read before the next is asked for.

        A dump that the kernel marks as interrupted (something changed under it) is incomplete and raises
        KernelError with EINTR: try again. `at_once`: it is fetched before any of it is looked at, which gives changes
        less time to come, and takes the memory.
        """
        self._sequence += 1
        size = HEADER.size + len(request.body)
        self._socket.send(
            HEADER.pack(size, request.kind, NLM_F_REQUEST | NLM_F_DUMP | request.flags, self._sequence, 0)
            + request.body
        )
        interrupted = False
        for buffer, kind, flags, start, end in self._fetched() if at_once else self._answers():
            interrupted = interrupted or bool(flags & NLM_F_DUMP_INTR)
            if kind == NLMSG_DONE:
                if interrupted:
                    raise KernelError(errno.EINTR, request.asked)
                code = ERROR.unpack_from(buffer, start)[0] if end - start >= 4 else 0
                if code < 0:
                    raise KernelError(-code, request.asked)
                return
            if kind == NLMSG_ERROR:
                code, extack = _error(buffer, flags, start, end)
                raise KernelError(-code, request.asked, extack)
            yield Message(kind, buffer, start, end)

    def ask(self, requests: Sequence[Request]) -> tuple[list[KernelError | None], dict[int, list[Message]]]:
        """Sends requests in order and waits for all acknowledgements.

        Returns one outcome a request (None: done) and, by the request's position, copies of what was answered beside
        the acknowledgement. The kernel goes on after a request that failed: the caller undoes what it must.
        """
        outcomes: list[KernelError | None] = []
        answers: dict[int, list[Message]] = {}
        for chunk in _chunks(requests):
            base = len(outcomes)
            first = self._sequence + 1
            packets = []
            for request in chunk:
                self._sequence += 1
                head = HEADER.pack(
                    HEADER.size + len(request.body),
                    request.kind,
                    NLM_F_REQUEST | NLM_F_ACK | request.flags,
                    self._sequence,
                    0,
                )
                packets.append(head + request.body + b"\0" * (-len(request.body) % 4))
            self._make_room()
            self._socket.send(b"".join(packets))
            outcomes.extend([None] * len(chunk))
            waiting = len(chunk)
            while waiting:
                for kind, flags, start, end, sequence in _messages(self._receive()):
                    place = base + sequence - first
                    if kind != NLMSG_ERROR:
                        answers.setdefault(place, []).append(
                            Message(kind, memoryview(bytes(self._buffer[start:end])), 0, end - start)
                        )
                        continue
                    code, extack = _error(self._buffer, flags, start, end)
                    if code:
                        outcomes[place] = KernelError(-code, requests[place].asked, extack)
                    waiting -= 1
        return outcomes, answers

    def _make_room(self) -> None:
        if not self._roomy:
            self._roomy = True
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)
            except PermissionError:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)

    def _answers(self) -> Iterator[Answer]:
        while True:
            for kind, flags, start, end, sequence in _messages(self._receive()):
                if sequence == self._sequence:
                    yield self._buffer, kind, flags, start, end

    def _fetched(self) -> Iterator[Answer]:
        """The same, once all have come; of a dump that is interrupted only what says so is worth looking at."""
        answers: list[Answer] = []
        while True:
            received = memoryview(bytes(self._receive()))
            for kind, flags, start, end, sequence in _messages(received):
                if sequence == self._sequence:
                    answers.append((received, kind, flags, start, end))
            if answers and answers[-1][1] in (NLMSG_DONE, NLMSG_ERROR):
                marked = [answer for answer in answers[:-1] if answer[2] & NLM_F_DUMP_INTR]
                yield from (marked[0], answers[-1]) if marked else answers
                return

    def _receive(self) -> memoryview:
        """What the kernel sends next."""
        return self._buffer[: self._socket.recv_into(self._buffer)]


Answer = tuple[memoryview, int, int, int, int]
"""A message's buffer, kind and flags, and where its body begins and ends."""


def _messages(received: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """The kind, flags, beginning, end and sequence number of each."""
    place, size = 0, len(received)
    while place + HEADER.size <= size:
        length, kind, flags, sequence, _ = HEADER.unpack_from(received, place)
        yield kind, flags, place + HEADER.size, place + length, sequence
        place += (length + 3) & ~3


def _error(buffer: memoryview, flags: int, start: int, end: int) -> tuple[int, str]:
    """Errno (negative, 0 for an acknowledgement) and extack of a NLMSG_ERROR."""
    code = ERROR.unpack_from(buffer, start)[0]
    if not code or not flags & NLM_F_ACK_TLVS:
        return code, ""
    echoed = HEADER.size if flags & NLM_F_CAPPED else HEADER.unpack_from(buffer, start + 4)[0]
    return code, string(walk(buffer, start + 4 + ((echoed + 3) & ~3), end).get(NLMSGERR_ATTR_MSG))


def _chunks(requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    start = size = 0
    for place, request in enumerate(requests):
        size += HEADER.size + len(request.body) + 4
        if size > BATCH_BYTES or place - start >= BATCH_MESSAGES:
            yield requests[start:place]
            start, size = place, HEADER.size + len(request.body) + 4
    if start < len(requests):
        yield requests[start:]


def whole(dump: Callable[[Socket], Iterator[T]], socket: Socket) -> list[T]:
    """A dump that nothing changed under, waited for. Raises KernelError (EINTR) when the kernel never sits still."""
    for pause in (*PAUSES, None):
        try:
            return list(dump(socket))
        except KernelError as error:
            if error.errno != errno.EINTR or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def first_error(outcomes: Iterable[KernelError | None]) -> KernelError | None:
    return next((outcome for outcome in outcomes if outcome is not None), None)
