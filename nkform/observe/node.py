"""The live node: what carries a node's mark, what a spec names, and what stands beside it.

Mirrors plan/ file by file: observe finds what is, plan says what should change. Reads the kernel, changes nothing.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial

from nkform.attributes import ATTRIBUTES
from nkform.dataclass import dataclass, replace
from nkform.device_sysctls import ADDR_GEN_MODE, FORCE_FORWARDING, FORWARDING, STABLE_SECRET
from nkform.kernel import bpffs, clock, devconf, hardware, links
from nkform.kernel.error import KernelError, unless_gone
from nkform.kernel.netlink import Socket
from nkform.kernel.netns import Namespaces
from nkform.kernel.qdiscs import FILTER_PREFIX, at_ingress, has_filter
from nkform.kinds import EXTERNAL, kind_of
from nkform.model import Attrs, Device, Endpoint, Master, Namespace, Node, RootDevice, Taken, mark, owner_of
from nkform.namespace_key import ROOT, OfPath, OfPid, Unnamed, is_unnamed, key_of, meant_by
from nkform.observe import owned, sysctls
from nkform.observe.leaning import Leaning, any_leans, note
from nkform.observe.namespaces import Contents, read, visit
from nkform.observe.taken import Place, Slot

ETH_MAX_MTU = 0xFFFF
"""include/uapi/linux/if_ether.h. Bytes."""
TORN = (0.01, 0.02, 0.04)
"""Seconds between one look and the next while a pair lacks an end: it went between two of the dumps of one look."""
_DEVICE_WIDE = frozenset(a.name for a in ATTRIBUTES if a.place == "device")


@dataclass(frozen=True, slots=True)
class _World:
    """All that was read: contents by namespace key, and the keys by which each namespace id is known.

    `owners`: whose each namespace is that is on record, by its cookie. `recorded`: the cookies of the node's own, by
    the names that nkform gave them. `leaning`: what is made upon which link. `barred`: keys of namespaces that this
    process may not enter, or cannot read, and why.
    """

    contents: Mapping[str, Contents]
    keys: Mapping[int | None, tuple[str, ...]]
    owners: Mapping[int, str]
    recorded: Mapping[str, int]
    leaning: Leaning
    barred: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Begun:
    """What a run that was killed may have made and not marked: devices of these names in its link group."""

    group: int
    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is to be looked at. `owners` gets all whose mark is on a device or a namespace here. `all_sysctls`: also
    those that no spec names. `also`: keys of namespaces that the spec does not name."""

    node: str
    desired: Node | None = None
    begun: Begun | None = None
    owners: set[str | None] | None = None
    all_sysctls: bool = False
    also: Collection[str] = ()


def observe(
    namespaces: Namespaces,
    node: str,
    desired: Node | None = None,
    begun: Begun | None = None,
    *,
    all_sysctls: bool = False,
    also: Collection[str] = (),
) -> Node:
    """The live state of a node, as far as it is ours, `begun` or declared. Raises KernelError.

    `all_sysctls`: also those sysctls of its ends that no spec names, where they are not at their default. `also`: keys
    by which peers may be reached that are in no namespace with a name, and that the spec does not name any more.
    """
    return _observe(namespaces, _Wish(node, desired, begun, None, all_sysctls, also))


def observe_only(namespaces: Namespaces, likely: str, *, all_sysctls: bool = False) -> Node | None:
    """The live state of a node, if it is the only one that has marks here, and has some. Raises KernelError.

    It takes one look, where to ask for the names of all nodes first (`nodes`) takes two.
    """
    owners = set[str | None]()
    live = _observe(namespaces, _Wish(likely, owners=owners, all_sysctls=all_sysctls))
    return live if owners - {None} == {likely} else None


def _observe(namespaces: Namespaces, wish: _Wish) -> Node:
    """Where the spec names the namespace that we run in, we look again, for what it says of that one."""
    live = _whole(namespaces, wish)
    if wish.desired and live.home:
        return replace(_whole(namespaces, replace(wish, desired=wish.desired.at_home(live.home))), home=live.home)
    return live


def _whole(namespaces: Namespaces, wish: _Wish) -> Node:
    """One look in which no pair lacks an end and no device of it went, or the last of several."""
    for pause in TORN:
        live, gone = _look(namespaces, wish)
        if not gone and all(device.peer for device in live.devices.values() if device.traits.has_peer):
            return live
        clock.pause(pause)
    return _look(namespaces, wish)[0]


