"""Which namespaces are a node's: those on record below /run/nkform, where only the machine's root can write.

The mark on a namespace's `lo` is for people: whoever is root in the namespace can write or remove it. On record is the
number that the kernel gives each namespace once a boot (its cookie), so that another one of the same name is another.
"""

from __future__ import annotations

from contextlib import suppress

from nkform.kernel import rundir
from nkform.kernel.error import KernelError
from nkform.kernel.place import boot
from nkform.numbers import COOKIES, decimal

FILE = "namespaces"
"""A line for each that was made or taken over, or let go (cookie 0): boot, cookie, name. The last of a name counts."""


def read_all(node: str = "") -> dict[str, dict[str, int]]:
    """Those of all nodes: of others than this one as far as they can be trusted. Raises KernelError."""
    found = {node: read(node)} if node else {}
    for other in rundir.nodes():
        if other != node:
            with suppress(KernelError):
                found[other] = read(other)
    return found


def read(node: str) -> dict[str, int]:
    """The cookies of a node's namespaces, by name. Raises KernelError where the folder cannot be trusted."""
    lines = rundir.lines(node, FILE)
    found: dict[str, int] = {}
    if lines is None:
        return found
    now = boot()
    for line in lines:
        when, _, rest = line.rstrip("\n").partition(" ")
        cookie, _, name = rest.partition(" ")
        number = decimal(cookie, COOKIES)
        if when == now and number is not None and name:
            found[name] = number
    return {name: cookie for name, cookie in found.items() if cookie}
