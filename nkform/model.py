"""The nouns: what a node has, whether declared in a spec or observed in the kernel.

One model serves both sides, so that comparing them is comparing like with like. In a desired object a missing
attribute means "not managed". This module touches nothing: no I/O, no clock, no kernel.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import lru_cache

from nkform.dataclass import dataclass, field, replace
from nkform.kinds import FOREIGN, KINDS, Kind, KindName, TcPlace
from nkform.namespace_key import ROOT

IPV6_MIN_MTU = 1280
"""Below it the kernel has no IPv6 on a link (RFC 8200, 5; include/net/if_inet6.h). Bytes."""

MARK_PREFIX = "nkform:"

NODE_LENGTH = 63
"""Longest name of a node, in characters."""
_NODE = re.compile(rf"[A-Za-z0-9_.-]{{1,{NODE_LENGTH}}}")


def is_node_name(name: str) -> bool:
    """Whether a node can be called so. Names become parts of paths: whoever reads one from elsewhere asks here."""
    return name not in {".", ".."} and _NODE.fullmatch(name) is not None


def mark(node: str) -> str:
    """The ownership mark of a node: the interface alias of its devices and of its namespaces' `lo`."""
    return MARK_PREFIX + node


@lru_cache(1024)
def owner_of(alias: str | None) -> str | None:
    """The node whose mark an interface alias carries; None: it is nobody's mark, as where it names no node."""
    if not alias or not alias.startswith(MARK_PREFIX):
        return None
    node = alias[len(MARK_PREFIX) :]
    return node if is_node_name(node) else None


@dataclass(frozen=True, slots=True)
class ComputedFor:
    """A value that is computed from these devices of the root namespace: what of them, says the attribute's row."""

    devices: tuple[str, ...]


Value = int | str | bool | ComputedFor
"""An attribute's value: sizes in bytes, enumerations by their kernel name in lower case."""

Attrs = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Address:
    """An address with its prefix length, in canonical text (`10.0.0.2/32`, `fd00::2/128`). Of one of others, and of one
    that is taken over from them, also `message`, the kernel's own in hexadecimal digits, with all that the text does
    not say; `apart`: the kernel cannot make it of one of ours of the same text."""

    text: str
    ours: bool = field(default=True, compare=False)
    message: str = field(default="", compare=False)
    apart: bool = field(default=False, compare=False)


def host(address: Address) -> str:
    """An address without its prefix length."""
    return address.text.partition("/")[0]