def _look(namespaces: Namespaces, wish: _Wish) -> tuple[Node, Collection[str]]:
    """The live state, out of one dump after the other; and the names of devices that went meanwhile, and are left
    out."""
    node, desired, begun, owners = wish.node, wish.desired, wish.begun, wish.owners
    declared = desired.devices if desired else {}
    world, values = _read(namespaces, wish)
    root = world.contents[ROOT]
    if owners is not None:
        owners.update(owner_of(link.alias) for link in root.links.values())
        owners.update(world.owners.get(contents.cookie) for contents in world.contents.values())
    devices: dict[str, Device] = {}
    found: set[str] = set()
    for link in (_marked(link, node, begun) for link in root.links.values()):
        owner = owner_of(link.alias)
        if link.name in declared or (owner == node and kind_of(link.kind).made):
            with unless_gone():
                device = _device(world, link, declared.get(link.name), node)
                devices[link.name] = sysctls.with_sysctls(device, values)
            found.add(link.name)
    devices, astray = _with_hooks(devices, root, node, declared)
    if gone := found - devices.keys():
        root = replace(root, links={index: link for index, link in root.links.items() if link.name not in gone})
        world = replace(world, contents={**world.contents, ROOT: root})
    covered = any(device.chains for device in declared.values()) and bpffs.is_covered()
    if covered:
        from nkform.observe import other_nodes

        devices = other_nodes.known(devices, node)
    devices = _with_contents(devices, declared)
    devices = {name: devices[name] for name in (*declared, *sorted(devices)) if name in devices}
    known = _namespaces(world, node, desired, devices.values())
    lacking = {key for key in desired.namespaces if key not in known} if desired else set()
    home = tuple(sorted(_named(desired).intersection(world.keys[None])))
    lacking -= {*home, *world.barred}
    live = Node(
        name=node,
        namespaces=known,
        devices=devices,
        root_devices={link.name: _root_device(link, root.links) for link in root.links.values()},
        covered=covered,
        taken=_taken(world, devices),
        astray=astray,
        occupied={key: namespaces.path(key) for key in namespaces.names() if key in lacking} if lacking else {},
        home=home,
        barred={key: world.barred[key] for key in sorted(_named(desired).intersection(world.barred))},
        marked_only=tuple(sorted(_marked_only(world, node))),
    )
    return live, gone


def _root_device(link: links.Link, root: Mapping[int, links.Link]) -> RootDevice:
    carrier = root[link.link].name if link.nsid is None and link.link in root else ""
    mtu: int = link.values["mtu"]  # type: ignore[assignment]
    return RootDevice(link.headroom, link.tailroom, link.index, mtu, carrier, link.header)


def _taken(world: _World, devices: Mapping[str, Device]) -> dict[str, tuple[Taken, ...]]:
    """What others have where an end is still to come; what is in the way of one that is there is said of that end."""
    coming: dict[str, tuple[Taken, ...]] = {}
    for contents in world.contents.values():
        for (name, side), some in contents.taken.items():
            device = devices.get(name)
            if device is None or side >= len(device.ends) or not device.ends[side].taken:
                coming[name] = (*coming.get(name, ()), *(replace(each, side=side) for each in some))
    return coming


def _marked(link: links.Link, node: str, begun: Begun | None) -> links.Link:
    """A link with the mark that it would have if the run that made it had gone on."""
    lacks = begun and link.group == begun.group and link.name in begun.names and not link.alias
    return replace(link, alias=mark(node)) if lacks else link


def _with_hooks(
    devices: dict[str, Device], root: Contents, node: str, declared: Mapping[str, Device]
) -> tuple[dict[str, Device], int]:
    """The devices with what their hooks run, where anything of ours runs or shall run; how many links are astray."""
    with Socket() as socket:
        legacy, taken = at_ingress(socket)
        known = {device.index for device in devices.values()}
        if taken.keys() & known:
            devices = {n: replace(d, tc_taken=taken[d.index]) if d.index in taken else d for n, d in devices.items()}
        left = {index for index in legacy - known if has_filter(socket, index, f"{FILTER_PREFIX}{node}@")}
    # On the way back, what was observed before is declared.
    chained = any(device.chains or any(hook.ours for hook in device.hooks.values()) for device in declared.values())
    if not chained and not bpffs.has_node(node) and not legacy & known and not left:
        return devices, 0
    from nkform.observe.chains import with_hooks

    for index in left & root.links.keys():  # devices of others, with programs of ours that no spec names any more
        name = root.links[index].name
        devices[name] = Device(name, EXTERNAL.name, {}, Endpoint(name), index=index)
    indexes = {link.name: link.index for link in root.links.values()}
    return with_hooks(devices, node, indexes, legacy, bpffs.BASE)


