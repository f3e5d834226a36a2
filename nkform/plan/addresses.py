"""In which order the kernel has an interface's addresses, and what brings them into the declared one. Pure.

Of IPv4 it sends from the first address of the subnet that a packet goes to, or else from the first of all. It lists the
first of each subnet, the primary ones, and then all others. A new primary one comes behind the primary ones. Where one
goes, the next of its subnet takes over, and comes behind the other primary ones too (net/ipv4/devinet.c,
__inet_insert_ifa and __inet_del_ifa, with ipv4.promote_secondaries set, as a run has it while it removes addresses).

Of IPv6 it sends from the address that suits the destination best, and of those that suit it alike from the one that was
added last, within a scope (net/ipv6/addrconf.c, ipv6_link_dev_addr and __ipv6_dev_get_saddr). The order here and in a
spec is that in which they are added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from nkform.model import Address

Subnet = tuple[int, int]
"""The bits of an IPv4 address's network, and how many they are; of IPv6 -1, and the scope."""

_SCOPES = {0x3FA: (-1, 0), 0x3FB: (-1, 1)}
"""The first ten bits of link-local and of (deprecated) site-local addresses; all others of a device have global scope
(net/ipv6/addrconf_core.c, __ipv6_addr_type)."""
_GLOBAL = (-1, 2)


def is_ipv6(address: Address) -> bool:
    return ":" in address.text


def by_subnet(addresses: Iterable[Address]) -> dict[Subnet, list[Address]]:
    """Our addresses by subnet (IPv6: by scope), in their order, which is what the kernel's choice depends on."""
    found: dict[Subnet, list[Address]] = {}
    for address in addresses:
        if address.ours:
            found.setdefault(_subnet(address), []).append(address)
    return found


class Listed:
    """The addresses of an interface, those of IPv4 in the kernel's order."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._members: dict[Subnet, list[str]] = {}
        self._primary: list[Subnet] = []
        self._secondary: dict[str, None] = {}
        self._ipv6: dict[str, None] = {}
        self._addresses: dict[str, Address] = {}
        for address in addresses:
            self.add(address)

    def __iter__(self) -> Iterator[Address]:
        firsts = (self._members[subnet][0] for subnet in self._primary)
        return (self._addresses[text] for texts in (firsts, self._secondary, self._ipv6) for text in texts)

    def add(self, address: Address) -> None:
        """Also takes over one that is there, which keeps its place."""
        known, self._addresses[address.text] = address.text in self._addresses, address
        if known:
            return
        if is_ipv6(address):
            self._ipv6[address.text] = None
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
        if is_ipv6(address):
            del self._ipv6[address.text]
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
    now = [address for address in listed if not is_ipv6(address)]
    desired = [address for address in desired if not is_ipv6(address)]
    shall = by_subnet(desired)
    if _in_order(now, shall):
        return []
    theirs = of_others(now)
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


def taken_places(was: Sequence[Address], now: Sequence[Address]) -> Iterator[tuple[Address, Address]]:
    """The IPv4 addresses of ours that were the first of their subnet, and that come behind one of others, with that."""
    firsts = _firsts(was)
    for subnet, first in _firsts(now).items():
        ours = firsts.get(subnet, first)
        if ours.ours and not first.ours and ours in now:
            yield ours, first


def _firsts(addresses: Iterable[Address]) -> dict[Subnet, Address]:
    found: dict[Subnet, Address] = {}
    for address in addresses:
        if not is_ipv6(address):
            found.setdefault(_subnet(address), address)
    return found


def misplaced_ipv6(listed: Listed, desired: Sequence[Address]) -> list[Address]:
    """The IPv6 addresses that have to go and come again, behind all others, for all to be in the order declared; in
    that order."""
    moved: list[Address] = []
    have = by_subnet(address for address in listed if is_ipv6(address))
    for scope, wanted in by_subnet(address for address in desired if is_ipv6(address)).items():
        moved += wanted[len(_kept(have.get(scope, ()), wanted)) :]
    return moved


def _in_order(now: Sequence[Address], shall: dict[Subnet, list[Address]]) -> bool:
    have, theirs = by_subnet(now), of_others(now)
    ours = [subnet for subnet in have if subnet not in theirs]
    return have == shall and ours == [subnet for subnet in shall if subnet not in theirs]


def of_others(now: Iterable[Address]) -> set[Subnet]:
    """The subnets in which others have addresses: where these stand among the others is not ours to say."""
    return {_subnet(address) for address in now if not address.ours}


def _kept(now: Sequence[Address], wanted: Sequence[Address]) -> Sequence[Address]:
    """The first so many of those wanted that stand in this order already."""
    rest = iter(now)
    many = next((place for place, address in enumerate(wanted) if address not in rest), len(wanted))
    return wanted[:many]


def _subnet(address: Address) -> Subnet:
    if is_ipv6(address):
        return _SCOPES.get(int(address.text.partition(":")[0] or "0", 16) >> 6, _GLOBAL)
    host, _, length = address.text.partition("/")
    value = int.from_bytes(bytes(int(part) for part in host.split(".")))
    return value >> (32 - int(length)), int(length)
