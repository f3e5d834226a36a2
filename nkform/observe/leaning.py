"""What others have that goes with a link: the devices that are made upon it.

Out of the dumps of links that are read anyway. Reads nothing, changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nkform.kernel.links import Link
from nkform.kinds import kind_of
from nkform.model import Upper

Leaning = dict[tuple[str, int], list[Upper]]
"""By the key of the namespace and the ifindex of the link below."""


def note(leaning: Leaning, key: str, known: Mapping[int, Link], below: Callable[[int], str | None]) -> None:
    """Notes what leans on links, out of the links of one namespace.

    `below` tells the key of a namespace by the id that it has there, None where that is not known.
    """
    for link in known.values():
        if not leans(link):
            continue
        lower = key if link.nsid is None else below(link.nsid)
        if lower is not None:
            leaning.setdefault((lower, link.link), []).append(Upper(link.kind, key, link.name))


def any_leans(known: Mapping[int, Link]) -> bool:
    """Whether `note` would find anything: in nearly all namespaces nothing leans on anything."""
    return any(map(leans, known.values()))


def leans(link: Link) -> bool:
    """Whether a link is made upon another one. The IFLA_LINK of a pair is the other end; that of all other kinds is the
    device below."""
    return bool(link.link) and not kind_of(link.kind).has_peer and (link.nsid is not None or link.link != link.index)
