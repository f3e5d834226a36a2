"""What a plan does to the kernel, as data.

Actions know nothing of how they are carried out (apply/ does), nor of how they are taken back: what leads back is the
difference to the node as it was (plan/restore.py). What was there before is said for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from nkform.attributes import ATTRIBUTES, Flag
from nkform.dataclass import dataclass, field
from nkform.model import (
    Address,
    Attached,
    Attrs,
    Chain,
    Device,
    Endpoint,
    First,
    Hook,
    Last,
    MapContents,
    Master,
    Program,
    Route,
    RouteKey,
    Value,
)


@dataclass(frozen=True, slots=True)
class End:
    """Which end of which device: the device's name, the end's own name, and its namespace's key.

    `index` is the ifindex of an end that was there when the plan was made: by now another one may have its name.
    """

    device: str
    namespace: str
    name: str
    index: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class CreateNamespace:
    """Makes a named namespace with the node's mark on its `lo`, which comes up; or gives the name back to the one with
    this number, if it is held for that (apply/held.py)."""

    name: str
    cookie: int = 0


@dataclass(frozen=True, slots=True)
class DeleteNamespace:
    """Removes a namespace of ours that holds nothing but `lo`; the one with this number, 0 for the one on record."""

    name: str
    cookie: int = 0


@dataclass(frozen=True, slots=True)
class SetMark:
    """Puts the node's mark on, or takes it off, a device's primary or a namespace's `lo` (`name` is then `lo`).

    A namespace comes on record with its mark, and off it, unless `again` only brings back a mark that was lost, which
    stays when all else is undone. `alias`: what somebody else had there, or is to have there again.
    """

    namespace: str
    name: str
    marked: bool
    again: bool = False
    alias: str = ""


@dataclass(frozen=True, slots=True)
class CreatePair:
    """Makes a pair, or a device that has no peer, with all attributes of its ends, marked, the ends down; fails closed:
    policies come first.

    Here and wherever an action carries a device, the name of its primary is what that is called at the moment; the
    device's own name is what its pins go by.
    """

    device: Device


@dataclass(frozen=True, slots=True)
class DeletePair:
    """Removes a pair, or a device that has no peer; `device` is all that there was."""

    device: Device


@dataclass(frozen=True, slots=True)
class SetLink:
    """Changes attributes of one end in place. `primary` names the device that netkit's policies go through."""

    end: End
    before: Attrs
    after: Attrs


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """Changes a netkit's policies in place, always through the primary; `own` and `peer` are its two ends."""

    end: End
    own: Mapping[str, tuple[Value | None, Value]]
    peer: Mapping[str, tuple[Value | None, Value]]


@dataclass(frozen=True, slots=True)
class SetUp:
    """Raises an end, or takes it down: the kernel then drops its IPv6 addresses."""

    end: End
    up: bool


@dataclass(frozen=True, slots=True)
class SetMaster:
    """Makes an end a port or a member of `after`, as the one before it was, or takes it out of `before`.

    Where there is no such device any more, the end stays outside: that was somebody else's to decide.
    """

    end: End
    before: Master | None
    after: Master | None


@dataclass(frozen=True, slots=True)
class MoveEnd:
    """Renames an end or moves it to another namespace; a move loses its addresses, routes and state."""

    before: Endpoint
    after: Endpoint
    device: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    """`again`: the address may still be there (IPv6 addresses may or may not survive `down`). `instead`: the one of the
    same text that it takes the place of, among the others of the end too."""

    end: End
    address: Address
    again: bool = False
    instead: Address | None = None


@dataclass(frozen=True, slots=True)
class DeleteAddress:
    """Takes an address away."""

    end: End
    address: Address


@dataclass(frozen=True, slots=True)
class AddRoute:
    """`beside`: where there is a route of the same destination, table and metric, it stays, and the first, unless this
    one is to be `first`. `again`: it may still be there.
    """

    end: End
    route: Route
    beside: bool = False
    first: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class DeleteRoute:
    """Removes a route of ours, or one that the plan takes over; one that has gone by itself is no failure.

    `beside`: there may be another of the same destination, table and metric, which stays.
    """

    end: End
    route: Route
    beside: bool = False


