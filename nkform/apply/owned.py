"""Puts on record which namespaces are a node's (observe/owned.py)."""

from __future__ import annotations

from collections.abc import Iterable

from nkform.kernel import rundir
from nkform.kernel.place import boot
from nkform.model import Namespace
from nkform.observe.owned import FILE, read


def note(node: str, name: str, cookie: int) -> None:
    """A namespace is the node's from now on. Raises KernelError."""
    rundir.add(node, FILE, f"{boot()} {cookie} {name}\n")


def forget(node: str, names: Iterable[str]) -> None:
    """Namespaces are not the node's any more. Raises KernelError."""
    if text := "".join(f"{boot()} 0 {name}\n" for name in names):
        rundir.add(node, FILE, text)


def tidy(node: str, live: Iterable[Namespace]) -> None:
    """Brings the record down to the namespaces of the node that are there. Raises KernelError."""
    kept = {space.name: space.cookie for space in live if space.owner == node and space.cookie}
    if not kept:
        rundir.remove(node, FILE)
    elif kept != read(node):
        rundir.write(node, FILE, (f"{boot()} {cookie} {name}\n" for name, cookie in kept.items()))