RouteKey = tuple[int, str, int]
"""A route's table, destination and metric."""


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route out of an endpoint.

    `to` is a canonical prefix (`default` is spelled `0.0.0.0/0` or `::/0` here), `table` a number (254 is main).
    `metric` is what the kernel will report: 0 for IPv4 and 1024 for IPv6 where the spec says nothing.
    `mtu` in bytes, 0 where the route has none of its own.

    Observed only: `message` is the kernel's, in hexadecimal digits, of a route that no declared one is like (it has a
    tos, other metrics, another protocol …): by it, it is removed and given again. `ours` is False for a next hop of an
    IPv6 route that others share, where the kernel does not tell whose it is: nothing but its gateway is known.
    """

    to: str
    via: str | None = None
    onlink: bool = False
    src: str | None = None
    metric: int = 0
    table: int = 254
    mtu: int = 0
    message: str = ""
    ours: bool = field(default=True, compare=False)

    @property
    def key(self) -> RouteKey:
        """What lets routes stand side by side in the kernel, but for their tos."""
        return self.table, self.to, self.metric

    @property
    def needs_ipv6(self) -> bool:
        """Whether its device must have IPv6: an IPv4 route may go through an IPv6 gateway."""
        return ":" in self.to or (self.via is not None and ":" in self.via)

    @property
    def text(self) -> str:
        """As `ip route` would say it, without its device."""
        parts = [self.to]
        if self.via:
            parts.append(f"via {self.via}")
        if self.onlink:
            parts.append("onlink")
        if self.src:
            parts.append(f"src {self.src}")
        if self.metric not in (0, 1024 if ":" in self.to else 0):
            parts.append(f"metric {self.metric}")
        if self.table != 254:
            parts.append(f"table {self.table}")
        if self.mtu:
            parts.append(f"mtu {self.mtu}")
        if self.message:
            parts.append("and more that nkform does not set")
        return " ".join(parts)


OURS = "a device of ours"
"""Who holds a source that none but devices of the node have."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What others have in the place of an address or a route that an end shall have. Observed only.

    `address` or `route` is the declared one. `holder` says what is there and whose it is, as a message shows it.
    `gone` is what can be taken over for it, None where nothing can. `ahead`: their route comes before ours.
    `blocking`: it is an obstacle; else ours has its place beside it. `side` is 1 for the peer.
    `why`: nobody has anything there, but IPv6 is switched `off` on the link, or will be on one that is to come, or the
    `source` that the route names is no address of the namespace, or none but of OURS as they are, or what `holder` says
    rules out its `gateway`.
    """

    holder: str
    address: Address | None = None
    route: Route | None = None
    gone: Address | Route | None = None
    ahead: bool = False
    blocking: bool = False
    side: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Master:
    """What a link is a port or a member of (IFLA_MASTER): its name and its kind, and for a port of a bridge the options
    that somebody may have chosen, as the kernel reports them, in hexadecimal digits."""

    name: str
    kind: str
    options: str = ""


@dataclass(frozen=True, slots=True)
class Upper:
    """A device of others that is made upon an end: where it is, as its namespace's key, and its name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind or 'device'} {self.name}" + (f" in {self.namespace}" if self.namespace != ROOT else "")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a pair, or the only one of a device without a peer.

    `namespace` is a namespace key (nkform/namespace_key.py); an unnamed one is only ever observed. `sysctl` maps
    `ipv4.KEY` and `ipv6.KEY` to values, as text as the kernel prints them.
    `taken`, observed: what of others stands where the spec wants something of ours. `index`, observed: the ifindex.
    `mtu_limit`, observed: the largest MTU that the kernel lets it have as it is, in bytes; 0 where that is the kind's.
    `master`, observed: what others have made it a port or a member of. `leaning`, observed: devices of others that are
    made upon it; `xdp`, the ids of its XDP programs; `altnames`, its further names: all go with it.
    """

    name: str
    namespace: str = ROOT
    attrs: Attrs = field(default_factory=dict)
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    sysctl: Mapping[str, str] = field(default_factory=dict)
    taken: tuple[Taken, ...] = field(default=(), compare=False)
    index: int = field(default=0, compare=False)
    mtu_limit: int = field(default=0, compare=False)
    master: Master | None = field(default=None, compare=False)
    leaning: tuple[Upper, ...] = field(default=(), compare=False)
    xdp: tuple[int, ...] = field(default=(), compare=False)
    altnames: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class First:
    """Before all programs of others."""


@dataclass(frozen=True, slots=True)
class Last:
    """After all programs of others."""


@dataclass(frozen=True, slots=True)
class Before:
    """Right before a program of somebody else: its name in the kernel, or its id.

    `optional`: it may be absent; the chain then stands as if it had no position.
    """

    program: str | int
    optional: bool = False


@dataclass(frozen=True, slots=True)
class After:
    """Right after a program of somebody else: its name in the kernel, or its id. `optional` as with Before."""

    program: str | int
    optional: bool = False


Position = First | Last | Before | After
"""Where a chain stands among the programs of others at its hook."""

MAX_PROGRAMS = 63
"""Programs that one hook takes: BPF_MPROG_MAX (include/linux/bpf_mprog.h), less the end mark."""

STRANGER = "!"
"""Stands in no digest, but before the id of a program that somebody put in the place of the one with the digest."""

Entry = int | str
"""An entry of a map that a spec sets: a number, or an address, prefix or MAC address in canonical text."""


@dataclass(frozen=True, slots=True)
class MapContents:
    """A map by its name in the kernel, and the entries in it. `layout` names how they are keys (nkform.entries)."""

    map: str
    layout: str
    entries: tuple[Entry, ...] = ()


MapsByParam = Mapping[str, tuple[MapContents, ...]]
"""By parameter, the maps that it fills: one, or one for each family of addresses."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program of a chain.

    `name` is unique in its chain. `digest` tells it from any other program that a template could become; it is empty
    until the device that it is for is known. A program that was only observed has neither template nor parameters.
    `places` are the paths in the spec of its parameters, of its `template`, and (by the empty name) of itself.
    `contents` is what its maps shall hold, as far as parameters say; it is no part of the digest. `program_id`,
    observed only: the kernel's id of the very program.
    """

    name: str
    template: str = ""
    params: Mapping[str, object] = field(default_factory=dict)
    digest: str = ""
    places: Mapping[str, tuple[str | int, ...]] = field(default_factory=dict, compare=False)
    contents: MapsByParam = field(default_factory=dict)
    program_id: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What programs of one digest were made of, as their spec declared them.

    `at`: where they are, each by its device, its hook and its name in the chain. `folder` is that of the template,
    `builtin` if it came with nkform. `engine` compiled them, of `objects` (a folder) that were built elsewhere, if of
    any. `facts` are those of the device that the program was made from, as the spec had them, and `ifindexes` those of
    the devices that parameters name, as far as they are part of the digest; `named` are the ifindexes of all that they
    name, as they were when this was noted. `bound`: the program knows the ifindex of its device or of the peer.
    """

    digest: str
    template: str
    params: Mapping[str, object] = field(default_factory=dict)
    folder: str = ""
    builtin: bool = True
    engine: str = ""
    objects: str = ""
    facts: Mapping[str, object] = field(default_factory=dict)
    ifindexes: Mapping[str, int] = field(default_factory=dict)
    named: Mapping[str, int] = field(default_factory=dict)
    bound: bool = False
    at: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Chain:
    """The programs that a hook shall run, in order.

    `default` is what happens to a packet that none of them decided: `pass` is the kernel's way, with `drop` a program
    that drops ends the chain. `position` None: after the others when it is made, and wherever it is from then on.
    """

    programs: tuple[Program, ...] = ()
    default: str = "pass"
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Attached:
    """A program at a hook, as observed. `place` is its link's id, or its filter's priority (`way` of the chain).

    Ours have the name and the digest that their pin or filter says, others the kernel's name. `contents` is what those
    of its maps hold that the spec's program of this name sets. `loaded` is the id of the program that nkform put there,
    0 where it is not on record: ids are given once, so another one that runs there is somebody else's.
    """

    program_id: int
    place: int
    name: str
    digest: str = ""
    ours: bool = False
    contents: MapsByParam = field(default_factory=dict)
    loaded: int = 0

    @property
    def identity(self) -> str:
        """What runs: the digest of what was loaded, or that with the id of the program that somebody put there."""
        return self.digest if self.loaded in (0, self.program_id) else f"{self.digest}{STRANGER}{self.program_id}"

    @property
    def strange(self) -> bool:
        """Whether a link or filter of ours runs a program that is not what its name says."""
        return STRANGER in self.identity


