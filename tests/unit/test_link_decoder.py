"""A decoder that knows links already tells the same of a further one as a plain reading of its message."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkform.attributes import ATTRIBUTES, Flag, Ifla, NetkitData
from nkform.kernel import links
from nkform.kernel.netlink import U32, Message, attribute, nested, text, u32, walk

LINKINFO, KIND, DATA = links.IFLA_LINKINFO, links.IFLA_INFO_KIND, links.IFLA_INFO_DATA
U16S = (links.IFLA_HEADROOM, links.IFLA_TAILROOM)
U32S = (links.IFLA_MASTER, links.IFLA_LINK, links.IFLA_LINK_NETNSID, links.IFLA_GROUP)
OTHERS = (6, 26, 33, 50)
"""Numbers of attributes that the model does not have."""

names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=15)
words = st.integers(0, 2**32 - 1)


@st.composite
def data(draw: st.DrawFn) -> bytes:
    """INFO_DATA of a netkit."""
    parts = [attribute(links.IFLA_NETKIT_PRIMARY, bytes([draw(st.integers(0, 1))]))] if draw(st.booleans()) else []
    for row in ATTRIBUTES:
        if isinstance(row.kept, NetkitData):
            size = 2 if row.kept.form == "u16" else 4
            for number in (row.kept.own, row.kept.peer):
                if number is not None and draw(st.booleans()):
                    parts.append(attribute(number, draw(st.integers(0, 5)).to_bytes(size, "little")))
    return nested(DATA, *draw(st.permutations(parts)))


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The body of a RTM_NEWLINK message."""
    parts = [text(links.IFLA_IFNAME, draw(names))]
    for row in ATTRIBUTES:
        if isinstance(row.kept, Ifla) and draw(st.booleans()):
            mac = st.sampled_from([bytes(6), bytes(range(6))]) | st.binary(min_size=4, max_size=20)
            value = mac if row.kept.form == "mac" else words.map(U32.pack)
            parts.append(attribute(row.kept.number, draw(value)))
    parts += [u32(number, draw(words)) for number in U32S if draw(st.booleans())]
    parts += [attribute(number, draw(st.binary(min_size=2, max_size=2))) for number in U16S if draw(st.booleans())]
    parts += [attribute(number, draw(st.binary(max_size=9))) for number in OTHERS if draw(st.booleans())]
    if draw(st.booleans()):
        parts.append(attribute(links.IFLA_IFALIAS, draw(names).encode() + b"\0"))
    kind = draw(st.sampled_from(["", "veth", "netkit", "netkiu", "dummy"]))
    if kind:
        parts.append(nested(LINKINFO, text(KIND, kind), *([draw(data())] if draw(st.booleans()) else [])))
    if draw(st.integers(0, 9)) == 0:
        parts.append(draw(st.sampled_from(parts)))
    head = links.IFINFOMSG.pack(
        0, draw(st.sampled_from([1, 772, 65534])), draw(st.integers(1, 2**31 - 1)), draw(words), 0
    )
    return head + b"".join(draw(st.permutations(parts)))


def plain(body: bytes) -> links.Link:
    """The message read attribute by attribute."""

    def number(payload: bytes | None, default: int | None = None) -> int | None:
        return default if payload is None else int.from_bytes(payload[:4], "little")

    def told(payload: bytes | None) -> str:
        return (payload or b"").partition(b"\0")[0].decode(errors="surrogateescape")

    _, _, index, flags, _ = links.IFINFOMSG.unpack_from(body)
    parts = walk(body, links.IFINFOMSG.size, len(body))
    info = walk(parts[LINKINFO], 0, len(parts[LINKINFO])) if LINKINFO in parts else {}
    kind = told(info.get(KIND))
    inside = walk(info[DATA], 0, len(info[DATA])) if kind == "netkit" and DATA in info else {}
    values: dict[str, object] = {}
    own: dict[str, object] = {}
    peer: dict[str, object] = {}
    for row in ATTRIBUTES:
        match row.kept:
            case Ifla(at, form) if at in parts:
                values[row.name] = parts[at].hex(":") if form == "mac" else number(parts[at])
            case Flag(bit):
                values[row.name] = bool(flags & bit)
            case NetkitData(at, other, _, spelled):
                for into, place in ((own, at), (peer, other)):
                    if place in inside:
                        value = number(inside[place])
                        into[row.name] = (
                            {n: name for name, n in spelled.items()}.get(value, f"#{value}") if spelled else value
                        )
    if values.get("mac") == links.NO_MAC:
        del values["mac"]
    return links.Link(
        index, told(parts.get(links.IFLA_IFNAME)), kind, told(parts.get(links.IFLA_IFALIAS)),
        number(parts.get(links.IFLA_MASTER), 0), number(parts.get(links.IFLA_LINK), 0),
        number(parts.get(links.IFLA_LINK_NETNSID)), number(parts.get(links.IFLA_GROUP), 0),
        bool(inside.get(links.IFLA_NETKIT_PRIMARY, b"\0")[0]), values, own, peer,
        number(parts.get(links.IFLA_HEADROOM)), number(parts.get(links.IFLA_TAILROOM)),
        header=14 if links.IFINFOMSG.unpack_from(body)[1] in (1, 772) else 0,
    )  # type: ignore[arg-type]  # fmt: skip