def _with_contents(devices: dict[str, Device], declared: Mapping[str, Device]) -> dict[str, Device]:
    """The devices with what the maps of declared programs hold."""
    shall = (program.contents for d in declared.values() for chain in d.chains.values() for program in chain.programs)
    before = (entry.contents for d in declared.values() for hook in d.hooks.values() for entry in hook.ours)
    if not any(shall) and not any(before):
        return devices
    from nkform.observe.contents import with_contents

    return with_contents(devices, declared)


def _named(desired: Node | None) -> set[str]:
    """The keys of all namespaces that a spec names, the root one aside; one without a name cannot be asked for."""
    if desired is None:
        return set()
    keys = set(desired.namespaces) | {end.namespace for d in desired.devices.values() for end in d.ends}
    return {key for key in keys if key != ROOT and not is_unnamed(key)}


def _sysctls(devices: Iterable[Device]) -> sysctls.Wanted:
    wanted: dict[str, dict[str, Mapping[str, str]]] = {}
    for device in devices:
        for end in device.ends:
            if end.sysctl:
                more = {FORCE_FORWARDING: "1"} if end.sysctl.get(FORWARDING) == "1" else {}
                if STABLE_SECRET in end.sysctl:
                    more[ADDR_GEN_MODE] = "2"
                wanted.setdefault(end.namespace, {})[end.name] = {**more, **end.sysctl} if more else end.sysctl
    return wanted


def _read(namespaces: Namespaces, wish: _Wish) -> tuple[_World, dict[tuple[str, str], Mapping[str, str]]]:
    """Reads every namespace that matters, and the sysctls that are asked for there. Each is entered once."""
    node, desired = wish.node, wish.desired
    decoder = links.Decoder()
    named = _named(desired) | set(wish.also)
    declared = desired.devices if desired else {}
    wanted = _sysctls(declared.values())
    changed: dict[tuple[str, str], Mapping[str, str]] = {}

    def is_ours(link: links.Link) -> bool:
        return owner_of(link.alias) == node or link.name in declared

    ends = _ends(declared.values())
    recorded = owned.read_all(node)
    owners = {cookie: each for each, cookies in recorded.items() for cookie in cookies.values()}

    def ours(known: Mapping[int, links.Link], socket: Socket) -> tuple[set[int], list[Place]]:
        """Our devices and declared ones, and their peers where those are in the root namespace."""
        some = [link for link in known.values() if is_ours(link)]
        here = {(link.name, 0): link.index for link in some}
        here |= {(link.name, 1): link.link for link in some if link.nsid is None and kind_of(link.kind).has_peer}
        changed.update(sysctls.changed(ROOT, known, socket) if wish.all_sysctls else ())
        return set(here.values()), _places(ends.get(ROOT, ()), here)

    root = read(decoder, ours)
    values: dict[tuple[str, str], Mapping[str, str]] = {}
    shared = devconf.Shared()
    values.update(sysctls.wanted_of(root.links, ROOT, wanted, shared))
    contents = {ROOT: root}
    keys: dict[int | None, list[str]] = {None: [ROOT]}
    leaning: Leaning = {}

    def look(key: str, is_root: bool) -> None:
        if is_root:
            keys[None].append(key)
            values.update(sysctls.wanted_of(root.links, key, wanted, shared))
            return
        primaries: list[links.Link] = []

        def matters(known: Mapping[int, links.Link], socket: Socket) -> tuple[Collection[int], list[Place]]:
            """The other ends of the root namespace's pairs: nothing else in a namespace can be ours."""
            primaries.extend(_primaries(root, known, namespaces, socket))
            if any_leans(known):
                home = cache(partial(namespaces.home_id, socket))
                note(leaning, key, known, lambda nsid: ROOT if nsid == home() else None)
            here = {(primary.name, 1): primary.link for primary in primaries}
            relevant = key in named or owners.get(socket.cookie()) == node or any(map(is_ours, primaries))
            changed.update(sysctls.changed(key, known, socket) if wish.all_sysctls and relevant else ())
            return here.values() if relevant else (), _places(ends.get(key, ()), here)

        try:
            contents[key] = read(decoder, matters)
            values.update(sysctls.wanted_of(contents[key].links, key, wanted, shared))
        except KernelError as error:
            if key in named:
                raise
            contents.update(_links_alone(key, decoder, error))
        for nsid in {primary.nsid for primary in primaries}:
            keys.setdefault(nsid, []).append(key)

    barred = visit(namespaces, dict.fromkeys((*namespaces.names(), *sorted(named))), look)
    note(leaning, ROOT, root.links, lambda nsid: keys.get(nsid, [None])[0])
    keyed = {nsid: tuple(some) for nsid, some in keys.items()}
    return _World(contents, keyed, owners, recorded.get(node, {}), leaning, barred), values | changed


