"""File systems that are mounted where nobody else sees them: at no path, for as long as a descriptor is open."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping

from nkform.kernel.error import KernelError

SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
"""The same on all architectures (include/uapi/asm-generic/unistd.h; Alpha aside); Linux 5.2."""
FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6

_libc = ctypes.CDLL(None, use_errno=True)


def mounted(kind: str, asked: str, options: Mapping[str, str] | None = None) -> int:
    """The top of a file system, as a descriptor. An option without a value is a flag. Raises KernelError, which says
    what was `asked`."""

    def call(number: int, *words: int | bytes | None) -> int:
        result = int(_libc.syscall(number, *words))
        if result < 0:
            raise KernelError(ctypes.get_errno(), asked)
        return result

    context = call(SYS_FSOPEN, kind.encode(), FSOPEN_CLOEXEC)
    try:
        for key, value in (options or {}).items():
            command = FSCONFIG_SET_STRING if value else FSCONFIG_SET_FLAG
            call(SYS_FSCONFIG, context, command, key.encode(), value.encode() if value else None, 0)
        call(SYS_FSCONFIG, context, FSCONFIG_CMD_CREATE, None, None, 0)
        return call(SYS_FSMOUNT, context, FSMOUNT_CLOEXEC, 0)
    finally:
        os.close(context)