def message(body: bytes) -> Message:
    """The body as it stands in a datagram, behind something else."""
    return Message(links.RTM_NEWLINK, bytes(20) + body + bytes(8), 20, 20 + len(body))


@given(st.lists(bodies(), min_size=1, max_size=6))
def test_links_of_all_forms_are_decoded_one_after_the_other(some: list[bytes]) -> None:
    decoder = links.Decoder()
    for body in some + some[::-1]:
        assert decoder(message(body)) == plain(body)


@given(bodies(), st.data())
def test_a_message_that_differs_in_one_word_is_not_mistaken(body: bytes, data: st.DataObject) -> None:
    """Whatever the word is: a header, a kind or a value."""
    decoder = links.Decoder()
    decoder(message(body))
    place = 4 * data.draw(st.sampled_from([0, *range(2, len(body) // 4)]))  # no index of a link is negative
    other = body[:place] + data.draw(st.binary(min_size=4, max_size=4)) + body[place + 4 :]
    if not _short(other):
        assert decoder(message(other)) == plain(other)


def _short(body: bytes) -> bool:
    """Whether a number in a message has fewer bytes than the kernel gives it."""

    def lacks(parts: Mapping[int, bytes], sizes: Mapping[int, int]) -> bool:
        return any(number in parts and len(parts[number]) < size for number, size in sizes.items())

    parts = walk(body, links.IFINFOMSG.size, len(body))
    sizes = {row.kept.number: 4 for row in ATTRIBUTES if isinstance(row.kept, Ifla) and row.kept.form != "mac"}
    info = walk(parts.get(LINKINFO, b""), 0, len(parts.get(LINKINFO, b"")))
    inside = walk(info.get(DATA, b""), 0, len(info.get(DATA, b"")))
    rows = [row.kept for row in ATTRIBUTES if isinstance(row.kept, NetkitData)]
    sizes |= dict.fromkeys(U32S, 4) | dict.fromkeys(U16S, 2)
    data = {links.IFLA_NETKIT_PRIMARY: 1, **{row.own: 4 for row in rows}, **{row.peer: 4 for row in rows if row.peer}}
    return lacks(parts, sizes) or lacks(inside, data | {row.own: 2 for row in rows if row.form == "u16"})


@pytest.mark.parametrize("index", [1, 7])
def test_a_link_without_anything_is_a_link(index: int) -> None:
    body = links.IFINFOMSG.pack(0, 1, index, 1, 0)
    link = links.decode(message(body))
    assert (link.index, link.name, link.values) == (index, "", {"up": True, "promisc": False, "allmulticast": False})


def loopback(index: int, name: str, protocols: bytes, mtu: int = 65536) -> bytes:
    parts = text(links.IFLA_IFNAME, name), u32(links.IFLA_MTU, mtu), attribute(links.IFLA_AF_SPEC, protocols)
    return links.IFINFOMSG.pack(0, 1, index, 1, 0) + b"".join(parts) + u32(links.IFLA_GROUP, 0)


def test_one_object_serves_for_loopbacks_that_differ_in_what_protocols_keep_there() -> None:
    decoder = links.Decoder()
    some = [decoder(message(loopback(1, "lo", bytes([n] * 8)))) for n in range(3)]
    assert some[0] is some[1] is some[2]
    others = [
        loopback(1, "lo", bytes(12)),
        loopback(1, "lo", bytes(8), 1500),
        loopback(1, "lp", bytes(8)),
        loopback(2, "lo", bytes(8)),
    ]
    assert [decoder(message(body)) for body in others] == [links.decode(message(body)) for body in others]
