"""Makes a map hold what a spec says, while the program that looks into it runs.

Adding comes before removing: what is in the map before and after is in it at each moment, and what is in neither never
is. So a packet meets the old entries or the new ones, or all of both, which for it comes to the same.
"""

from __future__ import annotations

import errno
from itertools import islice

from nkform.entries import VALUE, filled, keys
from nkform.kernel.bpf_maps import map_delete_many, map_info, map_items, map_update_many, maps_of
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.error import KernelError
from nkform.model import MapContents, MapsByParam


def fill(map_fd: int, before: MapContents | None, after: MapContents) -> None:
    """Changes a map's entries. `before` None: from whatever it holds.

    Raises KernelError (ESTALE: it does not hold what the plan was made for), and what was changed by then stays.
    """
    info = map_info(map_fd)
    there, wanted = map_items(map_fd, info).keys(), keys(after)
    if before is not None and filled(before.map, before.layout, there) != before:
        raise KernelError(errno.ESTALE, f"change the map {after.map}", "somebody changed it since the plan was made")
    new, old = wanted - there, there - wanted
    # Only strangers can be more than there is room for (the map takes twice what a spec may say): some go at once.
    crowd = set(islice(old, max(0, len(new) + len(there) - info.max_entries)))
    map_delete_many(map_fd, crowd, info)
    map_update_many(map_fd, dict.fromkeys(new, VALUE), info)
    map_delete_many(map_fd, old - crowd, info)


def refill(program_fd: int, known: MapsByParam) -> None:
    """Gives the maps of a program that runs nowhere what they held when it ran."""
    if not known:
        return
    with maps_of(prog_info(program_fd).id) as maps:
        for each in (one for some in known.values() for one in some):
            fill(maps[each.map], None, each)
