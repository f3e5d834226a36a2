"""What others have at a pair that is not seen on the way: programs where none of ours are, queueing disciplines.

Asked of the kernel only for pairs that are to be made anew, which lose it. Reads, changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from nkform.kernel import qdiscs
from nkform.kernel.bpf_links import AttachType
from nkform.kernel.netlink import Socket
from nkform.kernel.netns import Namespaces
from nkform.model import ROOT, Device, Endpoint
from nkform.observe.chains import TYPES, read_links

OWN = {
    "veth": (AttachType.TCX_INGRESS, AttachType.TCX_EGRESS),
    "netkit": (
        AttachType.NETKIT_PRIMARY,
        AttachType.NETKIT_PEER,
        AttachType.TCX_INGRESS,
        AttachType.TCX_EGRESS,
    ),
}
"""The hooks of a pair's primary; its peer has those of tcx."""


def baggage(namespaces: Namespaces, devices: Collection[Device]) -> dict[str, list[str]]:
    """In words, by the device's name. Raises KernelError."""
    ends: dict[str, list[tuple[Device, Endpoint]]] = {}
    for device in devices:
        for end in device.ends:
            if not end.namespace.startswith("nsid:"):
                ends.setdefault(end.namespace, []).append((device, end))
    found: dict[str, list[str]] = {}
    with namespaces.away() as enter:
        for key, some in ends.items():
            with namespaces.open(key) as fd:
                enter(fd, key)
            with Socket() as socket:
                disciplines = qdiscs.of_others(socket, {end.index for _, end in some})
            for device, end in some:
                where = f"{end.name} in {key}" if key != ROOT else end.name
                texts = [f"qdisc {kind} of {where}" for kind in disciplines.get(end.index, ())]
                found.setdefault(device.name, []).extend([*texts, *_programs(device, end, where)])
    return {name: texts for name, texts in found.items() if texts}


def _programs(device: Device, end: Endpoint, where: str) -> Iterator[str]:
    """Programs at hooks that the look at the device's chains has left out."""
    primary = end is device.primary
    known = {TYPES[device.kind, hook] for hook in device.hooks} if primary else set()
    for attach_type in OWN[device.kind] if primary else OWN["veth"]:
        if attach_type not in known:
            for entry in read_links(end.index, attach_type, {}).linked:
                yield f"program {entry.name or entry.program_id} at {attach_type.name.lower()} of {where}"
