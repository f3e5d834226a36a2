"""Numbers in names and files that others than nkform can have written."""

from __future__ import annotations

IDS = 32
"""Bits of the ids of BPF objects (include/uapi/linux/bpf.h, __u32)."""
COOKIES = 64
"""Bits of the kernel's number for a network namespace (SO_NETNS_COOKIE, socket(7))."""


def decimal(text: str, bits: int) -> int | None:
    """The number of at most so many bits that is written so, in digits and without zeros in front; None for other text.

    `str.isdigit` alone also holds for "²", which `int` refuses, and `int` refuses more than 4,300 digits.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > bits or (text[0] == "0" and text != "0"):
        return None
    number = int(text)
    return number if number < 1 << bits else None
