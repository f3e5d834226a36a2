"""In which order the kernel has an interface's IPv4 addresses, and what brings them into the declared one. Pure.

The kernel sends from the first address of the subnet that a packet goes to, or else from the first of all. It lists the
first of each subnet, the primary ones, and then all others. A new primary one comes behind the primary ones. Where one
goes, the next of its subnet takes over, and comes behind the other primary ones too (net/ipv4/devinet.c,
__inet_insert_ifa and __inet_del_ifa, with ipv4.promote_secondaries set, as a run has it while it removes addresses).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nkform.model import Address

Subnet = tuple[int, int]
"""The bits of an IPv4 address's network, and how many they are."""

ORDERED_AT_MOST = 64
"""Addresses of one subnet: nobody declares more, and undoing the removal of one takes all that stand behind it."""


def is_ipv6(address: Address) -> bool:
    return ":" in address.text


def by_subnet(addresses: Iterable[Address]) -> dict[Subnet, list[Address]]:
    """Our IPv4 addresses by subnet, in order: the first one is what the kernel sends from if nothing says otherwise."""
    found: dict[Subnet, list[Address]] = {}
    for address in addresses:
        if address.ours and not is_ipv6(address):
            found.setdefault(_subnet(address), []).append(address)
    return found


def behind(there: Sequence[Address]) -> dict[str, tuple[Address, ...]]:
    """By address, those of ours in its IPv4 subnet that stand behind it; IPv6 knows no such order."""
    return {
        address.text: tuple(same[place + 1 :])
        for same in by_subnet(there).values()
        if len(same) <= ORDERED_AT_MOST
        for place, address in enumerate(same)
    }


class Listed:
    """The IPv4 addresses of an interface, in the kernel's order."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._members: dict[Subnet, list[str]] = {}
        self._primary: list[Subnet] = []
        self._secondary: dict[str, None] = {}
        self._addresses: dict[str, Address] = {}
        for address in addresses:
            self.add(address)

    def __iter__(self) -> Iterator[Address]:
        firsts = (self._members[subnet][0] for subnet in self._primary)
        return (self._addresses[text] for texts in (firsts, self._secondary) for text in texts)

    def add(self, address: Address) -> None:
        """Also takes over one that is there, which keeps its place."""
        if is_ipv6(address):
            return
        known, self._addresses[address.text] = address.text in self._addresses, address
        if known:
            return
        subnet = _subnet(address)
        if subnet in self._members:
            self._members[subnet].append(address.text)
            self._secondary[address.text] = None
        else:
            self._members[subnet] = [address.text]
            self._primary.append(subnet)

    def delete(self, address: Address) -> None:
        if self._addresses.pop(address.text, None) is None:
            return
        subnet = _subnet(address)
        members = self._members[subnet]
        if members[0] != address.text:
            members.remove(address.text)
            del self._secondary[address.text]
            return
        members.pop(0)
        self._primary.remove(subnet)
        if members:
            del self._secondary[members[0]]
            self._primary.append(subnet)
        else:
            del self._members[subnet]


def misplaced(listed: Listed, desired: Sequence[Address]) -> list[Address]:
    """The IPv4 addresses that have to go and come again, behind all others, for all to be in the order declared.

    They are in that order; the last one has to go first.

    Of those subnets in which others have addresses, only the order within is ours to say. The first address of all
    always stays: with the last one the routes would go.
    """
    shall, now = by_subnet(desired), list(listed)
    if _in_order(now, shall):
        return []
    theirs = _of_others(now)
    wanted = list(Listed(desired))
    kept = {address.text for address in _kept(now, [each for each in wanted if _subnet(each) not in theirs])}
    for subnet in theirs & shall.keys():
        kept |= {address.text for address in _kept(now, shall[subnet])}
    for staying in (kept, {wanted[0].text}):
        moved = [address for address in wanted if address.text not in staying]
        after = Listed(now)
        for address in reversed(moved):
            after.delete(address)
        for address in moved:
            after.add(address)
        if _in_order(list(after), shall):
            break
    return moved


def _in_order(now: Sequence[Address], shall: dict[Subnet, list[Address]]) -> bool:
    have, theirs = by_subnet(now), _of_others(now)
    ours = [subnet for subnet in have if subnet not in theirs]
    return have == shall and ours == [subnet for subnet in shall if subnet not in theirs]


def _of_others(now: Iterable[Address]) -> set[Subnet]:
    return {_subnet(address) for address in now if not address.ours}


def _kept(now: Sequence[Address], wanted: Sequence[Address]) -> Sequence[Address]:
    """The first so many of those wanted that stand in this order already."""
    rest = iter(now)
    many = next((place for place, address in enumerate(wanted) if address not in rest), len(wanted))
    return wanted[:many]


def _subnet(address: Address) -> Subnet:
    host, _, length = address.text.partition("/")
    value = int.from_bytes(bytes(int(part) for part in host.split(".")))
    return value >> (32 - int(length)), int(length)
