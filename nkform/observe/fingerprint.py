"""Whether a node may have changed in ways that the kernel tells nobody (kernel/monitor.py): a look that costs little.

It decodes nothing. Two fingerprints that are alike say that a whole look would find what the last one found, as far as
no notice has come.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import blake2b

from nkform.dataclass import dataclass
from nkform.kernel import links, sysctl
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_links import AttachType, query
from nkform.kernel.error import KernelError
from nkform.kernel.monitor import Notice, Touched
from nkform.kernel.netlink import S32, Socket
from nkform.kernel.netns import Namespaces
from nkform.model import Device, Endpoint, Node, mark
from nkform.namespace_key import ROOT, Unnamed, is_unnamed, meant_by
from nkform.observe.chains import TYPES
from nkform.observe.namespaces import identify

INDEX_AT = 4
"""Where ifinfomsg has its ifindex."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What of a node is looked at.

    `ends` are the ends of its devices, those that are there and those that should be, and devices that values of its
    spec are computed from: the id of the namespace (None: the root one) and the name. `hooks` are those that run
    programs of ours or shall: the device's ifindex and the place. `sysctls` are those that are declared, interface and
    key by namespace key.
    """

    node: str
    ends: frozenset[tuple[int | None, str]]
    hooks: tuple[tuple[int, AttachType], ...]
    sysctls: Mapping[str, tuple[tuple[str, str], ...]]

    @property
    def nsids(self) -> frozenset[int]:
        """The ids of the namespaces that its devices reach into."""
        return frozenset(nsid for nsid, _ in self.ends if nsid is not None)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`trace` is alike in two if nothing has changed; `indexes` are those of our ends in the root namespace."""

    trace: bytes
    indexes: frozenset[int]


def scope(namespaces: Namespaces, live: Node, desired: Node, beside: Collection[str] = ()) -> Scope:
    """What to look at from now on, `desired` being what the spec means on this node, and `beside` further devices of
    the root namespace. Raises KernelError."""
    devices = [*live.devices.values(), *desired.devices.values()]
    keys = dict.fromkeys(end.namespace for device in devices for end in device.ends)
    ids = identify(namespaces, [key for key in keys if key != ROOT and not is_unnamed(key)])
    ids |= {key: meant.nsid for key in keys if isinstance(meant := meant_by(key), Unnamed)}
    ids[ROOT] = None
    found = {(ids[end.namespace], end.name) for d in devices for end in d.ends if _reachable(ids, end)}
    found |= {(None, name) for name in beside}
    hooks = [place for device in live.devices.values() for place in _hooks(device, desired.devices.get(device.name))]
    return Scope(live.name, frozenset(found), tuple(hooks), _sysctls(desired.devices.values()))


def _reachable(ids: Mapping[str, int | None], end: Endpoint) -> bool:
    """Whether the end's namespace is there and has an id: no device leads to one that has none (-1)."""
    return end.namespace in ids and ids[end.namespace] != -1


def _hooks(live: Device, desired: Device | None) -> Iterator[tuple[int, AttachType]]:
    for hook in live.traits.hooks:
        found = live.hooks.get(hook)
        if (found and found.ours) or (desired and hook in desired.chains):
            yield live.index, TYPES[live.kind, hook]


def _sysctls(devices: Iterable[Device]) -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for device in devices:
        for end in device.ends:
            if end.sysctl:
                found[end.namespace] = (*found.get(end.namespace, ()), *((end.name, key) for key in end.sysctl))
    return found


def take(namespaces: Namespaces, scope: Scope) -> Fingerprint:
    """One fingerprint. Raises KernelError only where the namespace that we came from cannot be entered again."""
    digest = blake2b()
    indexes = set()
    ends = sorted(scope.ends, key=lambda end: (end[0] is not None, end))
    with Socket() as socket:
        outcomes, answers = socket.ask([links.get(name, nsid=nsid) for nsid, name in ends])
    for place, (nsid, _) in enumerate(ends):
        for message in answers.get(place, ()):
            for still in links.still_parts(message):
                digest.update(still)
            if nsid is None:
                indexes.add(S32.unpack_from(message.buffer, message.start + INDEX_AT)[0])
        digest.update(repr(outcomes[place]).encode())
    for part in (*_revisions(scope), *_values(namespaces, scope), *_names(namespaces)):
        digest.update(f"{part}\n".encode())
    return Fingerprint(digest.digest(), frozenset(indexes))


def _revisions(scope: Scope) -> Iterator[object]:
    """A hook's revision grows with each change of what it runs (include/linux/bpf_mprog.h)."""
    for index, attach_type in scope.hooks:
        try:
            yield query(index, attach_type).revision
        except BpfError as error:
            yield error.errno


def _values(namespaces: Namespaces, scope: Scope) -> Iterator[object]:
    for key, wanted in scope.sysctls.items():
        try:
            with namespaces.open(key) as fd, namespaces.entered(fd, key):
                values = [_value(interface, name) for interface, name in wanted]
        except KernelError as error:
            yield error.errno
        else:
            yield values


def _value(interface: str, key: str) -> str | None:
    try:
        return sysctl.read(interface, key)
    except KernelError:
        return None


def _names(namespaces: Namespaces) -> Iterator[object]:
    """When a namespace was last named or lost its name: one without devices of ours comes and goes unheard."""
    yield namespaces.named_at()


def matters(notice: Notice, scope: Scope, fingerprint: Fingerprint) -> bool:
    """Whether a notice may be about this node. In the namespaces of its peers everything is."""
    if not isinstance(notice, Touched):
        return True
    if notice.nsid is not None:
        return notice.nsid in scope.nsids
    ours = notice.index is None or notice.index in fingerprint.indexes
    return ours or (None, notice.name) in scope.ends or notice.alias == mark(scope.node)
