"""What others have at a pair that is not seen on the way: programs where none of ours are, queueing disciplines, what
leads packets there from other devices; and what a peer that goes to another namespace has in the one that it leaves.

Asked of the kernel only for pairs that are to be made anew or to be moved, which lose it. Reads, changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from socket import AF_INET, AF_INET6

from nkform.dataclass import dataclass
from nkform.kernel import inet_foreign, neighbours, nexthops, qdiscs
from nkform.kernel.bpf_links import AttachType
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.kernel.redirects import redirects
from nkform.listing import few
from nkform.model import Device, Endpoint
from nkform.namespace_key import ROOT, is_unnamed
from nkform.observe.chains import TYPES, read_links

TOO_LARGE = "a route with more next hops than the kernel can tell of,"

TCX = (AttachType.TCX_INGRESS, AttachType.TCX_EGRESS)
"""What each link has; the primary has the hooks of its kind besides."""


def baggage(
    namespaces: Namespaces,
    anew: Collection[Device],
    leaving: Collection[Device] = (),
    small: Mapping[str, tuple[Device, Sequence[Endpoint]]] = {},
) -> dict[str, list[str]]:
    """In words, by the device's name: of pairs that are made anew, of peers that leave their namespace, and of ends
    whose MTU gets too `small` for IPv6. Raises KernelError."""
    ends: dict[str, list[_Look]] = {}
    whole_pairs, moved = ({device.name for device in some} for some in (anew, leaving))
    shrinking = {name: device for name, (device, _) in small.items()}
    for name, device in {**shrinking, **{device.name: device for device in (*anew, *leaving)}}.items():
        for end in device.ends:
            shrinks = name in small and end in small[name][1]
            look = _Look(device, end, name in whole_pairs, name in moved and end is device.peer, shrinks)
            if (look.goes or look.leaves or shrinks) and not is_unnamed(end.namespace):
                ends.setdefault(end.namespace, []).append(look)
    found: dict[str, list[str]] = {}
    with namespaces.away() as enter:
        for key, some in ends.items():
            with namespaces.open(key) as fd:
                enter(fd, key)
            with Socket() as socket:
                going = {look.end.index for look in some if look.goes or look.leaves}
                disciplines = qdiscs.of_others(socket, going)
                leading = redirects(socket) if going else []
                for look in some:
                    texts = [f"qdisc {kind} of {look.where}" for kind in disciplines.get(look.end.index, ())]
                    if look.end.index in going:
                        numbers = [str(number) for number, index in leading if index == look.end.index]
                        texts += _some("tc action mirred", numbers, f"to {look.where}")
                    if look.leaves:
                        texts += _inside(socket, look.end.index, look.where)
                    elif look.shrinks:
                        texts += _ipv6(socket, look.end.index, look.where)
                    if look.goes or look.leaves:
                        texts += _bound(socket, look.end.index, look.where)
                    texts += _programs(look.device, look.end, look.where) if look.goes else ()
                    found.setdefault(look.device.name, []).extend(texts)
    return {name: texts for name, texts in found.items() if texts}


@dataclass(frozen=True, slots=True)
class _Look:
    """An end to look at: it `goes` with its link, or `leaves` its namespace, or both, or it `shrinks`."""

    device: Device
    end: Endpoint
    goes: bool
    leaves: bool
    shrinks: bool

    @property
    def where(self) -> str:
        return f"{self.end.name} in {self.end.namespace}" if self.end.namespace != ROOT else self.end.name


def _inside(socket: Socket, index: int, where: str) -> Iterator[str]:
    """What of others a link does not take along into another namespace, and a new link there does not get."""
    yield from _inet(socket, index, where)
    texts = [neighbours.text(entry) for _, entry in neighbours.made(socket, [index])]
    yield from _some("neighbour", texts, f"of {where}")
    kind, _ = qdiscs.at_root(socket, [index]).get(index, ("", b""))
    if kind in qdiscs.REMADE:
        yield f"qdisc {kind} of {where}"


def _inet(socket: Socket, index: int, where: str, families: Collection[int] = (AF_INET, AF_INET6)) -> Iterator[str]:
    """Addresses and routes."""
    addresses = inet_foreign.of_links(inet_foreign.dump_foreign_addresses, socket, [index])
    some = [body for link, body in addresses if link == index and body[0] in families]
    yield from _some("address", [inet_foreign.decode_address(body)[0] for body in some], f"of {where}")
    routes = _dumped(inet_foreign.dump_foreign_routes, socket, index)
    if routes is None:
        yield f"{TOO_LARGE} through {where}"
        return
    some = [body for body in routes if inet_foreign.leads(body)[0] == index and body[0] in families]
    yield from _some("route", list(map(inet_foreign.route_text, some)), f"through {where}")


def _ipv6(socket: Socket, index: int, where: str) -> Iterator[str]:
    """What of others an end loses with IPv6."""
    yield from _inet(socket, index, where, (AF_INET6,))
    bound = _dumped(inet_foreign.dump_bound_routes, socket, index) or ()
    yield from _some(
        "route", [inet_foreign.route_text(body) for body in bound if body[0] == AF_INET6], f"through {where}"
    )


def _bound(socket: Socket, index: int, where: str) -> Iterator[str]:
    """Routes that no other link can be given, and what they lead through."""
    routes = _dumped(inet_foreign.dump_bound_routes, socket, index)
    if routes is None:
        yield f"{TOO_LARGE} through {where}"
    yield from _some("route", list(map(inet_foreign.route_text, routes or ())), f"through {where}")
    yield from _some("nexthop", list(map(str, nexthops.of_link(socket, index))), f"through {where}")


def _dumped(dump: Callable[..., Iterator[bytes]], socket: Socket, index: int) -> list[bytes] | None:
    """Routes through a link. None: one of them is larger than what the kernel can tell of."""
    try:
        return consistent_dump(partial(dump, index=index), socket)
    except KernelError as error:
        if error.errno != errno.EMSGSIZE:
            raise
    return None


def _some(what: str, texts: list[str], tail: str) -> Iterator[str]:
    """Things by their names, as long as there are few."""
    yield from few([f"{what} {text} {tail}" for text in texts])


def _programs(device: Device, end: Endpoint, where: str) -> Iterator[str]:
    """Programs at hooks that the look at the device's chains has left out."""
    primary = end is device.primary
    known = {TYPES[device.kind, hook] for hook in device.hooks} if primary else set()
    own = [TYPES[device.kind, hook] for hook in device.traits.hooks] if primary else []
    for attach_type in dict.fromkeys((*own, *TCX)):
        if attach_type not in known:
            for entry in read_links(end.index, attach_type, {}).linked:
                yield f"program {entry.name or entry.program_id} at {attach_type.name.lower()} of {where}"
