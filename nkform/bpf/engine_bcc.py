"""The bcc engine: C → instructions, compiled by python3-bpfcc, for machines without clang.

bcc knows no read-only data, so the values are part of the source, and each set of values is compiled. It needs no
headers of the kernel: BCC_KERNEL_SOURCE points at the few that stand in for them (bpf_templates/lib/bcc). It works in a
child within limits, and sees the texts that are in the digest and no others (overlay.py). What is kept of it are the
instructions and the definitions of the maps; its own maps and its 100 MB of compiler go with the child.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import sys
from functools import partial
from typing import Any

from nkform.bpf.diagnose import compiler_error, verifier_error
from nkform.bpf.loader import MapDefinition, Prototype, in_child, no_program, places_of
from nkform.bpf.overlay import INCLUDES, NO_CLOCK, Overlay, virtual_files
from nkform.bpf.render import Rendered
from nkform.bpf.texts import library, library_texts
from nkform.dataclass import dataclass
from nkform.kernel.bpf import PRIVILEGE
from nkform.kernel.bpf_maps import map_info
from nkform.kernel.bpf_programs import SCHED_CLS, last_useful_line
from nkform.kernel.child import ChildError, Limits
from nkform.kernel.error import KernelError
from nkform.problem import NkformError, Problem

HEADERS_VARIABLE = "BCC_KERNEL_SOURCE"
HEADERS = "bcc"
"""Where they are in the library."""

LOG_BYTES = 1 << 20
LIMITS = Limits(seconds=60, cpu=60, memory=2 << 30, output=16 << 20)
"""Of one program; a third of a second and 125 MB are usual."""

_FLAGS = (
    "-DNK_BCC=1",
    "-fno-gnu-inline-asm",  # it can read files (assembly.py); an empty one, a barrier to the compiler, is let pass
    "-Wno-unused-variable",
    "-Wno-unused-function",
    "-fno-color-diagnostics",
    "-Werror=implicit-function-declaration",
    "-Werror=int-conversion",
    "-Werror=incompatible-pointer-types",
    *NO_CLOCK,
)


@dataclass(frozen=True)
class BccObject:
    """A program that bcc compiled, with the values in it. Its maps' types are not kept: they have no BTF."""

    key: str
    made: Prototype

    def belongs_to(self, rendered: Rendered) -> bool:
        """See loader.Object."""
        return self.key == _key(rendered)

    def prototype(self, rendered: Rendered) -> Prototype:  # noqa: ARG002  # the kernel has looked at it already
        """See loader.Object."""
        return self.made


class BccEngine:
    """Builds with bcc. Raises NkformError if python3-bpfcc is missing when it is needed."""

    name = "bcc"

    def __init__(self) -> None:
        self.runs = 0
        """How often bcc compiled."""
        self.unkept: OSError | None = None
        self._built: dict[str, BccObject] = {}

    def close(self) -> None:
        """It keeps nothing open."""

    def build(self, rendered: Rendered) -> BccObject:
        """The object of a program; compiled here unless this process has it. Raises NkformError, KernelError."""
        rendered.packed()  # says which values are not known
        key = _key(rendered)
        if key not in self._built:
            self.runs += 1
            _require_bcc()
            self._built[key] = BccObject(
                key, in_child(rendered, lambda: _compile(rendered), LIMITS, partial(_stopped, rendered))
            )
        return self._built[key]


def _stopped(rendered: Rendered, error: ChildError) -> Problem:
    code = "NK0732" if error.reason == "time" else "NK0762"
    hint = f"it may take {LIMITS.memory >> 20} MiB of memory and {LIMITS.cpu} s; else it has a bug"
    return Problem(code, f"bcc with the template {rendered.template.name} {error}", hint=hint)


def _key(rendered: Rendered) -> str:
    return hashlib.sha256(f"{rendered.structure}\0{rendered.source}".encode()).hexdigest()


def find_bcc() -> Any | None:
    """The module `bcc`, or None: it is not there, or it is the package of that name that has nothing to do with BPF."""
    try:
        import bcc  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except (ImportError, OSError):
        return None
    return bcc if hasattr(bcc, "BPF") and hasattr(bcc, "lib") else None


def _not_loadable() -> str:
    """Why bcc, which is there, cannot be loaded: a library that is missing, or no memory for it."""
    try:
        import bcc  # noqa: F401
    except ModuleNotFoundError:
        return ""
    except (ImportError, OSError) as error:
        return str(error)
    return ""


