"""Which nodes have anything here, whatever it is."""

from __future__ import annotations

from nkform.kernel import links, rundir
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
    found |= {name for name in rundir.nodes() if name not in found and record.read(name, only=()) is not None}

    def look(key: str, _: bool) -> None:
        with Socket() as socket:
            if socket.cookie() == on_record[key]:
                found.add(node)

    for node in rundir.nodes():
        on_record = {} if node in found else owned.read(node)
        visit(namespaces, on_record, look)
    return sorted(str(name) for name in found)
