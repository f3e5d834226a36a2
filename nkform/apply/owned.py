"""Puts on record which namespaces are a node's (observe/owned.py)."""

from __future__ import annotations

from collections.abc import Iterable

from nkform.kernel import rundir
from nkform.kernel.place import boot
from nkform.model import Namespace
from nkform.observe.owned import FILE, read


class Notes:
    """The record of a node, to be added to. Close it; all methods raise KernelError."""

    def __init__(self, node: str) -> None:
        self._file = rundir.Appended(node, FILE)

    def note(self, name: str, cookie: int) -> None:
        """A namespace is the node's from now on."""
        self._file.add(f"{boot()} {cookie} {name}\n")

    def forget(self, names: Iterable[str]) -> None:
        """Namespaces are not the node's any more."""
        if text := "".join(f"{boot()} 0 {name}\n" for name in names):
            self._file.add(text)

    def __enter__(self) -> Notes:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def tidy(node: str, live: Iterable[Namespace]) -> None:
    """Brings the record down to the namespaces of the node that are there. Raises KernelError."""
    kept = {space.name: space.cookie for space in live if space.owner == node and space.cookie}
    if not kept:
        rundir.remove(node, FILE)
    elif kept != read(node):
        rundir.write(node, FILE, (f"{boot()} {cookie} {name}\n" for name, cookie in kept.items()))
