"""The sysctls that somebody set on our devices: for `show`, which has no spec to tell it where to look.

Only those that the kernel reports in bulk (kernel/netconf.py); a spec can name any.
"""

from __future__ import annotations

from collections.abc import Mapping

from nkform.dataclass import replace
from nkform.kernel import links, netconf
from nkform.kernel.netlink import Socket, whole
from nkform.kernel.netns import Namespaces
from nkform.model import Device, Endpoint, Node


def with_sysctls(namespaces: Namespaces, node: Node) -> Node:
    """The node with the sysctls of its devices' ends that are not at their default. Raises KernelError."""
    keys = {end.namespace for device in node.devices.values() for end in device.ends}
    found = {key: _read(namespaces, key) for key in keys if not key.startswith("nsid:")}

    def known(end: Endpoint) -> Endpoint:
        return replace(end, sysctl=found.get(end.namespace, {}).get(end.name, {}))

    def complete(device: Device) -> Device:
        return replace(device, primary=known(device.primary), peer=known(device.peer) if device.peer else None)

    return node.with_devices({name: complete(device) for name, device in node.devices.items()})


def _read(namespaces: Namespaces, key: str) -> Mapping[str, Mapping[str, str]]:
    """The changed sysctls of a namespace, by interface."""
    with namespaces.open(key) as fd, namespaces.entered(fd, key), Socket() as socket:
        names = {link.index: link.name for link in whole(links.dump, socket)}
        values = whole(netconf.changed, socket)
        return {names[index]: some for index, some in values if some and index in names}