@dataclass(frozen=True, slots=True)
class Hook:
    """What a hook runs, in order: programs that are linked there, and after them the filters of legacy tc.

    `revision` changes with every change of the links; 0 where there is no such hook (before Linux 6.6).
    """

    linked: tuple[Attached, ...] = ()
    filters: tuple[Attached, ...] = ()
    revision: int = 0

    @property
    def ours(self) -> tuple[Attached, ...]:
        return tuple(entry for entry in (*self.linked, *self.filters) if entry.ours)

    @property
    def legacy(self) -> bool:
        """Whether any of ours is a filter of legacy tc."""
        return any(entry.ours for entry in self.filters)


@dataclass(frozen=True, slots=True)
class Device:
    """A device: a pair with its two ends, or one without a peer, such as an external device.

    `chains` are declared: the programs of each hook that the spec names; of the others nothing is managed but what is
    ours. `attach` is `tc` where legacy tc is asked for. `owner`, `enslaved` and `hooks` are observed: whose mark it
    carries, whether it is a port of a bridge or the like (whose driver may raise its headroom), and what its hooks run.
    `optional`: an external device may be absent. `index` is the primary's ifindex when observed. `framing` is what
    packets begin with, which only external devices may have otherwise: ethernet, ip (no header before that of IP) or
    other; it is observed, and a declared device takes it from the observed one. `tc_taken`, observed: where
    filters of legacy tc cannot be ours, for an ingress qdisc of others or a block of filters that devices share.
    `alias`: what somebody wrote where the mark goes. `mac`, observed: that of an external device.
    """

    name: str
    kind: KindName
    attrs: Attrs
    primary: Endpoint
    peer: Endpoint | None = None
    chains: Mapping[str, Chain] = field(default_factory=dict)
    attach: str = "auto"
    owner: str | None = None
    enslaved: bool = False
    index: int = 0
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    optional: bool = False
    framing: str = "ethernet"
    tc_taken: tuple[TcPlace, ...] = field(default=(), compare=False)
    alias: str = field(default="", compare=False)
    mac: str = field(default="", compare=False)

    @property
    def traits(self) -> Kind:
        """What a device of its kind is like."""
        return KINDS.get(self.kind, FOREIGN)

    @property
    def hooks_legacy(self) -> bool:
        """Whether what is attached of ours is legacy tc's."""
        return any(hook.legacy for hook in self.hooks.values())

    @property
    def ends(self) -> tuple[Endpoint, ...]:
        """Primary first."""
        return (self.primary,) if self.peer is None else (self.primary, self.peer)


