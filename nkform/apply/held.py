"""Namespaces that a run took the names of, held as long as a way back leads to them.

Going back by their specs alone would make other ones, empty, with none of the processes, routes and sysctls that there
were. Each is bound to a file of the node's folder in /run, which goes by the kernel's number of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nkform.kernel import rundir
from nkform.kernel.netns import Namespaces, is_held
from nkform.model import Node

PREFIX = "namespace-"


def hold(namespaces: Namespaces, node: str, name: str, cookie: int) -> None:
    """Holds a namespace that is about to lose its name. Raises KernelError."""
    namespaces.hold(name, rundir.folder(node) / f"{PREFIX}{cookie}")


def find(node: str, cookie: int) -> Path | None:
    """Where a namespace is held."""
    path = rundir.RUN / node / f"{PREFIX}{cookie}"
    return path if cookie and is_held(path) else None


def release(node: str, ways: Iterable[Node]) -> None:
    """Lets go of those that no way back needs: those that these nodes had. Raises KernelError."""
    files = rundir.files(node, PREFIX)
    if not files:
        return
    needed = {f"{PREFIX}{space.cookie}" for way in ways for space in way.namespaces.values() if space.owner == way.name}
    for file in files:
        if file.name not in needed:
            Namespaces.let_go(file)
