"""Per-interface sysctls of the calling thread's namespace: files below /proc/sys/net/ipv{4,6}/conf
(proc_sys_net(5))."""

from __future__ import annotations

import errno

from nkform.device_sysctls import STABLE_SECRET
from nkform.kernel.error import KernelError

UNSET_IS_EIO = STABLE_SECRET
"""As long as nobody has set it, reading it fails (net/ipv6/addrconf.c, addrconf_sysctl_stable_secret)."""


def path(interface: str, key: str) -> str:
    """The file of a key `ipv4.NAME` or `ipv6.NAME`. Interface names may hold dots, which is why no dotted name is
    used."""
    family, _, name = key.partition(".")
    return f"/proc/sys/net/{family}/conf/{interface}/{name}"


def read(interface: str, key: str) -> str:
    """The value as the kernel prints it, empty if it has none. Raises KernelError (ENOENT: there is no such key)."""
    try:
        with open(path(interface, key), encoding="ascii") as file:
            return file.read().strip()
    except OSError as error:
        if error.errno == errno.EIO and key == UNSET_IS_EIO:
            return ""
        raise KernelError(error.errno or errno.EIO, f"read sysctl {key} of {interface}") from error


def write(interface: str, key: str, value: str) -> None:
    """Raises KernelError (EINVAL: the kernel does not take the value)."""
    try:
        with open(path(interface, key), "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"set sysctl {key} of {interface} to {value}") from error
