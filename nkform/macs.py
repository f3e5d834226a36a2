"""Which MAC addresses the programs of a device may know where its spec names none. Pure.

A program that knows its device's address must go on knowing it when somebody changes the address, so the live one is
part of what the program is. A pair that is still to come gets one here, so that its programs can be told apart before
it is there, and so that nobody chooses another one when it comes (systemd's MACAddressPolicy does so with those that
the kernel chose).
"""

from __future__ import annotations

from collections.abc import Collection

from nkform.attributes import BY_NAME
from nkform.dataclass import replace
from nkform.model import Device, Endpoint

Macs = tuple[str | None, str | None]
"""Of the primary and of the peer, as far as they are known."""


def live_macs(device: Device) -> Macs:
    """Those that a device has."""
    own, peer = (_of(end) for end in (device.primary, device.peer))
    return own or device.mac or None, peer


def macs(node: str, device: Device, live: Device | None, features: Collection[str]) -> Macs:
    """Those that a device has or, as a pair that is to come, shall have; none where it cannot be given one."""
    if device.traits.programs_only:
        return live_macs(live) if live else (None, None)
    by_mode = device.traits.link_layer == "mode"
    if by_mode and (device.attrs.get("mode") != "l2" or BY_NAME["mac"].feature not in features):
        return None, None
    own, peer = live_macs(live) if live else (None, None)
    if device.traits.has_peer:
        peer = peer or chosen(node, device.name, "peer")
    return own or chosen(node, device.name, "primary"), peer


def chosen(node: str, device: str, side: str) -> str:
    """One that follows from the names: unicast, and locally administered (IEEE 802, 8.4)."""
    import hashlib

    first, *rest = hashlib.sha256(f"{node}\0{device}\0{side}".encode()).digest()[:6]
    return bytes([first & 0xFC | 0x02, *rest]).hex(":")


def with_macs(device: Device, macs: Macs, facts: Collection[str]) -> Device:
    """A device that has those of the addresses that are facts and that it does not name."""
    own, peer = macs
    primary = _with(device.primary, own) if "mac" in facts else device.primary
    other = _with(device.peer, peer) if device.peer and "peer_mac" in facts else device.peer
    same = primary is device.primary and other is device.peer
    return device if same else replace(device, primary=primary, peer=other)


def _with(end: Endpoint, mac: str | None) -> Endpoint:
    return replace(end, attrs={**end.attrs, "mac": mac}) if mac and "mac" not in end.attrs else end


def _of(end: Endpoint | None) -> str | None:
    mac = end.attrs.get("mac") if end else None
    return None if mac is None else str(mac)