@dataclass(frozen=True, slots=True)
class CarryRoutes:
    """Has the routes of others that lead through one end lead through another one of the same namespace."""

    before: End
    after: End


@dataclass(frozen=True, slots=True)
class CarryNeighbours:
    """Has the neighbours that somebody entered at one end at another one of the same namespace, too."""

    before: End
    after: End


@dataclass(frozen=True, slots=True)
class WaitForCarrier:
    """Waits until an end that came up carries packets: the kernel goes on with that in the background."""

    end: End


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """`before` is None where the end did not exist when the plan was made."""

    end: End
    key: str
    before: str | None
    after: str


@dataclass(frozen=True, slots=True)
class SetSysctls:
    """Gives an end that is new its sysctls. One that comes back has a hundred, nearly all as any new end has them."""

    end: End
    values: Mapping[str, str]


Backend = Literal["link", "tc"]
"""How programs are attached: by links of tcx and netkit, or as filters of legacy tc."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A program that is attached, beside which another one is put: by its link's id or its filter's priority (`place`),
    or where it has neither (0) by the id of the program."""

    place: int
    program_id: int = 0


@dataclass(frozen=True, slots=True)
class AfterNew:
    """Right after the program that this step attaches: its number in the chain."""

    number: int


@dataclass(frozen=True, slots=True)
class AfterEntry:
    """Right after a program that is attached."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class BeforeEntry:
    """Right before a program that is attached."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class BeforeClosing:
    """Right before the program that `Close` attached."""


Where = First | Last | AfterNew | AfterEntry | BeforeEntry | BeforeClosing


@dataclass(frozen=True, slots=True)
class Attach:
    """Attaches a program of the new chain: its name, and its number there."""

    backend: Backend
    name: str
    number: int
    where: Where


@dataclass(frozen=True, slots=True)
class Update:
    """Puts a program of the new chain into the place of an attached one, in one step."""

    backend: Backend
    name: str
    number: int
    entry: Attached


@dataclass(frozen=True, slots=True)
class Detach:
    """Detaches a program."""

    backend: Backend
    entry: Attached


@dataclass(frozen=True, slots=True)
class Close:
    """Attaches a program that drops, last of all: half a chain may let through what the rest of it is to drop."""


@dataclass(frozen=True, slots=True)
class Open:
    """Detaches the program that `Close` attached."""


Step = Attach | Update | Detach | Close | Open


@dataclass(frozen=True, slots=True)
class SetChain:
    """Makes a hook run exactly this chain, among programs of others, by these steps (plan/chain_steps.py).

    `before` is what it ran, and must still run: `revision` is that of its links (0 before Linux 6.6); None where the
    hook comes with its device. `backend`: how the chain is attached. `inherit_maps_from` is what the hook of the pair
    runs that this one is to replace: the maps of its programs live on.
    """

    device: Device
    hook: str
    before: Hook
    after: Chain
    steps: tuple[Step, ...]
    backend: Backend = "link"
    revision: int | None = None
    inherit_maps_from: Hook = field(default_factory=Hook)


@dataclass(frozen=True, slots=True)
class SetMap:
    """Changes the entries of a map of an attached program of ours, which runs on. `before` None: whatever it holds."""

    device: Device
    hook: str
    program: str
    before: MapContents | None
    after: MapContents


Action = (
    CreateNamespace
    | DeleteNamespace
    | SetMark
    | CreatePair
    | DeletePair
    | SetLink
    | SetPolicy
    | SetUp
    | SetMaster
    | MoveEnd
    | AddAddress
    | DeleteAddress
    | AddRoute
    | DeleteRoute
    | CarryRoutes
    | CarryNeighbours
    | WaitForCarrier
    | SetSysctl
    | SetSysctls
    | SetChain
    | SetMap
)


