"""Lists in messages whose length others decide: a workload may have thousands of things. Pure."""

from __future__ import annotations

from collections.abc import Sequence

NAMED, MANY = 8, 40
"""So many things are named at most, of one kind and in all."""


def counted(number: int, noun: str) -> str:
    """A number of things: 1 device, 2 devices."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def few(texts: Sequence[str], most: int = NAMED) -> list[str]:
    """Of many things the first ones, and how many more there are."""
    return [*texts[:most], f"{len(texts) - most} more like it"] if len(texts) > most else list(texts)


def enumerated(texts: Sequence[str], most: int = NAMED) -> str:
    """The same, with commas between."""
    return ", ".join(few(texts, most))
