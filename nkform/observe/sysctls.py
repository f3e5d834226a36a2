"""The sysctls that somebody set on our devices: for `show`, which has no spec to tell it where to look.

Only those that the kernel reports in bulk (kernel/netconf.py); a spec can name any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nkform.kernel import netconf
from nkform.kernel.links import Link
from nkform.kernel.netlink import Socket, settled


def changed(key: str, known: Mapping[int, Link], socket: Socket) -> Iterator[tuple[tuple[str, str], Mapping[str, str]]]:
    """The sysctls that are not at their default in the socket's namespace, by its key and the interface; `known` are
    the links there. Raises KernelError."""
    for index, values in settled(netconf.changed, socket).items():
        if index in known:
            yield (key, known[index].name), values