@dataclass(frozen=True, slots=True)
class Namespace:
    """A network namespace by its key.

    Desired: `create` says that nkform makes and owns it, `optional` that it may be absent. Observed: `owner` is the
    node that has it on record, `marked` whether its `lo` carries that node's mark, which anybody in it can change.
    `links` maps the names of all devices in it to whether they belong to that node; `own` are those of them that the
    kernel made by itself, and that keep no namespace alive. `cookie` is the kernel's number of
    it, which no other one ever gets; 0 where it is not known. `altnames` are the further names of devices in it, which
    no other device can have, with the names of those devices. `alias`: what somebody wrote where the mark goes.
    """

    name: str
    create: bool = False
    owner: str | None = None
    links: Mapping[str, bool] = field(default_factory=dict)
    optional: bool = False
    marked: bool = True
    cookie: int = 0
    own: tuple[str, ...] = field(default=(), compare=False)
    altnames: Mapping[str, str] = field(default_factory=dict, compare=False)
    alias: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class RootDevice:
    """A device of the root namespace, whosever it is, as far as values are computed from it. Sizes are in bytes.

    `headroom` and `tailroom` are what it asks of the devices in front of it, None where the kernel does not report it.
    `carrier`: the device of the root namespace that its packets go on through, or ""; `header`: its link header's size.
    """

    headroom: int | None
    tailroom: int | None
    index: int = 0
    mtu: int = 0
    carrier: str = ""
    header: int = 0


@dataclass(frozen=True, slots=True)
class Node:
    """Everything that one spec declares, or that one look at the kernel found.

    Observed only: `root_devices`, all devices of the root namespace; `covered`, whether the file system that our pins
    are in may be out of sight; `taken`, by device, what others have where one of its ends is still to come;
    `astray`, how many of our pins hold links that lead to none of the devices; `occupied`, by the name of a declared
    namespace, the path of a file there that leads to no namespace; `home`, the keys by which the spec names the
    namespace that nkform runs in; `barred`, those of namespaces that it may not enter (""), or cannot read, and why;
    `marked_only`, the names of namespaces that carry the node's mark and are not on record as anybody's;
    `explained`, what is on record of the programs, where going back may need it.
    """

    name: str
    namespaces: Mapping[str, Namespace] = field(default_factory=dict)
    devices: Mapping[str, Device] = field(default_factory=dict)
    root_devices: Mapping[str, RootDevice] = field(default_factory=dict)
    covered: bool = False
    taken: Mapping[str, tuple[Taken, ...]] = field(default_factory=dict, compare=False)
    astray: int = 0
    occupied: Mapping[str, str] = field(default_factory=dict, compare=False)
    home: tuple[str, ...] = field(default=(), compare=False)
    barred: Mapping[str, str] = field(default_factory=dict, compare=False)
    marked_only: tuple[str, ...] = field(default=(), compare=False)
    explained: tuple[Explanation, ...] = field(default=(), compare=False)

    def with_devices(self, devices: Mapping[str, Device]) -> Node:
        return replace(self, devices=devices)

    def at_home(self, keys: Collection[str]) -> Node:
        """The node with what is in the namespace that nkform runs in, under whichever of these keys, in ROOT; but a
        namespace that is to be made stays what it is: that one cannot be, which the plan says."""
        keys = {key for key in keys if key not in self.namespaces or not self.namespaces[key].create}
        if not keys:
            return self
        devices = {
            name: replace(device, peer=replace(device.peer, namespace=ROOT))
            if device.peer and device.peer.namespace in keys
            else device
            for name, device in self.devices.items()
        }
        spaces = {name: space for name, space in self.namespaces.items() if name not in keys}
        return replace(self, devices=devices, namespaces=spaces)
