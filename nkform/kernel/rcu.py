"""The kernel's switch for expedited RCU grace periods, /sys/kernel/rcu_expedited (kernel/ksysfs.c).

Attaching or detaching a tcx or netkit link waits for one grace period while it holds the RTNL (tcx_entry_sync in
include/net/tcx.h, netkit_entry_sync in drivers/net/netkit.c): 8 to 20 ms as a rule, below 1 ms where grace periods are
expedited. The switch is the whole machine's. It holds any int: 0 is off, every other number is on (rcu_gp_is_expedited
in kernel/rcu/update.c), so a number also tells whose doing it is. Only root of the machine can write it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nkform.kernel.error import KernelError

EXPEDITED = Path("/sys/kernel/rcu_expedited")
NORMAL = Path("/sys/kernel/rcu_normal")
"""1: no grace period is expedited, whatever the other switch says."""
REALTIME = Path("/sys/kernel/realtime")
"""1 on kernels built with PREEMPT_RT; others do not have it."""

OFF = 0
LARGEST = (1 << 31) - 1


def is_there() -> bool:
    """Whether this kernel has the switch."""
    return EXPEDITED.exists()


def read() -> int:
    """The switch. Raises KernelError (ENOENT: this kernel has none)."""
    try:
        return int(EXPEDITED.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise KernelError(getattr(error, "errno", None) or errno.EIO, f"read {EXPEDITED}") from error


def write(value: int) -> None:
    """Sets the switch, to at most LARGEST. Raises KernelError (EROFS, EACCES: sysfs cannot be written here)."""
    try:
        fd = os.open(EXPEDITED, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(fd, f"{value}\n".encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise KernelError(error.errno or errno.EIO, f"write {value} to {EXPEDITED}") from error


def obstacle() -> str:
    """Why grace periods cannot be expedited, or need not be; empty where they can."""
    if not is_there():
        return f"this kernel has no {EXPEDITED}, as kernels for one processor, which need not wait (CONFIG_TINY_RCU)"
    if _is_on(REALTIME) or "PREEMPT_RT" in os.uname().version:
        return "this is a real-time kernel (PREEMPT_RT), which they would disturb"
    if _is_on(NORMAL):
        return f"{NORMAL} is 1, which overrides it"
    if not os.access(EXPEDITED, os.W_OK, effective_ids=True):
        return f"{EXPEDITED} cannot be written here"
    return ""


def _is_on(file: Path) -> bool:
    try:
        return file.read_text(encoding="ascii").strip() not in ("", "0")
    except (OSError, ValueError):
        return False
