"""Requests that make, change and delete links, in rtnetlink messages. What links are like is read in links.py.

Layouts: include/uapi/linux/if_link.h.
"""

from __future__ import annotations

import os
from functools import lru_cache

from nkform.attributes import ATTRIBUTES, ONE_QUEUE, Attribute, Ifla, NetkitData
from nkform.dataclass import replace
from nkform.kernel.links import (
    FLAG_BITS,
    IFF_UP,
    IFINFOMSG,
    IFLA_GROUP,
    IFLA_IFALIAS,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    IFLA_MASTER,
    IFLA_NET_NS_FD,
    NUMBERS,
    RTM_DELLINK,
    RTM_NEWLINK,
)
from nkform.kernel.netlink import NLA_F_NESTED, NLM_F_CREATE, NLM_F_EXCL, Request, attribute, nested, text, u32
from nkform.kinds import NETKIT
from nkform.model import Attrs, Device, Value, mark

ALIKE = 256
"""Sets of attributes that are remembered: the ends of a node's pairs have few that differ."""


def _encode(attr: Attribute, value: Value) -> bytes:
    """An attribute of a link message; flags have none."""
    match attr.kept:
        case Ifla(number, "mac"):
            return attribute(number, bytes.fromhex(str(value).replace(":", "")))
        case Ifla(number, form):
            return attribute(number, NUMBERS[form].pack(value))
        case _:
            return b""


def _encode_data(device: Attrs, own: Attrs, peer: Attrs) -> list[bytes]:
    """INFO_DATA of a netkit out of the values of the device and of both ends."""
    data = []
    for attr in ATTRIBUTES:
        if not isinstance(attr.kept, NetkitData):
            continue
        form = NUMBERS[attr.kept.form]
        values = (
            (attr.kept.own, (device if attr.place == "device" else own).get(attr.name)),
            (attr.kept.peer, peer.get(attr.name)),
        )
        for number, value in values:
            if value is not None and number is not None:
                data.append(attribute(number, form.pack(attr.kept.names[str(value)] if attr.kept.names else value)))
    return data


_ORDER = {attr.name: place for place, attr in enumerate(ATTRIBUTES)}


def _own_attributes(values: Attrs) -> bytes:
    return _encoded(tuple(values.items()))


@lru_cache(ALIKE)
def _encoded(values: tuple[tuple[str, Value], ...]) -> bytes:
    """The attributes of an end, in the order of the table."""
    known = sorted((_ORDER[name], value) for name, value in values if name in _ORDER)
    return b"".join(_encode(ATTRIBUTES[place], value) for place, value in known)


def _flags(values: Attrs) -> tuple[int, int]:
    """What ifi_flags and ifi_change are, for those flags that are among some values."""
    told = [(bit if values[name] else 0, bit) for name, bit in FLAG_BITS if name in values]
    return sum(flag for flag, _ in told), sum(bit for _, bit in told)


def create(device: Device, peer_namespace: int | None, group: int = 0) -> Request:
    """Makes a device, its ends down and without flags, a peer right in its namespace (a file descriptor; None: the
    caller's).

    `group`: the link group that the primary is in until `claim` marks it.
    """
    usual = {"numtxqueues": ONE_QUEUE, "numrxqueues": ONE_QUEUE} if device.traits.queues else {}
    data, beside = list[bytes](), ""
    if device.peer is not None:
        far = _own_attributes({**usual, **device.peer.attrs})
        peer = IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, device.peer.name) + far
        if peer_namespace is not None:
            peer += u32(IFLA_NET_NS_FD, peer_namespace)
        data.append(attribute(device.traits.peer_info | NLA_F_NESTED, peer))
        beside = f" with peer {device.peer.name}" + (f" in {device.peer.namespace}" if device.peer.namespace else "")
    if device.traits.own_data:
        data += _encode_data(device.attrs, device.primary.attrs, device.peer.attrs if device.peer else {})
    body = (
        IFINFOMSG.pack(0, 0, 0, 0, 0)
        + text(IFLA_IFNAME, device.primary.name)
        + (u32(IFLA_GROUP, group) if group else b"")
        + _own_attributes({**usual, **device.primary.attrs})
        + nested(IFLA_LINKINFO, text(IFLA_INFO_KIND, device.kind), nested(IFLA_INFO_DATA, *data))
    )
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create {device.kind} {device.primary.name}{beside}")


