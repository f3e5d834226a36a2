"""The bcc engine: C → instructions, compiled by python3-bpfcc, for machines without clang.

bcc knows no read-only data, so the values are part of the source, and each set of values is compiled. It needs no
headers of the kernel: BCC_KERNEL_SOURCE points at the few that stand in for them (bpf_templates/lib/bcc). It works in a
child within limits, and sees the texts that are in the digest and no others (overlay.py). What is kept of it are the
instructions and the definitions of the maps; its own maps and its 100 MB of compiler go with the child.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

from nkform.bpf.diagnose import compiler_error, verifier_error
from nkform.bpf.loader import MapDefinition, Prototype, in_child, no_program, places_of
from nkform.bpf.overlay import INCLUDES, NO_CLOCK, Overlay, virtual_files
from nkform.bpf.render import Rendered
from nkform.bpf.texts import library, library_texts
from nkform.dataclass import dataclass
from nkform.kernel import libbcc
from nkform.kernel.bpf_programs import VerifierError
from nkform.kernel.child import ChildError, Limits
from nkform.kernel.libbcc import CompileError, Program
from nkform.problem import NkformError, Problem

HEADERS = "bcc"
"""Where they are in the library."""

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


def _require_bcc() -> Any:
    bcc = libbcc.find()
    if bcc is None:
        found = libbcc.other()
        other = f" ({found} is an unrelated package of that name)" if found else ""
        if reason := libbcc.fault():
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
    overlay = Overlay(texts)
    try:
        program = Program(
            bcc, rendered.source, [*_FLAGS, *overlay.flags, *INCLUDES], str(headers),
            f"compile program {rendered.name} with bcc",
        )  # fmt: skip
    except CompileError as error:
        raise compiler_error(rendered, str(error)) from None
    _verify(program, rendered)
    insns = program.insns(rendered.function)
    maps = program.maps()
    definitions = tuple(
        MapDefinition(name, info.type, info.key_size, info.value_size, info.max_entries, info.flags)
        for _, name, info in maps
    )
    return Prototype(insns, definitions, places_of(insns, {fd: name for fd, name, _ in maps}))


def _verify(program: Program, rendered: Rendered) -> None:
    """Has the verifier look at it, with the lines of the source."""
    if not program.has(rendered.function):
        raise no_program(rendered)
    try:
        program.verify(rendered.function, rendered.license, f"load program {rendered.name}")
    except VerifierError as error:
        raise verifier_error(rendered, error.log, error.last_line) from None
