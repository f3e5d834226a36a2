"""Which nodes have anything here, whatever it is."""

from __future__ import annotations

from contextlib import suppress

from nkform.kernel import links, rundir
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.model import owner_of
from nkform.observe import owned, record
from nkform.observe.namespaces import visit


def nodes(namespaces: Namespaces) -> list[str]:
    """The names of all nodes that have something here: marks on devices, programs, namespaces or an apply on record.

    Raises KernelError.
    """
    with Socket() as socket:
        found = {owner_of(link.alias) for link in consistent_dump(links.dump, socket)} - {None}
    for name in rundir.nodes():
        with suppress(KernelError):  # what others could write to says nothing
            if name not in found and record.read(name, only=()) is not None:
                found.add(name)

    def look(key: str, _: bool) -> None:
        with Socket() as socket:
            if socket.cookie() == on_record[key]:
                found.add(node)

    for node, on_record in owned.read_all().items():
        if node not in found:
            visit(namespaces, on_record, look)
    return sorted(str(name) for name in found)
