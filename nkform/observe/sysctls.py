"""The sysctls that somebody set on our devices: for `show`, which has no spec to tell it where to look.

Only those that the kernel reports in bulk (kernel/netconf.py); a spec can name any.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nkform.dataclass import replace
from nkform.kernel import netconf
from nkform.kernel.links import Link
from nkform.kernel.netlink import Socket, settled
from nkform.model import Device, Endpoint


def changed(key: str, known: Mapping[int, Link], socket: Socket) -> Iterator[tuple[tuple[str, str], Mapping[str, str]]]:
    """The sysctls that are not at their default in the socket's namespace, by its key and the interface; `known` are
    the links there. Raises KernelError."""
    for index, values in settled(netconf.changed, socket).items():
        if index in known:
            yield (key, known[index].name), values


def with_sysctls(device: Device, values: Mapping[tuple[str, str], Mapping[str, str]]) -> Device:
    """A device with the sysctls that are known of its ends, by namespace and name."""

    def known(end: Endpoint) -> Endpoint:
        found = values.get((end.namespace, end.name))
        return replace(end, sysctl=found) if found else end

    if not values:
        return device
    return replace(device, primary=known(device.primary), peer=known(device.peer) if device.peer else None)
