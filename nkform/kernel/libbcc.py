"""libbcc, through python3-bpfcc: compiles C to instructions, makes their maps and has the verifier look at them.

It says why not on the process's standard error alone, and is 100 MB: work with it in a child (child.py).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Sequence
from typing import Any

from nkform.kernel.bpf import PRIVILEGE
from nkform.kernel.bpf_maps import MapInfo, map_info
from nkform.kernel.bpf_programs import SCHED_CLS, VerifierError
from nkform.kernel.error import KernelError

HEADERS_VARIABLE = "BCC_KERNEL_SOURCE"
LOG_BYTES = 1 << 20


class CompileError(Exception):
    """What the compiler says."""


def find() -> Any | None:
    """The module `bcc`, or None: it is not there, or it is the package of that name that has nothing to do with BPF."""
    try:
        import bcc  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except (ImportError, OSError):
        return None
    return bcc if hasattr(bcc, "BPF") and hasattr(bcc, "lib") else None


def fault() -> str:
    """Why bcc, which is there, cannot be loaded: a library that is missing, or no memory for it. Else empty."""
    try:
        import bcc  # noqa: F401
    except ModuleNotFoundError:
        return ""
    except (ImportError, OSError) as error:
        return str(error)
    return ""


def other() -> str:
    """The file of the package of that name that has nothing to do with BPF, if `find` came upon it. Else empty."""
    return getattr(sys.modules.get("bcc"), "__file__", None) or ""


class Program:
    """A program that is compiled now; what is left of it goes with the process.

    `headers`: a folder in place of the kernel's headers. Raises CompileError, KernelError (EPERM).
    """

    def __init__(self, bcc: Any, source: str, flags: Sequence[str], headers: str, asked: str) -> None:
        self._lib = bcc.lib
        os.environ[HEADERS_VARIABLE] = headers
        said = _Stderr()
        try:
            self._made = bcc.BPF(text=source.encode(), cflags=list(flags))
        except Exception as error:  # a bare one
            output = said.text()
            if "error:" not in output and os.geteuid() != 0:
                raise KernelError(errno.EPERM, asked, PRIVILEGE) from None
            raise CompileError(output or str(error)) from None

    def insns(self, function: str) -> bytes:
        """The instructions of a function."""
        return bytes(self._made.dump_func(function.encode()))

    def maps(self) -> list[tuple[int, str, MapInfo]]:
        """Its maps: file descriptor, name, and what the kernel says of it. Raises BpfError."""
        lib, module = self._lib, self._made.module
        signatures = (
            ("bpf_num_tables", ctypes.c_size_t, (ctypes.c_void_p,)),
            ("bpf_table_name", ctypes.c_char_p, (ctypes.c_void_p, ctypes.c_size_t)),
            ("bpf_table_fd_id", ctypes.c_int, (ctypes.c_void_p, ctypes.c_size_t)),
        )
        for name, result, arguments in signatures:  # bcc's Python part leaves these out
            function = getattr(lib, name)
            function.restype, function.argtypes = result, arguments
        fds = [(lib.bpf_table_fd_id(module, place), place) for place in range(lib.bpf_num_tables(module))]
        return [(fd, lib.bpf_table_name(module, place).decode(), map_info(fd)) for fd, place in fds]

    def has(self, function: str) -> bool:
        """Whether it has a function of that name."""
        return bool(self._lib.bpf_function_start(self._made.module, function.encode()))

    def verify(self, function: str, license: str, asked: str) -> None:  # its name in bpf(2)
        """Loads it once as bcc does, which knows the lines of the source that the verifier names in its log.

        Raises VerifierError, KernelError.
        """
        lib, module, name = self._lib, self._made.module, function.encode()
        start, size = lib.bpf_function_start(module, name), lib.bpf_function_size(module, name)
        log = ctypes.create_string_buffer(LOG_BYTES)

        def attempt(level: int) -> int:
            room = len(log) if level else 0
            what = (module, SCHED_CLS, name, start, size, license.encode(), 0)
            return int(lib.bcc_func_load(*what, level, log if level else None, room, None, 0))

        fd = attempt(0)
        if fd < 0:
            number = ctypes.get_errno() or errno.EINVAL
            fd = attempt(1)
            text = log.value.decode(errors="replace")
            if fd < 0 and text.strip():
                raise VerifierError(number, asked, text)
            if fd < 0:
                raise KernelError(number, asked, PRIVILEGE if number == errno.EPERM else "")
        os.close(fd)


class _Stderr:
    """What C++ writes to the child's terminal, which it has none of."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("nkform", os.MFD_CLOEXEC)
        os.dup2(self._fd, 2)

    def text(self) -> str:
        return os.pread(self._fd, LOG_BYTES, 0).decode(errors="replace")
