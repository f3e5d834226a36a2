"""The known word that a mistyped one was probably meant to be. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

_MOST = 2000
"""Words looked at: a suggestion is not worth a wait."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The most similar of the known words, or None if none is similar."""
    import difflib

    words = list(islice(known, _MOST))
    folded = {w.lower().replace("-", "_"): w for w in words}
    found = difflib.get_close_matches(word[:64].lower().replace("-", "_"), folded, 1, 0.6)
    return folded[found[0]] if found else None
