"""All that the kernel keeps of a machine's network, read raw, attribute by attribute, whether nkform knows it or not.

What the kernel numbers anew (ifindexes, ids) and what goes by itself (counters, ages, link-local addresses that come
some time after a link is up) is left out: all else must be the same when a change was taken back.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from socket import AF_INET, AF_INET6

from nkform.kernel import bpf, bpffs
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_links import AttachType, query
from nkform.kernel.bpf_maps import MapType, map_info, map_items
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.clsact import Direction, Tc
from nkform.kernel.netlink import Request, Socket, consistent_dump, walk
from nkform.kernel.netns import Namespaces
from nkform.kernel.qdiscs import at_ingress
from tests.sizes import LAB

RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE, RTM_GETRULE, RTM_GETQDISC = 18, 22, 26, 34, 38

# include/uapi/linux/if_link.h: indexes, operational state, statistics, carrier counters, the qdisc (which a link gets
# when it first comes up) and the like
LINK_MOVING = {5, 6, 7, 16, 23, 26, 33, 35, 36, 37, 47, 48, 57}
IFNAME, LINKINFO, ADDRESS, PERM_ADDRESS, MASTER = 3, 18, 1, 54, 10
UP, RUNNING, LOWER_UP = 1, 1 << 6, 1 << 16
AF_SPEC, SYSCTLS = 26, (("ipv4", AF_INET, 1), ("ipv6", AF_INET6, 2))
"""IFLA_INET_CONF and IFLA_INET6_CONF: all sysctls of a link as numbers."""

KEYED = (MapType.HASH, MapType.LPM_TRIE)
"""Maps whose keys somebody chose."""

HOOKS = (AttachType.TCX_INGRESS, AttachType.TCX_EGRESS, AttachType.NETKIT_PRIMARY, AttachType.NETKIT_PEER)

Netstate = dict[str, list[str]]


def netstate_snapshot() -> Netstate:
    """The state of this namespace and of all named ones, part by part, each as sorted lines."""
    found: Netstate = {}
    with Namespaces() as namespaces:
        names = namespaces.names()
        found["namespaces"] = names
        found |= _inside("root")
        for name in names:
            with namespaces.open(name) as fd, namespaces.entered(fd, name):
                found |= _inside(name)
    found["pins"] = sorted(f"{p.device} {p.hook} {p.entry.rsplit('@', 2)[0]}" for p in _pins(bpffs.FOLDER))
    return found


def differences(before: Netstate, after: Netstate) -> list[str]:
    """What went and what came, line by line; a line that is there twice is not one that is there once."""
    return [
        f"{sign} {part}: {line}"
        for part in sorted({*before, *after})
        for sign, some, others in (("-", before, after), ("+", after, before))
        for line in (Counter(some.get(part, [])) - Counter(others.get(part, []))).elements()
    ]


def held() -> list[str]:
    """The pins of programs that chains lost."""
    return [pin.entry for pin in _pins(bpffs.HELD)]


def _pins(top: str) -> Iterator[bpffs.Pin]:
    folder = Path(bpffs.BASE, top)
    for node in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield from bpffs.pins(bpffs.decode(node.name), top=top)


def _inside(where: str) -> Netstate:
    with Socket() as socket:
        links = {index: (lines, sysctls) for index, lines, sysctls in consistent_dump(_links, socket)}
        names = {index: lines[0].split()[0] for index, (lines, _) in links.items()}
        parts = {
            "links": sorted(line for lines, _ in links.values() for line in lines),
            "addresses": sorted(consistent_dump(partial(_addresses, names=names), socket)),
            "routes": sorted(consistent_dump(partial(_routes, names=names), socket)),
            "rules": sorted(consistent_dump(_rules, socket)),
            "qdiscs": sorted(consistent_dump(partial(_qdiscs, names=names), socket)),
            "hooks": [line for index in names for line in _hooks(socket, index, names[index])],
            "sysctls": sorted(line for _, sysctls in links.values() for line in sysctls),
            "files": [] if LAB else sorted(_files(names.values())),
        }
    return {f"{where}: {part}": lines for part, lines in parts.items()}


def _links(socket: Socket) -> Iterator[tuple[int, list[str], list[str]]]:
    """By ifindex, a line for each attribute, and the sysctls."""
    for message in socket.dump(Request(RTM_GETLINK, 0, struct.pack("=BxHiII", 0, 0, 0, 0, 0), "list links")):
        _, kind, index, flags, _ = struct.unpack_from("=BxHiII", message.buffer, message.start)
        found = walk(message.buffer, message.start + 16, message.end)
        name = bytes(found[IFNAME]).rstrip(b"\0").decode()
        data = walk(found[LINKINFO], 0, len(found[LINKINFO])) if LINKINFO in found else {}
        parts: dict[object, str] = {n: bytes(value).hex() for n, value in found.items() if n not in LINK_MOVING}
        for moving in (LINKINFO, ADDRESS, PERM_ADDRESS):  # random where nobody chose one
            parts.pop(moving, None)
        info = {number: bytes(value).hex() for number, value in data.items() if number not in (3, 5)}
        parts |= {f"info {number}": value for number, value in info.items()}
        own = [f"{name} attribute {number} = {value}" for number, value in parts.items()]
        yield index, [f"{name} {kind} flags {flags & ~(RUNNING | LOWER_UP):x}", *own], list(_sysctls(name, found))


def _sysctls(name: str, found: Mapping[int, memoryview]) -> Iterator[str]:
    families = walk(found[AF_SPEC], 0, len(found[AF_SPEC])) if AF_SPEC in found else {}
    for family, number, conf in SYSCTLS:
        inside = walk(families[number], 0, len(families[number])) if number in families else {}
        for place, (value,) in enumerate(struct.iter_unpack("=i", inside.get(conf, b""))):
            yield f"{name} {family} {place} {value}"


def _addresses(socket: Socket, names: dict[int, str]) -> Iterator[str]:
    for message in socket.dump(Request(RTM_GETADDR, 0, struct.pack("=BBBBI", 0, 0, 0, 0, 0), "list addresses")):
        family, length, flags, scope, index = struct.unpack_from("=BBBBI", message.buffer, message.start)
        found = walk(message.buffer, message.start + 8, message.end)
        if 11 in found and found[11][0] == 3:
            continue  # the kernel's own link-local address
        # Neither lifetimes (IFA_CACHEINFO), nor whether others of its subnet came before (IFA_F_SECONDARY), nor labels,
        # which the kernel makes up when it renames a link
        parts = {number: bytes(value).hex() for number, value in found.items() if number not in (3, 6, 8)}
        yield f"{names.get(index)} {family} {length} {flags & ~0x41:x} {scope} {parts}"


def _routes(socket: Socket, names: dict[int, str]) -> Iterator[str]:
    for message in socket.dump(Request(RTM_GETROUTE, 0, struct.pack("=8BI", *[0] * 9), "list routes")):
        head = struct.unpack_from("=8BI", message.buffer, message.start)
        found = walk(message.buffer, message.start + 12, message.end)
        device = names.get(struct.unpack("=I", found[4])[0]) if 4 in found else None
        parts = {number: bytes(value).hex() for number, value in found.items() if number not in (4, 12)}
        protocol, flags, text = head[5], head[8], f"{device} {head[:8]} {parts}"
        if flags & 0x200 or (head[0] == 10 and protocol == 2):
            continue  # cloned, or IPv6 routes that the kernel makes by itself some time after
        yield text


def _rules(socket: Socket) -> Iterator[str]:
    for message in socket.dump(Request(RTM_GETRULE, 0, struct.pack("=8BI", *[0] * 9), "list rules")):
        yield bytes(message.buffer[message.start : message.end]).hex()


def _qdiscs(socket: Socket, names: dict[int, str]) -> Iterator[str]:
    for message in socket.dump(Request(RTM_GETQDISC, 0, struct.pack("=BxxxiIII", 0, 0, 0, 0, 0), "list qdiscs")):
        _, index, handle, parent, _ = struct.unpack_from("=BxxxiIII", message.buffer, message.start)
        kind = bytes(walk(message.buffer, message.start + 20, message.end)[1]).rstrip(b"\0").decode()
        # A clsact of ours that is empty stays on a pair: the kernel would stop the device for a moment as it goes.
        if kind not in ("noqueue", "clsact"):
            yield f"{names.get(index)} {kind} {handle:x} {parent:x}"


def _hooks(socket: Socket, index: int, name: str) -> Iterator[str]:
    """What each hook runs, in order."""
    for attach_type in HOOKS:
        try:
            entries = query(index, attach_type).entries
        except BpfError:
            continue
        for entry in entries:
            yield f"{name} {attach_type.name} {_program(entry.prog_id)}"
    if index in at_ingress(socket)[0]:
        with Tc() as tc:
            for direction in Direction:
                for each in tc.filters(index, direction):
                    yield f"{name} {direction.name} {each.name} {_program(each.prog_id)}"


def _program(number: int) -> str:
    try:
        fd = bpf.prog_fd(number)
    except BpfError as error:
        if error.errno != errno.ENOENT:
            raise
        return f"program {number}, which has gone"
    try:
        info = prog_info(fd)
        maps = []
        for map_id in info.map_ids:
            map_fd = bpf.map_fd(map_id)
            try:
                found = map_info(map_fd)
                keys = sorted(map_items(map_fd, found)) if found.type in KEYED else []
                maps.append(f"{found.name} {[key.hex() for key in keys]}")
            finally:
                os.close(map_fd)
        return f"{info.name} {info.tag} {sorted(maps)}"
    finally:
        os.close(fd)


def _files(names: Collection[str]) -> Iterator[str]:
    """The same again, and the few that links do not tell; in the lab it takes long to open so many files."""
    for family in ("ipv4", "ipv6"):
        for name in names:
            folder = Path("/proc/sys/net", family, "conf", name)
            for file in folder.iterdir() if folder.is_dir() else ():
                try:
                    yield f"{family} {name} {file.name} {file.read_text().strip()}"
                except OSError:
                    continue
