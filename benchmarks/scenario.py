"""The state that every side makes: N pairs, each with its peer in a network namespace of its own. Pure data.

Both ends have an MTU, the host's end an alias; the peer has two addresses and two routes. The alias and the
routes' protocol number are the marks by which nkform knows its own, and the namespaces' `lo` is up and
carries the alias: the other sides make the same, so that the results can be compared attribute by attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

NODE = "bench"
ALIAS = "nkform:bench"
ROUTE_PROTOCOL = 78
MTU = 1400
OTHER_MTU = 1450
PEER = "eth0"
GATEWAY4 = "169.254.1.1"
GATEWAY6 = "fe80::1"


@dataclass(frozen=True)
class Pair:
    """One pair, by its number."""

    number: int

    @property
    def name(self) -> str:
        return f"p{self.number:04}"

    @property
    def namespace(self) -> str:
        return f"n{self.number:04}"

    @property
    def address4(self) -> str:
        return f"10.{self.number >> 16 & 255}.{self.number >> 8 & 255}.{self.number & 255}/32"

    @property
    def address6(self) -> str:
        return f"fd00::{self.number:x}:2/128"


@dataclass(frozen=True)
class Scenario:
    """`devices_only`: the namespaces exist; pairs get an MTU and an alias; the host's end is up."""

    size: int
    kind: str = "veth"
    devices_only: bool = False

    @property
    def pairs(self) -> Iterator[Pair]:
        return (Pair(number) for number in range(1, self.size + 1))

    @property
    def samples(self) -> list[Pair]:
        """Some pairs to look at closely: the first, the last, and some in between."""
        return [Pair(number) for number in sorted({1, self.size // 3 or 1, self.size // 2 or 1, self.size})]


def nkform_spec(scenario: Scenario, *, changed: bool = False) -> str:
    """The scenario as nkform's YAML; `changed` gives one pair in the middle another MTU."""
    odd = scenario.size // 2 + 1 if changed else 0
    body = _devices_only if scenario.devices_only else _whole
    lines = [
        "version: 1",
        f"node: {NODE}",
        "defaults:",
        f"  kind: {scenario.kind}",
        f"  mtu: {MTU}",
        "namespaces:",
    ]
    lines += [f"  {pair.namespace}: {{{'' if scenario.devices_only else 'create: true'}}}" for pair in scenario.pairs]
    lines.append("devices:")
    for pair in scenario.pairs:
        lines.append(f"  {pair.name}:")
        if pair.number == odd:
            lines.append(f"    mtu: {OTHER_MTU}")
        lines += body(pair)
    return "\n".join([*lines, ""])


def _whole(pair: Pair) -> list[str]:
    return [
        "    peer:",
        f"      name: {PEER}",
        f"      namespace: {pair.namespace}",
        f"      addresses: [{pair.address4}, '{pair.address6}']",
        "      routes:",
        f"        - {{to: 0.0.0.0/0, via: {GATEWAY4}, onlink: true}}",
        f"        - {{to: '::/0', via: '{GATEWAY6}'}}",
    ]


def _devices_only(pair: Pair) -> list[str]:
    return [f"    peer: {{name: {PEER}, namespace: {pair.namespace}, up: false}}"]
