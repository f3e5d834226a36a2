"""What may be the name of a device, a namespace, a node, a sysctl key or a variable.

Names end up in the kernel and, some of them, in paths below /run and /proc: here is the one place that says which are
safe. Each function returns what is wrong with a name, as the rest of a sentence, or None. Pure.
"""

from __future__ import annotations

import re

from nkform.model import NODE_LENGTH, is_node_name

IFNAMSIZ = 16
"""Size of a device's name with its closing NUL, in bytes (include/uapi/linux/if.h)."""

NAME_MAX = 255
"""Longest name of a file, in bytes (include/uapi/linux/limits.h)."""

RESERVED_IFNAMES = frozenset({"all", "default", "lo"})
"""`all` and `default` stand beside the devices in /proc/sys/net/*/conf; `lo` is every namespace's own."""

_PLAIN = re.compile(r"[A-Za-z0-9_.-]+")
_SYSCTL_KEY = r"[a-z0-9_]{1,64}"
_VARIABLE = r"[A-Za-z_][A-Za-z0-9_.-]{0,63}"

IFNAME_RULE = "a device's name has at most 15 bytes, without white space, '/', ':' and '%'"
NETNS_RULE = "a namespace's name becomes a file below /run/netns: at most 255 bytes, without white space, '/' and ':'"


def ifname_fault(name: str) -> str | None:
    """What is wrong with the name of a device: dev_valid_name() in net/core/dev.c, and what would be a trap."""
    if name in RESERVED_IFNAMES or name in {".", ".."}:
        return "is reserved"
    if len(name) < IFNAMSIZ and _PLAIN.fullmatch(name):
        return None
    if not name:
        return "is empty"
    for bad, what in (("/", "a slash"), (":", "a colon"), ("%", "a percent sign, which the kernel expands")):
        if bad in name:
            return f"contains {what}"
    if fault := _text_fault(name):
        return fault
    data = name.encode()
    if b"\xa0" in data:
        return "contains a letter whose UTF-8 form has a byte (0xA0) that the kernel takes for a space"
    if len(data) >= IFNAMSIZ:
        return f"is {_length(name, data)} long; the kernel allows {IFNAMSIZ - 1} bytes"
    return None


def netns_fault(name: str) -> str | None:
    """What is wrong with the name of a namespace, which becomes a file below /run/netns."""
    if name in {".", ".."}:
        return "is reserved"
    if len(name) <= NAME_MAX and _PLAIN.fullmatch(name):
        return None
    if not name:
        return "is empty"
    for bad, what in (("/", "a slash"), (":", "a colon")):
        if bad in name:
            return f"contains {what}"
    if fault := _text_fault(name):
        return fault
    data = name.encode()
    if len(data) > NAME_MAX:
        return f"is {_length(name, data)} long; at most {NAME_MAX} bytes are possible"
    return None


def node_fault(name: str) -> str | None:
    """What is wrong with the name of a node, which becomes part of the ownership mark and of paths."""
    if name in {".", ".."}:
        return "is reserved"
    return None if is_node_name(name) else f"is not made of 1 to {NODE_LENGTH} of the characters A-Z a-z 0-9 _ . -"


def sysctl_fault(key: str) -> str | None:
    """What is wrong with a sysctl key, which becomes a file below /proc/sys/net/ipv{4,6}/conf/DEVICE/."""
    return None if re.fullmatch(_SYSCTL_KEY, key) else "is not made of 1 to 64 of the characters a-z 0-9 _"


def variable_fault(name: str) -> str | None:
    """What is wrong with the name of a variable."""
    if re.fullmatch(_VARIABLE, name):
        return None
    return "is not a letter or _ followed by up to 63 of the characters A-Z a-z 0-9 _ . -"


def path_fault(path: str) -> str | None:
    """What is wrong with the path of a namespace's file."""
    if not path.startswith("/"):
        return "is not absolute"
    if not path.isprintable():
        return "contains an unprintable character"
    if len(path.encode(errors="surrogatepass")) > 4095:
        return "is longer than 4095 bytes"
    return None


def _text_fault(name: str) -> str | None:
    """White space and control characters. All that is left after it can be encoded as UTF-8."""
    if any(c.isspace() for c in name):
        return "contains white space"
    if not name.isprintable():
        return "contains an unprintable character"
    return None


def _length(name: str, data: bytes) -> str:
    if len(data) == len(name):
        return f"{len(data)} bytes"
    return f"{len(data)} bytes ({len(name)} characters)"
