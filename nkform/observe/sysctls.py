"""The sysctls that somebody set on our devices: for `show`, which has no spec to tell it where to look.

Only those that the kernel reports in bulk (kernel/netconf.py); a spec can name any.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from nkform.dataclass import replace
from nkform.kernel import links, netconf
from nkform.kernel.netlink import Socket, whole
from nkform.kernel.netns import Namespaces
from nkform.model import Device, Endpoint, Node
from nkform.observe.namespaces import visit


def with_sysctls(namespaces: Namespaces, node: Node) -> Node:
    """The node with the sysctls of its devices' ends that are not at their default. Raises KernelError."""
    keys = {end.namespace for device in node.devices.values() for end in device.ends}
    changed: dict[str, Mapping[str, Mapping[str, str]]] = {}
    decoder = links.Decoder()

    def look(key: str, _: bool) -> None:
        changed[key] = _read(decoder)

    visit(namespaces, (key for key in keys if not key.startswith("nsid:")), look)

    def known(end: Endpoint) -> Endpoint:
        values = changed.get(end.namespace, {}).get(end.name)
        return replace(end, sysctl=values) if values else end

    def complete(device: Device) -> Device:
        primary, peer = known(device.primary), device.peer and known(device.peer)
        alike = primary is device.primary and peer is device.peer
        return device if alike else replace(device, primary=primary, peer=peer)

    return node.with_devices({name: complete(device) for name, device in node.devices.items()})


def _read(decoder: links.Decoder) -> Mapping[str, Mapping[str, str]]:
    """The changed sysctls of the namespace that the thread is in, by interface."""
    with Socket() as socket:
        values = [(index, some) for index, some in whole(netconf.changed, socket) if some]
        if not values:
            return {}
        names = {link.index: link.name for link in whole(partial(links.dump, decoder=decoder), socket)}
        return {names[index]: some for index, some in values if index in names}
