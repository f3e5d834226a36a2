"""The known word that a mistyped one was probably meant to be. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice

_MOST = 2000
"""Words looked at: a suggestion is not worth a wait."""


OF_OTHERS: Mapping[str, str] = {
    "type": "kind",
    "netns": "namespace",
    "ns": "namespace",
    "ifname": "name",
    "ip": "addresses",
    "gateway": "via",
    "gw": "via",
    "nexthop": "via",
    "next_hop": "via",
    "dst": "to",
    "destination": "to",
    "source": "src",
    "macaddress": "mac",
    "hwaddr": "mac",
    "lladdr": "mac",
    "enabled": "up",
}
"""What ip(8), netplan and others call what a spec calls otherwise."""


def meant(key: str, known: Collection[str]) -> str | None:
    """The known key that an unknown one was probably meant to be: one that others call so, or a similar one."""
    other = OF_OTHERS.get(key.lower().replace("-", "_"))
    return other if other in known else nearest(key, known)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The most similar of the known words, or None if none is similar."""
    import difflib

    words = list(islice(known, _MOST))
    folded = {w.lower().replace("-", "_"): w for w in words}
    found = difflib.get_close_matches(word[:64].lower().replace("-", "_"), folded, 1, 0.6)
    return folded[found[0]] if found else None
