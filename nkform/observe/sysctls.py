"""The sysctls that somebody set on our devices. Reads some hundred files a device: for `show`, not for plans."""

from __future__ import annotations

from dataclasses import replace

from nkform.kernel import sysctl
from nkform.kernel.netns import Namespaces
from nkform.model import Device, Endpoint, Node


def with_sysctls(namespaces: Namespaces, node: Node) -> Node:
    """The node with every sysctl of its devices' ends that is not at its default. Raises KernelError."""

    def known(end: Endpoint) -> Endpoint:
        if end.namespace.startswith("nsid:"):
            return end
        with namespaces.open(end.namespace) as fd, namespaces.entered(fd, end.namespace):
            return replace(end, sysctl=sysctl.changed(end.name))

    def whole(device: Device) -> Device:
        return replace(device, primary=known(device.primary), peer=known(device.peer) if device.peer else None)

    return node.with_devices({name: whole(device) for name, device in node.devices.items()})
