"""Per-interface sysctls of the calling thread's namespace: files below /proc/sys/net/ipv{4,6}/conf
(proc_sys_net(5))."""

from __future__ import annotations

import errno
import os

from nkform.kernel.netlink import KernelError


def path(interface: str, key: str) -> str:
    """The file of a key `ipv4.NAME` or `ipv6.NAME`. Interface names may hold dots, which is why no dotted name is
    used."""
    family, _, name = key.partition(".")
    return f"/proc/sys/net/{family}/conf/{interface}/{name}"


def read(interface: str, key: str) -> str:
    """The value as the kernel prints it. Raises KernelError (ENOENT: this kernel has no such key)."""
    try:
        with open(path(interface, key), encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"read sysctl {key} of {interface}") from error


def write(interface: str, key: str, value: str) -> None:
    """Raises KernelError (EINVAL: the kernel does not take the value)."""
    try:
        with open(path(interface, key), "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"set sysctl {key} of {interface} to {value}") from error


NOT_SETTINGS = frozenset({"ipv6.mtu", "ipv6.stable_secret"})
"""Files that differ between interfaces without anybody having set them."""


def changed(interface: str) -> dict[str, str]:
    """All keys of an interface whose values are not those that a new interface of this namespace gets."""
    found = {}
    for family in ("ipv4", "ipv6"):
        try:
            names = sorted(os.listdir(f"/proc/sys/net/{family}/conf/{interface}"))
        except FileNotFoundError:
            continue
        for name in names:
            key = f"{family}.{name}"
            try:
                value, usual = read(interface, key), read("default", key)
            except KernelError:
                continue  # one that can only be written
            if value != usual and key not in NOT_SETTINGS:
                found[key] = value
    return found
