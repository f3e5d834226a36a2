"""The bcc engine: C → instructions, compiled in this process by python3-bpfcc, for machines without clang.

bcc knows no read-only data, so the values are part of the source, and each set of values is compiled. It needs no
headers of the kernel: BCC_KERNEL_SOURCE points at the few that stand in for them (bpf_templates/lib/bcc). What is kept
of it are the instructions and the definitions of the maps; its own maps and its 100 MB of compiler go at once.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from nkform.bpf.catalogue import library
from nkform.bpf.diagnose import compiler_error, verifier_error
from nkform.bpf.loader import MapDefinition, Prototype, places_of
from nkform.bpf.render import Rendered
from nkform.dataclass import dataclass
from nkform.kernel.bpf import PRIVILEGE
from nkform.kernel.bpf_maps import map_info
from nkform.kernel.bpf_programs import SCHED_CLS, last_useful_line
from nkform.kernel.netlink import KernelError
from nkform.problem import NkformError, Problem

HEADERS_VARIABLE = "BCC_KERNEL_SOURCE"
LOG_BYTES = 1 << 20
_FLAGS = (
    "-DNK_BCC=1",
    "-Wno-unused-variable",
    "-Wno-unused-function",
    "-fno-color-diagnostics",
    "-Werror=implicit-function-declaration",
    "-Werror=int-conversion",
    "-Werror=incompatible-pointer-types",
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
        self._built: dict[str, BccObject] = {}

    def close(self) -> None:
        """It keeps nothing open."""

    def build(self, rendered: Rendered) -> BccObject:
        """The object of a program; compiled here unless this process has it. Raises NkformError, KernelError."""
        rendered.packed()  # says which values are not known
        key = _key(rendered)
        if key not in self._built:
            self.runs += 1
            self._built[key] = BccObject(key, _compile(rendered))
        return self._built[key]


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
    bcc = _require_bcc()
    flags = [*_FLAGS, f"-I{library()}", f"-I{rendered.template.folder}"]
    program = None
    with _environment(), _stderr() as said:
        # bcc says why only on the terminal's file descriptor, and raises a bare Exception.
        try:
            program = bcc.BPF(text=rendered.source.encode(), cflags=flags)
        except Exception as error:
            failure: Exception | None = error
        else:
            failure = None
    if program is None:
        output = said()
        if "error:" not in output and os.geteuid() != 0:
            raise KernelError(errno.EPERM, f"compile program {rendered.name} with bcc", PRIVILEGE)
        raise compiler_error(rendered, output or str(failure))
    atexit.unregister(program.cleanup)  # which would keep it for as long as the process lives
    try:
        _verify(bcc, program, rendered)
        insns: bytes = program.dump_func(rendered.function.encode())
        maps = _maps(bcc, program)
        names = {fd: definition.name for fd, definition in maps}
        return Prototype(bytes(insns), tuple(definition for _, definition in maps), places_of(insns, names))
    finally:
        with _stderr():
            program.cleanup()


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
        raise NkformError(
            Problem("NK0741", f"the template {rendered.template.name} has no program: it needs program()")
        )
    log = ctypes.create_string_buffer(LOG_BYTES)

    def attempt(level: int) -> int:
        with _stderr():
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


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    before = os.environ.get(HEADERS_VARIABLE)
    os.environ[HEADERS_VARIABLE] = str(library() / "bcc")
    try:
        yield
    finally:
        if before is None:
            del os.environ[HEADERS_VARIABLE]
        else:
            os.environ[HEADERS_VARIABLE] = before


@contextlib.contextmanager
def _stderr() -> Iterator[Any]:
    """Catches what C++ writes to the terminal; gives a function that tells it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as caught:
        kept = os.dup(2)
        os.dup2(caught.fileno(), 2)
        text: list[str] = []
        try:
            yield lambda: text[0]
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            text.append(caught.read(1 << 20).decode(errors="replace"))
