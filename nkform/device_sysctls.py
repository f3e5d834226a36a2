"""Sysctls of one device that depend on one another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

FORWARDING = "ipv6.forwarding"
FORCE_FORWARDING = "ipv6.force_forwarding"
STABLE_SECRET = "ipv6.stable_secret"
ADDR_GEN_MODE = "ipv6.addr_gen_mode"
"""Sysctls of one device: alone, the first lets it forward nothing (Documentation/networking/ip-sysctl.rst)."""


def secret_first(sysctls: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Sysctls in an order in which they can be set: with a secret the kernel changes how addresses are made, and one of
    the ways of making them needs a secret (net/ipv6/addrconf.c, addrconf_sysctl_stable_secret)."""
    if STABLE_SECRET not in sysctls:
        return sysctls.items()
    return sorted(sysctls.items(), key=lambda item: item[0] != STABLE_SECRET)