def _links_alone(key: str, decoder: links.Decoder, error: KernelError) -> dict[str, Contents]:
    """Whose a namespace is, and what links are there, where an address or a route is too large to be told of."""
    with suppress(KernelError):
        if error.errno == errno.EMSGSIZE:
            return {key: read(decoder, lambda _, __: ((), []))}
    return {}


def _ends(devices: Iterable[Device]) -> dict[str, list[tuple[Slot, Endpoint]]]:
    """The declared ends that have addresses or routes, by the keys of their namespaces."""
    ends: dict[str, list[tuple[Slot, Endpoint]]] = {}
    for device in devices:
        for side, end in enumerate(device.ends):
            if end.addresses or end.routes:
                ends.setdefault(end.namespace, []).append(((device.name, side), end))
    return ends


def _places(ends: Iterable[tuple[Slot, Endpoint]], here: Mapping[Slot, int]) -> list[Place]:
    return [Place(slot, here.get(slot, 0), end) for slot, end in ends]


def _primaries(
    root: Contents, known: Mapping[int, links.Link], namespaces: Namespaces, socket: Socket
) -> list[links.Link]:
    """The links of the root namespace whose other ends are among those of the socket's.

    Two ends name each other, and the far one names the root namespace by the id that it has there. That is as good as
    asking the kernel for the namespace's id, which takes it the longer the more namespaces there are, and can be
    arranged by nobody in a namespace: a pair of his own making has its other end elsewhere.
    """
    pairs = [
        (primary, link)
        for link in known.values()
        if link.nsid is not None
        and kind_of(link.kind).has_peer
        and (primary := root.links.get(link.link)) is not None
        and (primary.link, primary.kind) == (link.index, link.kind)
        and primary.nsid is not None
    ]
    home = namespaces.home_id(socket) if pairs else None
    return [primary for primary, link in pairs if link.nsid == home]


def _device(world: _World, link: links.Link, declared: Device | None, node: str) -> Device:
    """A device as it is, with its other end wherever that is."""
    root = world.contents[ROOT]
    common = {
        "owner": _owner_of_pair(root, link, node),
        "alias": link.alias if owner_of(link.alias) is None else "",
        "enslaved": bool(link.master),
        "index": link.index,
    }
    if declared is not None and declared.traits.programs_only:
        framing = hardware.framing(link.name) if declared.chains else "ethernet"
        primary, mac = Endpoint(link.name), str(link.values.get("mac", ""))
        return Device(link.name, declared.kind, {}, primary, framing=framing, mac=mac, **common)  # type: ignore[arg-type]
    device_wide = {name: value for name, value in link.own.items() if name in _DEVICE_WIDE}
    own = {name: value for name, value in link.own.items() if name not in _DEVICE_WIDE}
    primary = _end(world, root, link, ROOT, {**link.values, **own}, (link.name, 0))
    peer = _peer(world, link, declared) if kind_of(link.kind).has_peer else None
    return Device(link.name, link.kind, device_wide, primary, peer, **common)  # type: ignore[arg-type]


def _owner_of_pair(root: Contents, link: links.Link, node: str) -> str | None:
    """Whose a device is. One without a mark may be the other end of another node's pair, whose own mark its primary
    carries."""
    owner = owner_of(link.alias)
    if owner is None and kind_of(link.kind).has_peer and link.nsid is None and (other := root.links.get(link.link)):
        owner = owner_of(other.alias)
        return owner if owner != node else None
    return owner


def _end(world: _World, contents: Contents, link: links.Link, key: str, values: Attrs, slot: Slot) -> Endpoint:
    return Endpoint(
        name=link.name,
        namespace=key,
        attrs=values,
        addresses=contents.addresses.get(link.index, ()),
        routes=contents.routes.get(link.index, ()),
        index=link.index,
        taken=tuple(contents.taken.get(slot, ())),
        mtu_limit=_mtu_limit(link),
        master=_master(contents, link) if link.master else None,
        leaning=tuple(world.leaning.get((key, link.index), ())),
        xdp=tuple(links.xdp_programs(link)) if link.xdp else (),
        altnames=link.altnames,
    )