def end_of(device: str, endpoint: Endpoint, live: Endpoint | None = None) -> End:
    """An end by its name; with `live`, which is that end as it was observed, by its ifindex too."""
    return End(device, endpoint.namespace, endpoint.name, live.index if live else 0)


_FLAGS = tuple((row.name, row.usual) for row in ATTRIBUTES if isinstance(row.kept, Flag) and row.usual is not None)
"""Flags are set once an end is there, and not with its making: a netkit takes none for its peer then
(drivers/net/netkit.c, netkit_new_link), whatever the request says."""


def configure(device: str, endpoint: Endpoint, *, silent: bool = False) -> Iterator[Action]:
    """All that a new end needs: its master, flags, sysctls, addresses, up, routes, in this order.

    Routes need the link up; addresses and sysctls come first, so that the link never runs without them. The master is
    the first: a VRF takes its members down for a moment (drivers/net/vrf.c, cycle_netdev). `silent`: it
    carries nothing yet, since the other end is down. Then IPv6 addresses come after up: for those that are there when
    a link comes up the kernel needs memory that it does not wait for, and on a busy machine it drops some ("Failed to
    add prefix route", addrconf_permanent_addr in net/ipv6/addrconf.c). Those of others, which may be point-to-point, do
    so always: the kernel makes no route to the far end when the link comes up later.
    """
    end, up = end_of(device, endpoint), bool(endpoint.attrs.get("up"))
    if endpoint.master:
        yield SetMaster(end, None, endpoint.master)
    if flags := {name: value for name, usual in _FLAGS if (value := endpoint.attrs.get(name, usual)) != usual}:
        yield SetLink(end, {}, flags)
    if endpoint.sysctl:
        yield SetSysctls(end, endpoint.sysctl)
    late = [each for each in endpoint.addresses if up and ":" in each.text and (silent or each.message)]
    yield from (AddAddress(end, address) for address in endpoint.addresses if address not in late)
    if up:
        yield SetUp(end, True)
        yield from (AddAddress(end, address) for address in late)
        # A gateway must be reachable first. What comes back may have had several routes of one key.
        keys: set[RouteKey] = set()
        for route in sorted(endpoint.routes, key=lambda route: route.via is not None):
            yield AddRoute(end, route, beside=route.key in keys or not route.ours)
            keys.add(route.key)


def create(device: Device) -> Iterator[Action]:
    """A whole device, the workload's end first: no packet passes before the primary, which comes up last."""
    yield CreatePair(device)
    if device.peer is not None:
        yield from configure(device.name, device.peer, silent=True)
    yield from configure(device.name, device.primary)


def chain_of(hook: Hook) -> Chain:
    """What is attached, as a chain that its programs, which are held, can be put back by."""
    return Chain(
        tuple(
            Program(entry.name, digest=entry.identity, contents=entry.contents, program_id=entry.program_id)
            for entry in hook.ours
        )
    )


def device_of(action: Action) -> str | None:
    """The name of the device that an action is about; None for a namespace."""
    match action:
        case CreatePair(device) | DeletePair(device) | SetChain(device) | SetMap(device):
            return device.name
        case SetMark(_, name):
            return None if name == "lo" else name
        case CreateNamespace() | DeleteNamespace():
            return None
        case MoveEnd(_, _, device):
            return device
        case CarryRoutes(end) | CarryNeighbours(end):
            return end.device
        case _:
            return action.end.device


def namespace_of(action: Action) -> str:
    """The key of the namespace in which an action is carried out."""
    match action:
        case SetMark(namespace):
            return namespace
        case MoveEnd(before, _, _):
            return before.namespace
        case SetLink(end) | SetUp(end) | SetMaster(end) | AddAddress(end) | DeleteAddress(end) | AddRoute(end):
            return end.namespace
        case DeleteRoute(end) | CarryRoutes(end) | CarryNeighbours(end) | WaitForCarrier(end):
            return end.namespace
        case SetSysctl(end) | SetSysctls(end):
            return end.namespace
        case _:
            return ""