def _require_bcc() -> Any:
    bcc = find_bcc()
    if bcc is None:
        found = getattr(sys.modules.get("bcc"), "__file__", None)
        other = f" ({found} is an unrelated package of that name)" if found else ""
        if reason := _not_loadable():
            said, hint = f"the Python module bcc cannot be loaded: {reason}", "see what the system's libraries lack"
            raise NkformError(Problem("NK0735", said, hint=hint))
        raise NkformError(
            Problem(
                "NK0735",
                f"the Python module bcc is not installed{other}",
                hint="install it (Debian: apt-get install python3-bpfcc) for the system's own Python, and let nkform's"
                " environment see it (python3 -m venv --system-site-packages); or take `engine: clang`",
            )
        )
    return bcc


def _compile(rendered: Rendered) -> Prototype:
    """The child's work. It has nobody to clean up for: what is left goes with it."""
    bcc = _require_bcc()
    headers = library() / HEADERS
    texts = virtual_files(rendered)
    texts |= {f"{library()}/{name}": text for name, text in library_texts().items() if name.startswith(f"{HEADERS}/")}
    os.environ[HEADERS_VARIABLE] = str(headers)
    overlay = Overlay(texts)
    said = _Stderr()
    # bcc says why only on the terminal's file descriptor, and raises a bare Exception.
    try:
        program = bcc.BPF(text=rendered.source.encode(), cflags=[*_FLAGS, *overlay.flags, *INCLUDES])
    except Exception as error:
        output = said.text()
        if "error:" not in output and os.geteuid() != 0:
            raise KernelError(errno.EPERM, f"compile program {rendered.name} with bcc", PRIVILEGE) from None
        raise compiler_error(rendered, output or str(error)) from None
    _verify(bcc, program, rendered)
    insns: bytes = program.dump_func(rendered.function.encode())
    maps = _maps(bcc, program)
    names = {fd: definition.name for fd, definition in maps}
    return Prototype(bytes(insns), tuple(definition for _, definition in maps), places_of(insns, names))


def _maps(bcc: Any, program: Any) -> list[tuple[int, MapDefinition]]:
    """The maps that bcc has made, by file descriptor; the kernel tells what they are."""
    lib, module = bcc.lib, program.module
    signatures = (
        ("bpf_num_tables", ctypes.c_size_t, (ctypes.c_void_p,)),
        ("bpf_table_name", ctypes.c_char_p, (ctypes.c_void_p, ctypes.c_size_t)),
        ("bpf_table_fd_id", ctypes.c_int, (ctypes.c_void_p, ctypes.c_size_t)),
    )
    for name, result, arguments in signatures:  # bcc's Python part leaves these out
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    found = []
    for place in range(lib.bpf_num_tables(module)):
        fd = lib.bpf_table_fd_id(module, place)
        info = map_info(fd)
        name = lib.bpf_table_name(module, place).decode()
        definition = MapDefinition(name, info.type, info.key_size, info.value_size, info.max_entries, info.flags)
        found.append((fd, definition))
    return found


def _verify(bcc: Any, program: Any, rendered: Rendered) -> None:
    """Loads it once as bcc does, which knows the lines of the source that the verifier names in its log."""
    lib, name = bcc.lib, rendered.function.encode()
    start, size = lib.bpf_function_start(program.module, name), lib.bpf_function_size(program.module, name)
    if not start:
        raise no_program(rendered)
    log = ctypes.create_string_buffer(LOG_BYTES)

    def attempt(level: int) -> int:
        return int(
            lib.bcc_func_load(
                program.module, SCHED_CLS, name, start, size, rendered.license.encode(), 0,
                level, log if level else None, len(log) if level else 0, None, 0,
            )
        )  # fmt: skip

    fd = attempt(0)
    if fd < 0:
        number = ctypes.get_errno() or errno.EINVAL
        fd = attempt(1)
        text = log.value.decode(errors="replace")
        if fd < 0 and text.strip():
            raise verifier_error(rendered, text, last_useful_line(text)[0])
        if fd < 0:
            raise KernelError(number, f"load program {rendered.name}", PRIVILEGE if number == errno.EPERM else "")
    os.close(fd)


class _Stderr:
    """What C++ writes to the child's terminal, which it has none of."""

    def __init__(self) -> None:
        self._fd = os.memfd_create("nkform", os.MFD_CLOEXEC)
        os.dup2(self._fd, 2)

    def text(self) -> str:
        return os.pread(self._fd, LOG_BYTES, 0).decode(errors="replace")
