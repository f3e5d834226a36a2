"""Interfaces as files: for what rtnetlink can do, but not in silence. Mounts a sysfs that nobody else sees.

RTM_NEWLINK with a group counts as a change of the link. For a link that is up the kernel tells all who listen, and
walks all IPv6 routes of the namespace (do_setlink in net/core/rtnetlink.c, addrconf_notify in net/ipv6/addrconf.c): for
nine thousand links half a minute. The file `netdev_group` sets the group and does no more (change_group in
net/core/net-sysfs.c).

A sysfs shows the network namespace that it was mounted from, which for /sys can be any.
"""

from __future__ import annotations

import errno
import os

from nkform.kernel.detached_mount import mounted
from nkform.kernel.error import KernelError

_ASKED = "look at the interfaces through a sysfs of its own"


class Interfaces:
    """The interfaces of the namespace that the thread is in when this is made.

    Raises KernelError: this kernel, or what nkform may do here, does not let it have them.
    """

    def __init__(self) -> None:
        self._mount = mounted("sysfs", _ASKED)

    def close(self) -> None:
        os.close(self._mount)

    def __enter__(self) -> Interfaces:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_group(self, index: int, name: str, group: int) -> None:
        """Puts an interface into a group. Raises KernelError (ENODEV: it is not called so any more)."""
        asked = f"put {name} into group {group}"
        try:
            device = os.open(
                b"class/net/" + os.fsencode(name), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._mount
            )
            try:  # the folder is the interface's, whatever that is called from now on
                if int(_read(device, "ifindex")) != index:
                    raise KernelError(errno.ENODEV, asked)
                _write(device, "netdev_group", str(group))
            finally:
                os.close(device)
        except KernelError:
            raise
        except OSError as error:
            raise KernelError(error.errno or errno.EIO, asked) from error


def _read(folder: int, name: str) -> bytes:
    fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        return os.read(fd, 4096)
    finally:
        os.close(fd)


def _write(folder: int, name: str, text: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