def _mtu_limit(link: links.Link) -> int:
    """The largest MTU of a link where that is less than what links of pairs may have (netkit and veth: ETH_MAX_MTU)."""
    return link.max_mtu if link.max_mtu < ETH_MAX_MTU else 0


def _master(contents: Contents, link: links.Link) -> Master | None:
    master = contents.links.get(link.master)
    if master is None:  # it is in another namespace, or has come since
        return None
    return Master(master.name, master.kind, links.port_options(link) if master.kind == "bridge" else "")


def _peer(world: _World, link: links.Link, declared: Device | None) -> Endpoint | None:
    """The other end, under the key that the spec has for its namespace if that leads there."""
    keys = world.keys.get(link.nsid, ())
    asked = declared.peer.namespace if declared and declared.peer else None
    for key in sorted(keys, key=lambda key: (key != asked, key not in world.recorded)) if len(keys) > 1 else keys:
        contents = world.contents.get(ROOT if link.nsid is None else key)
        if contents and (other := contents.links.get(link.link)):
            return _end(world, contents, other, key, {**other.values, **link.peer}, (link.name, 1))
    return _remote(link)


def _remote(link: links.Link) -> Endpoint | None:
    """The other end in a namespace that has no name, seen from here through its id."""
    if link.nsid is None or not link.link:
        return None
    with Socket() as socket:
        outcomes, answers = socket.ask([links.get("", index=link.link, nsid=link.nsid)])
    if outcomes[0] is not None or 0 not in answers:
        return None
    other = links.decode(answers[0][0])
    values = {**other.values, **link.peer}
    return Endpoint(other.name, key_of(Unnamed(link.nsid)), values, mtu_limit=_mtu_limit(other))


def _namespaces(world: _World, node: str, desired: Node | None, devices: Iterable[Device]) -> dict[str, Namespace]:
    """The namespaces that are ours or that the spec leads to, the root one too, and whose the links in them are."""
    ours: dict[str, set[str]] = {}
    for device in devices:
        if device.owner == node:
            for end in device.ends:
                ours.setdefault(end.namespace, set()).add(end.name)
    named = _named(desired)
    made = {name for name, space in desired.namespaces.items() if space.create} if desired else set()
    found = {}
    for key, contents in world.contents.items():
        owner = None if key == ROOT else _owner(world, key, node, agreed=bool(ours.get(key)) and key in made)
        reached = key in ours and isinstance(meant_by(key), OfPid | OfPath)  # by what is on record alone
        if owner != node and key not in named and key != ROOT and not reached:
            continue
        names = {link.name: link.name in ours.get(key, ()) for link in contents.links.values() if link.index != 1}
        marked = owner_of(contents.alias) == owner
        own = tuple(link.name for link in contents.links.values() if link.index != 1 and links.is_the_kernels(link))
        further = {alt: link.name for link in contents.links.values() if link.altnames for alt in link.altnames}
        cookie = contents.cookie
        alias = "" if owner_of(contents.alias) == node else contents.alias
        found[key] = Namespace(
            key, owner=owner, links=names, own=own, marked=marked, cookie=cookie, altnames=further, alias=alias
        )
    return found


def _marked_only(world: _World, node: str) -> Iterator[str]:
    """The namespaces that carry the node's mark and that nothing on record says to be anybody's."""
    for key, contents in world.contents.items():
        if key != ROOT and contents.cookie not in world.owners and owner_of(contents.alias) == node:
            yield key


def _owner(world: _World, key: str, node: str, *, agreed: bool) -> str | None:
    """Whose a namespace is. Its mark alone says nothing: whoever is root in there can write it.

    One of ours is ours by the name that is on record; what else leads there, a name that somebody gave it, a path or a
    process, is not nkform's to remove.

    `agreed`: the spec says that it is to be ours, and a pair of ours, which only the machine's root can mark, has its
    other end in there. That and the mark are enough where the record was lost.
    """
    contents = world.contents[key]
    owner = world.owners.get(contents.cookie)
    if owner == node and world.recorded.get(key) != contents.cookie:
        return None
    return node if owner is None and agreed and owner_of(contents.alias) == node else owner
