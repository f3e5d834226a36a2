"""What rtnetlink tells unasked: changes of links, addresses, routes, filters, sysctls and namespace ids.

One socket hears the namespace that it was made in and all namespaces that this one has an id for (those that a device
leads to are among them): NETLINK_LISTEN_ALL_NSID, netlink(7). So namespaces that come need no socket, and those that
go leave none behind.

Not everything is told. No message comes for links of BPF programs, for most sysctls, for segmentation sizes, nor for
what changes at a netkit or in an alias while the device is down (net/core/rtnetlink.c, do_setlink: netdev_state_change
tells of a device that is up). observe/fingerprint.py looks for these.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

from nkform.dataclass import dataclass
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import (
    HEADER,
    NETLINK_ROUTE,
    RECEIVE_BYTES,
    S32,
    SOL_NETLINK,
    U32,
    make_room,
    string,
    walk,
)

NETLINK_LISTEN_ALL_NSID = 8

# include/uapi/linux/rtnetlink.h, enum rtnetlink_groups.
GROUPS = {
    "LINK": 1,
    "TC": 4,
    "IPV4_IFADDR": 5,
    "IPV4_ROUTE": 7,
    "IPV6_IFADDR": 9,
    "IPV6_ROUTE": 11,
    "IPV4_NETCONF": 24,
    "IPV6_NETCONF": 25,
    "NSID": 28,
}

INDEX_AT = 4
"""Where ifinfomsg, ifaddrmsg and tcmsg have their ifindex."""
IFINFOMSG_BYTES = 16
RTMSG_BYTES = 12
NETCONFMSG_BYTES = 4
IFLA_IFNAME = 3
IFLA_IFALIAS = 20
RTA_OIF = 4
NETCONFA_IFINDEX = 1
NSID = struct.Struct("=i")


@dataclass(frozen=True, slots=True)
class Touched:
    """Something changed: in which namespace, by its id (None: the socket's own), and at which device.

    `index` is None where it is no single device's matter; `name` and `alias` are told of links only.
    """

    nsid: int | None
    index: int | None
    name: str = ""
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Lost:
    """The socket could not take all that was told (ENOBUFS): look again."""


Notice = Touched | Lost


class Monitor:
    """Hears from the moment that it is made. Raises KernelError (EPERM: it needs CAP_NET_BROADCAST)."""

    def __init__(self) -> None:
        self._buffer = bytearray(RECEIVE_BYTES)
        self._view = memoryview(self._buffer)
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, NETLINK_ROUTE)
        try:
            make_room(self._socket)
            self._socket.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
            self._socket.bind((0, sum(1 << (number - 1) for number in GROUPS.values())))
        except OSError as error:
            self._socket.close()
            raise KernelError(error.errno or errno.EIO, "listen to changes of the network") from error

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def notices(self) -> Iterator[Notice]:
        """What has been told and not been read yet; never waits."""
        while True:
            try:
                size, told, _, _ = self._socket.recvmsg_into([self._buffer], socket.CMSG_SPACE(NSID.size))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise KernelError(error.errno or errno.EIO, "read changes of the network") from error
                yield Lost()
                continue
            nsid = next((NSID.unpack(data)[0] for _, kind, data in told if kind == NETLINK_LISTEN_ALL_NSID), None)
            yield from decode(bytes(self._view[:size]), size, nsid)


def decode(buffer: bytes, size: int, nsid: int | None) -> Iterator[Touched]:
    """The messages of one datagram."""
    place = 0
    while place + HEADER.size <= size:
        length, kind, *_ = HEADER.unpack_from(buffer, place)
        if length < HEADER.size:
            return
        yield _touched(buffer, kind, place + HEADER.size, place + length, nsid)
        place += (length + 3) & ~3


def _touched(buffer: bytes, kind: int, start: int, end: int, nsid: int | None) -> Touched:
    match kind:
        case 16 | 17:  # RTM_NEWLINK, RTM_DELLINK
            parts = walk(buffer, start + IFINFOMSG_BYTES, end)
            name, alias = string(parts.get(IFLA_IFNAME)), string(parts.get(IFLA_IFALIAS))
            return Touched(nsid, S32.unpack_from(buffer, start + INDEX_AT)[0], name, alias)
        case 20 | 21 | 36 | 37 | 40 | 41 | 44 | 45:  # RTM_NEW and RTM_DEL of ADDR, QDISC, TCLASS, TFILTER
            return Touched(nsid, S32.unpack_from(buffer, start + INDEX_AT)[0])
        case 24 | 25:  # RTM_NEWROUTE, RTM_DELROUTE
            payload = walk(buffer, start + RTMSG_BYTES, end).get(RTA_OIF)
            return Touched(nsid, U32.unpack_from(payload)[0] if payload is not None else None)
        case 80 | 81:  # RTM_NEWNETCONF, RTM_DELNETCONF
            payload = walk(buffer, start + NETCONFMSG_BYTES, end).get(NETCONFA_IFINDEX)
            return Touched(nsid, S32.unpack_from(payload)[0] if payload is not None else None)
    return Touched(nsid, None)
