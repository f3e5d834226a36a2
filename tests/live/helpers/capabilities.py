"""Capabilities that the calling thread gives up (capset(2), include/uapi/linux/capability.h)."""

from __future__ import annotations

import ctypes
import os

LINUX_CAPABILITY_VERSION_3 = 0x20080522
CAP_NET_BIND_SERVICE, CAP_SYS_PTRACE, CAP_SYS_RESOURCE = 10, 19, 24


def give_up(*capabilities: int) -> None:
    """Those below 32 alone."""
    header = (ctypes.c_uint32 * 2)(LINUX_CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.capget(header, sets) == 0, os.strerror(ctypes.get_errno())
    for place in range(3):  # effective, permitted, inheritable
        for capability in capabilities:
            sets[place] &= ~(1 << capability)
    assert libc.capset(header, sets) == 0, os.strerror(ctypes.get_errno())
