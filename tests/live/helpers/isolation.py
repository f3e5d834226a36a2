"""Puts the test process into network and mount namespaces of its own, so that no test can touch the machine's.

Touches: this process's namespaces; inside them /run (a fresh tmpfs) and /sys/fs/bpf (a fresh bpffs). Who is root in a
user namespace alone (tests/unit/test_rootless.py) gets an empty tmpfs in place of a bpffs, which he may not mount.
"""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from nkform.kernel import link_requests, rundir
from nkform.kernel.netlink import Socket

CLONE_NEWNS = 0x20000
CLONE_NEWNET = 0x40000000
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

EVERYBODY = str(2**32 - 1)
"""How many users the first user namespace has (user_namespaces(7))."""

_libc = ctypes.CDLL(None, use_errno=True)
_BPFFS = "bpf" if Path("/proc/self/uid_map").read_text().split()[2] == EVERYBODY else "tmpfs"


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(kind: str, target: str) -> None:
    _check(_libc.mount(kind.encode(), target.encode(), kind.encode(), 0, None), f"mount {kind} on {target}")


def isolate() -> None:
    """Leaves the machine's namespaces for good."""
    _check(_libc.unshare(CLONE_NEWNS | CLONE_NEWNET), "unshare")
    _check(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "make mounts private")
    mount("tmpfs", "/run")
    mount("sysfs", "/sys")
    mount(_BPFFS, "/sys/fs/bpf")


def fresh_bpffs() -> None:
    """An empty bpffs: the pins of tests before this one are gone."""
    _check(_libc.umount2(b"/sys/fs/bpf", MNT_DETACH), "unmount /sys/fs/bpf")
    mount(_BPFFS, "/sys/fs/bpf")


def fresh_records() -> None:
    """No node has anything on record; what is the machine's stays (kernel/rundir.py)."""
    for held in rundir.RUN.glob("*/namespace-*"):
        _libc.umount2(str(held).encode(), MNT_DETACH)
    for folder in (*(rundir.RUN / node for node in rundir.nodes()), *(path for path, _ in rundir.untrusted())):
        shutil.rmtree(folder, ignore_errors=True)  # a guardian of the last test may be at work in there


def fresh_network() -> None:
    """A new, empty network namespace for this process, and no named ones."""
    names = Path("/run/netns")
    for entry in sorted(names.iterdir()) if names.is_dir() else ():
        _libc.umount2(str(entry).encode(), MNT_DETACH)
        entry.unlink()
    _check(_libc.unshare(CLONE_NEWNET), "unshare")
    with Socket() as socket:
        socket.ask([link_requests.change("lo", {"up": True})])
