"""The sysctls of our devices: those that a spec names; and for `show`, which has no spec to tell it where to look,
those that somebody has set, as far as the kernel reports them in bulk (kernel/netconf.py)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial

from nkform.dataclass import replace
from nkform.device_sysctls import FORCE_FORWARDING, FORWARDING
from nkform.kernel import devconf, sysctl
from nkform.kernel.error import KernelError
from nkform.kernel.links import Link
from nkform.kernel.netlink import Socket, consistent, consistent_dump
from nkform.model import Device, Endpoint

Wanted = Mapping[str, Mapping[str, Mapping[str, str]]]
"""The sysctls that a spec names, by namespace key and interface."""


def changed(key: str, known: Mapping[int, Link], socket: Socket) -> Iterator[tuple[tuple[str, str], Mapping[str, str]]]:
    """The sysctls that are not at their default in the namespace of the socket and the thread, by its key and the
    interface; `known` are the links there. Raises KernelError."""
    from nkform.kernel import netconf

    for index, values in consistent(netconf.changed, socket).items():
        if index in known:
            name = known[index].name
            yield (key, name), {**values, **(_not_forced(name) if values.get(FORWARDING) == "1" else {})}


def _not_forced(interface: str) -> Mapping[str, str]:
    """What a spec says of an interface with forwarding, lest that is forced too (plan/contradictions.py)."""
    with suppress(KernelError):  # this kernel has none
        if sysctl.read(interface, FORCE_FORWARDING) == "0":
            return {FORCE_FORWARDING: "0"}
    return {}


def with_sysctls(device: Device, values: Mapping[tuple[str, str], Mapping[str, str]]) -> Device:
    """A device with the sysctls that are known of its ends, by namespace and name."""

    def known(end: Endpoint) -> Endpoint:
        found = values.get((end.namespace, end.name))
        return replace(end, sysctl=found) if found else end

    if not values:
        return device
    return replace(device, primary=known(device.primary), peer=known(device.peer) if device.peer else None)


def wanted_of(
    known_links: Mapping[int, Link], key: str, wanted: Wanted, shared: devconf.Shared
) -> Iterator[tuple[tuple[str, str], Mapping[str, str]]]:
    """The sysctls that are wanted of the namespace that the thread is in, by its key and the interface;
    `known_links` are those there.

    An end that was deleted is wanted back with all of them: the kernel tells those of all interfaces at once.
    """
    if key not in wanted:
        return
    present = {link.name for link in known_links.values()}
    asked = {interface: names for interface, names in wanted[key].items() if interface in present}
    many = {interface for interface, names in asked.items() if len(names) > devconf.FILES_AT_MOST}
    told: dict[str, Mapping[str, str]] = {}
    if many:
        with Socket() as socket:
            told = {
                name: some
                for _, name, some, _ in consistent_dump(partial(devconf.dump, names=many, shared=shared), socket)
            }
    for interface, names in asked.items():
        known = told.get(interface, {})
        alike = known.keys() == names.keys()
        yield (key, interface), known if alike else dict(_each(interface, names, known))


def _each(interface: str, names: Iterable[str], known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in names:
        with suppress(KernelError):  # it is not there: the plan will say so
            if value := known[name] if name in known else sysctl.read(interface, name):
                yield name, value
