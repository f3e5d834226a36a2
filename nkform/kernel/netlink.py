"""rtnetlink: messages out, acknowledgements and dumps in. Touches sockets, knows no device.

pyroute2 decodes every attribute of a message, which costs ten times what this tool has to spend (docs/benchmarks.md);
here a message is walked once and only what the tables name is decoded. Requests go out many to a datagram, which the
kernel handles in order, and their acknowledgements are read together.

Layouts: include/uapi/linux/netlink.h, netlink(7).
"""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from nkform.dataclass import dataclass
from nkform.kernel.error import KernelError
from nkform.kernel.place import cookie_of

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


@dataclass(frozen=True, slots=True)
class Request:
    """One message: its type (RTM_*), its flags without REQUEST and ACK, its body, and what it asks in words."""

    kind: int
    flags: int
    body: bytes
    asked: str


class Message(NamedTuple):
    """One message of an answer: its type, and its body as a place in what came with it."""

    kind: int
    buffer: bytes
    start: int
    end: int


def attribute(number: int, payload: bytes) -> bytes:
    """One attribute, padded to four bytes."""
    return ATTRIBUTE.pack(4 + len(payload), number) + payload + b"\0" * (-len(payload) % 4)


def nested(number: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(number | NLA_F_NESTED, b"".join(attributes))


def text(number: int, value: str) -> bytes:
    """A NUL-terminated string, out of text as `string` makes it."""
    return attribute(number, value.encode(errors="surrogateescape") + b"\0")


def u32(number: int, value: int) -> bytes:
    return attribute(number, U32.pack(value))


def walk(buffer: bytes, start: int, end: int) -> dict[int, bytes]:
    """The attributes between two places of a buffer, by number; of one that repeats, the last."""
    payloads: dict[int, bytes] = {}
    unpack = ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, number = unpack(buffer, start)
        if length < 4 or start + length > end:
            break
        payloads[number & NLA_TYPE_MASK] = buffer[start + 4 : start + length]
        start += (length + 3) & ~3
    return payloads


def find(buffer: bytes, start: int, end: int, number: int) -> bytes | None:
    """The first attribute of a number between two places of a buffer: less work than `walk` where it is near."""
    unpack = ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, kind = unpack(buffer, start)
        if length < 4 or start + length > end:
            return None
        if kind & NLA_TYPE_MASK == number:
            return buffer[start + 4 : start + length]
        start += (length + 3) & ~3
    return None


def string(payload: bytes | None) -> str:
    """A string attribute's text; names in the kernel are bytes, and what is no UTF-8 survives as surrogates."""
    return payload.partition(b"\0")[0].decode(errors="surrogateescape") if payload is not None else ""


TOO_LARGE = "one of them is too large for the kernel to tell of"


class Socket:
    """A netlink socket of the namespace that the thread was in when it was made.

    Raises KernelError for what the kernel refuses.
    """

    def __init__(self) -> None:
        self._socket = _opened()
        self._cookie = 0
        self._sequence = 0
        self._interrupted = False
        self._roomy = False

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def cookie(self) -> int:
        """The number of the socket's namespace, which no other one of this boot ever gets (SO_NETNS_COOKIE)."""
        if not self._cookie:
            self._cookie = cookie_of(self._socket)
        return self._cookie

    def dump(self, request: Request) -> Iterator[Message]:
        """All objects that a dump request finds, as they come.

        A dump that the kernel marks as interrupted (something changed under it) is incomplete and raises
        KernelError with EINTR: try again.
        """
        self._ask_for(request)
        more = True
        while more:
            messages: list[Message] = []
            more = self._receive(request, messages)
            yield from messages

    def fetch(self, request: Request) -> list[Message]:
        """The same, all fetched before any of it is looked at: changes have less time to come. It takes the memory."""
        self._ask_for(request)
        messages: list[Message] = []
        while self._receive(request, messages):
            pass
        return messages

    def _ask_for(self, request: Request) -> None:
        self._sequence += 1
        self._interrupted = False
        size, flags = HEADER.size + len(request.body), NLM_F_REQUEST | NLM_F_DUMP | request.flags
        self._socket.send(HEADER.pack(size, request.kind, flags, self._sequence, 0) + request.body)

    def _receive(self, request: Request, messages: list[Message]) -> bool:
        """Adds the messages of the next datagram of a dump; returns whether there are more datagrams."""
        unpack, head, current, made = HEADER.unpack_from, HEADER.size, self._sequence, tuple.__new__
        received = self._datagram(request.asked)
        place, last = 0, len(received) - head
        while place <= last:
            length, kind, flags, sequence, _ = unpack(received, place)
            start, end = place + head, place + length
            place += (length + 3) & ~3
            if sequence != current:
                continue
            if flags & NLM_F_DUMP_INTR:
                self._interrupted = True
            if kind == NLMSG_DONE:
                code = ERROR.unpack_from(received, start)[0] if end - start >= 4 else 0
                if self._interrupted or code < 0:
                    raise KernelError(errno.EINTR if self._interrupted else -code, request.asked)
                return False
            if kind == NLMSG_ERROR:
                code, extack = _error(received, flags, start, end)
                raise KernelError(-code, request.asked, extack)
            messages.append(made(Message, (kind, received, start, end)))  # its own constructor calls Python once more
        return True

    def _datagram(self, asked: str) -> bytes:
        """What the kernel sends next. It sends nothing at all, again and again, where an object of a dump is larger
        than all that it has for a message, such as an IPv6 route with some thousand next hops
        (net/netlink/af_netlink.c, netlink_dump). Raises KernelError (EMSGSIZE) then; another dump needs another socket.
        """
        if received := self._socket.recv(RECEIVE_BYTES):
            return received
        self.reopen(asked)
        raise KernelError(errno.EMSGSIZE, asked, TOO_LARGE)

    def reopen(self, asked: str) -> None:
        """Lets go of a dump that was not read to its end. Raises KernelError (ESTALE)."""
        cookie, roomy = self.cookie(), self._roomy
        self._socket.close()
        self._socket, self._cookie, self._roomy = _opened(), 0, False
        if self.cookie() != cookie:
            raise KernelError(errno.ESTALE, asked, "the thread is in another network namespace by now")
        if roomy:
            self._make_room()

    def get(self, request: Request) -> Message:
        """The one message that answers a request."""
        self._sequence += 1
        size, flags = HEADER.size + len(request.body), NLM_F_REQUEST | request.flags
        self._socket.send(HEADER.pack(size, request.kind, flags, self._sequence, 0) + request.body)
        while True:
            received = self._datagram(request.asked)
            for kind, flags, start, end, sequence in _messages(received):
                if sequence != self._sequence:
                    continue
                if kind == NLMSG_ERROR:
                    code, extack = _error(received, flags, start, end)
                    raise KernelError(-code, request.asked, extack)
                return Message(kind, received, start, end)

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
                received = self._socket.recv(RECEIVE_BYTES)
                for kind, flags, start, end, sequence in _messages(received):
                    place = base + sequence - first
                    if kind != NLMSG_ERROR:
                        answers.setdefault(place, []).append(Message(kind, received, start, end))
                        continue
                    code, extack = _error(received, flags, start, end)
                    if code:
                        outcomes[place] = KernelError(-code, requests[place].asked, extack)
                    waiting -= 1
        return outcomes, answers

    def _make_room(self) -> None:
        if not self._roomy:
            self._roomy = True
            make_room(self._socket)


def make_room(netlink: socket.socket) -> None:
    """Lets a socket queue QUEUE_BYTES, or in a user namespace, where nobody may have that many, as many as anybody."""
    try:
        netlink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, QUEUE_BYTES)
    except PermissionError:
        netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES)


def _opened() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    made.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    made.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    made.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
    return made


def _messages(received: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """The kind, flags, beginning, end and sequence number of each."""
    place, size = 0, len(received)
    while place + HEADER.size <= size:
        length, kind, flags, sequence, _ = HEADER.unpack_from(received, place)
        yield kind, flags, place + HEADER.size, place + length, sequence
        place += (length + 3) & ~3


def _error(buffer: bytes, flags: int, start: int, end: int) -> tuple[int, str]:
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


def consistent_dump(dump: Callable[[Socket], Iterable[T]], socket: Socket) -> list[T]:
    """A dump that nothing changed under, waited for. Raises KernelError (EINTR) when the kernel never sits still."""
    return consistent(lambda socket: list(dump(socket)), socket)


def consistent(read: Callable[[Socket], T], socket: Socket) -> T:
    """What is read from dumps that nothing changed under, waited for. Raises KernelError (EINTR) as `whole` does."""
    for pause in (*PAUSES, None):
        try:
            return read(socket)
        except KernelError as error:
            if error.errno != errno.EINTR or pause is None:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def first_error(outcomes: Iterable[KernelError | None]) -> KernelError | None:
    return next((outcome for outcome in outcomes if outcome is not None), None)