def _which(name: str, index: int, flags: int = 0, mask: int = 0) -> bytes:
    """The beginning of a request: the link with an ifindex, or where that is 0 the one that has a name."""
    return IFINFOMSG.pack(0, 0, index, flags, mask) + (b"" if index else text(IFLA_IFNAME, name))


def change(name: str, values: Attrs, index: int = 0) -> Request:
    """Changes attributes of a link's own, flags among them, in place."""
    body = _which(name, index, *_flags(values)) + _own_attributes(values)
    said = ", ".join(f"{key} {_said(value)}" for key, value in values.items())
    return Request(RTM_NEWLINK, 0, body, f"set {said} on {name}")


def _said(value: Value) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def change_data(name: str, own: Attrs, peer: Attrs, index: int = 0) -> Request:
    """Changes what a netkit lets change in place (its policies), through the primary. No other kind has any such thing.

    RTM_NEWLINK without CREATE: RTM_SETLINK ignores INFO_DATA without a word.
    """
    body = _which(name, index) + nested(
        IFLA_LINKINFO,
        text(IFLA_INFO_KIND, NETKIT.name),
        nested(IFLA_INFO_DATA, *_encode_data({}, own, peer)),
    )
    said = [f"{key} {value}" for key, value in own.items()] + [f"peer {key} {value}" for key, value in peer.items()]
    return Request(RTM_NEWLINK, 0, body, f"set {', '.join(said)} on {name}")


def set_alias(name: str, alias: str) -> Request:
    """Sets the interface alias; an empty one removes it."""
    body = IFINFOMSG.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + attribute(IFLA_IFALIAS, os.fsencode(alias))
    return Request(RTM_NEWLINK, 0, body, f"set alias {alias or 'none'} on {name}")


def set_master(index: int, name: str, master: int, told: str) -> Request:
    """Makes a link a port or a member of another one; 0 of none."""
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + u32(IFLA_MASTER, master)
    return Request(RTM_NEWLINK, 0, body, f"put {name} into {told}" if master else f"take {name} out of {told}")


def set_port(index: int, name: str, options: str) -> Request:
    """Gives a bridge's port the options that `port_options` told of another."""
    data = nested(IFLA_INFO_SLAVE_DATA, bytes.fromhex(options))
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + nested(IFLA_LINKINFO, text(IFLA_INFO_SLAVE_KIND, "bridge"), data)
    return Request(RTM_NEWLINK, 0, body, f"set the options of the bridge's port {name}")


def claim_loopback(node: str) -> Request:
    """Marks a namespace that is new, on its `lo`, and raises that."""
    request = set_alias("lo", mark(node))
    head = IFINFOMSG.pack(0, 0, 0, IFF_UP, IFF_UP)
    return replace(request, body=head + request.body[IFINFOMSG.size :], asked="mark lo and set it up")


def claim(name: str, node: str) -> Request:
    """Marks a device that is new, and takes it out of the group that it was made in."""
    request = set_alias(name, mark(node))
    return replace(request, body=request.body + u32(IFLA_GROUP, 0))


def rename(index: int, old: str, new: str) -> Request:
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + text(IFLA_IFNAME, new)
    return Request(RTM_NEWLINK, 0, body, f"rename {old} to {new}")


def move(index: int, old: str, new: str, namespace: int, where: str) -> Request:
    """Moves a link to the namespace of a file descriptor, under a new name if that differs."""
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + u32(IFLA_NET_NS_FD, namespace)
    if old != new:
        body += text(IFLA_IFNAME, new)
    return Request(RTM_NEWLINK, 0, body, f"move {old} to {where}")


def set_group(index: int, name: str, group: int) -> Request:
    body = IFINFOMSG.pack(0, 0, index, 0, 0) + u32(IFLA_GROUP, group)
    return Request(RTM_NEWLINK, 0, body, f"put {name} into group {group}")


def delete_group(group: int) -> Request:
    """Deletes all links of a group at once, which costs the kernel one grace period instead of one a link."""
    return Request(
        RTM_DELLINK, 0, IFINFOMSG.pack(0, 0, 0, 0, 0) + u32(IFLA_GROUP, group), f"delete device group {group}"
    )


def delete(index: int, name: str) -> Request:
    return Request(RTM_DELLINK, 0, IFINFOMSG.pack(0, 0, index, 0, 0), f"delete {name}")
