"""The clang engine: C → object file, compiled once for the whole machine, loaded through libbpf.

Both happen in child processes within limits: a compiler or a library that hangs, fills the memory or crashes ends in an
error. A compiler sees the texts that are in the digest and no others (overlay.py), and writes into pipes.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from nkform.bpf.loader import MapDefinition, Prototype, in_child, no_program, places_of
from nkform.bpf.overlay import INCLUDES, NO_CLOCK, Overlay, fd_path, virtual_files
from nkform.bpf.render import ABI, Rendered
from nkform.bpf.store import MAX_OBJECT, Store, checksum
from nkform.bpf.values import MAP_NAME
from nkform.dataclass import dataclass, field
from nkform.kernel import child, files
from nkform.kernel.bpf_programs import VerifierError
from nkform.kernel.child import ChildError, Done, Limits
from nkform.kernel.descriptors import content
from nkform.problem import NkformError, Position, Problem, fail

if TYPE_CHECKING:
    from nkform.kernel.libbpf import Library

FLAGS = (
    "-target", "bpf",
    "-mcpu=v3",  # 32 bit arithmetic and jumps: every kernel from 5.1 on
    "-std=gnu11", "-O2", "-g",
    "-nostdinc", "-fno-ident", "-fdebug-compilation-dir=.", "-fno-color-diagnostics", "-fno-crash-diagnostics",
    "-Wall", "-Wno-unused-variable", "-Wno-unused-function", "-Wno-unused-const-variable",
    "-Werror=implicit-function-declaration", "-Werror=int-conversion", "-Werror=incompatible-pointer-types",
    *NO_CLOCK,
)  # fmt: skip
LIMITS = Limits(seconds=60, cpu=60, memory=2 << 30, output=MAX_OBJECT)
"""Of one compilation. A quarter of a second and 100 MB are usual."""

LOAD_LIMITS = Limits(seconds=120, cpu=120, memory=512 << 20, output=64 << 20)
"""Of libbpf and the verifier with one program; some milliseconds are usual."""

SOURCE = "program.c"
"""What a program's C is called in what compiler and verifier say; it is no file."""

_ENDS = (0, 1)
"""How clang ends that has done its work, or has said what is wrong with a program."""
_VERSIONED = tuple(f"clang-{number}" for number in range(30, 10, -1))


@dataclass(frozen=True)
class ClangObject:
    """An object file. `origin` tells whether it was compiled now, or found in the cache or among given objects."""

    key: str
    structure: str
    data: bytes
    origin: str
    library: Callable[[], Library] = field(repr=False)

    def belongs_to(self, rendered: Rendered) -> bool:
        """See loader.Object."""
        return self.structure == rendered.structure

    def prototype(self, rendered: Rendered) -> Prototype:
        """See loader.Object. libbpf and what it makes of an object that somebody has crafted stay in a child."""
        library = self.library()
        return in_child(rendered, lambda: self._loaded(library, rendered), LOAD_LIMITS, partial(unloadable, rendered))

    def _loaded(self, library: Library, rendered: Rendered) -> Prototype:
        with library.open(self.data, f"load program {rendered.name}") as opened:
            if not opened.has(rendered.function):
                raise no_program(rendered)
            _unpinned(rendered, opened.pinned())
            if rendered.layout.fields:
                opened.set_initial_value(MAP_NAME, rendered.packed())
            try:
                insns = opened.load(rendered.function)
            except VerifierError as error:
                from nkform.bpf.diagnose import verifier_error

                raise verifier_error(rendered, error.log, error.last_line) from error
            maps = opened.maps()
            places = places_of(insns, {found.fd: found.name for found in maps})
            definitions = tuple(
                MapDefinition(
                    found.name, found.type, found.key_size, found.value_size, found.max_entries, found.flags,
                    found.btf_key_type_id, found.btf_value_type_id,
                )
                for found in maps if not found.internal
            )  # fmt: skip
            _only_values(rendered, [found.name for found in maps if found.internal])
            return Prototype(insns, definitions, places, opened.btf_fd() if definitions else -1)


def unloadable(rendered: Rendered, error: ChildError) -> Problem:
    """What it means that opening an object failed."""
    message = f"the object of {rendered.template.name} cannot be opened: what looks at it {error}"
    hint = "it is damaged, or was made to do this: compile it anew from a template that you trust"
    return Problem("NK0764", message, hint=hint)


def _unpinned(rendered: Rendered, paths: Sequence[str]) -> None:
    """A map that pins itself would be there for ever, or be the one that somebody else has pinned: refuse it."""
    if paths:
        raise NkformError(
            Problem(
                "NK0741",
                f"the template {rendered.template.name} has a map that would be pinned at {', '.join(paths)}",
                hint="take `pinning` out of it, or declare it with map(): nkform keeps a program's maps itself",
            )
        )


def _only_values(rendered: Rendered, sections: Sequence[str]) -> None:
    """Data that is neither values nor in a map would be lost: refuse it."""
    if other := [name for name in sections if name != MAP_NAME]:
        raise NkformError(
            Problem(
                "NK0741",
                f"the template {rendered.template.name} has global data ({', '.join(other)})",
                hint="programs keep what they need in maps and values: declare it with map() or as a parameter",
            )
        )


class ClangEngine:
    """Builds with clang. `compiler` None: the one on PATH. `objects`: a store of objects that were built elsewhere,
    where programs are looked for first; `given` is what was in them when the plan was made (`checksum`), by structure.
    Raises NkformError if there is no compiler when one is needed."""

    name = "clang"

    def __init__(
        self,
        cache: Store,
        *,
        objects: Store | None = None,
        given: Mapping[str, str] = MappingProxyType({}),
        compiler: str | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        self.cache = cache
        self.objects = objects
        self.given = given
        self.compiler = compiler
        self.limits = limits
        self.runs = 0
        """How often clang ran."""
        self.unkept: OSError | None = None
        """Why the cache did not take something, if it did not."""
        self._built: dict[str, ClangObject] = {}

    def close(self) -> None:
        self.cache.close()
        if self.objects is not None:
            self.objects.close()

    def build(self, rendered: Rendered) -> ClangObject:
        """The object of a program, from memory, the given objects, the cache or the compiler."""
        built = self._built.get(rendered.structure)
        if built is None:
            built = self._built[rendered.structure] = self._find(rendered)
        return built

    def export(self, rendered: Rendered, store: Store) -> str:
        """Builds a program and puts it where `objects` finds it on another machine; its key there."""
        data = self.build(rendered).data
        about = {"template": rendered.template.name, "mode": rendered.mode, "clang": self._about_compiler()}
        store.put(rendered.structure, data, about)
        return rendered.structure

    def _find(self, rendered: Rendered) -> ClangObject:
        if (data := self._find_given(rendered.structure)) is not None:
            return ClangObject(rendered.structure, rendered.structure, data, "objects", self._open_library)
        key = self._key(rendered)
        if (data := self.cache.get(key)) is not None:
            return ClangObject(key, rendered.structure, data, "cache", self._open_library)
        with self._building(key):
            if (data := self.cache.get(key)) is not None:  # somebody else has built it meanwhile
                return ClangObject(key, rendered.structure, data, "cache", self._open_library)
            data = self._compile(rendered)
            about = {"template": rendered.template.name, "mode": rendered.mode, "clang": self._version}
            with self._kept():
                self.cache.put(key, data, about)
        return ClangObject(key, rendered.structure, data, "compiled", self._open_library)

    def _find_given(self, structure: str) -> bytes | None:
        if self.objects is None:
            return None
        data = self.objects.get(structure)
        if structure in self.given and self.given[structure] != checksum(data):
            raise fail(
                "NK0623",
                f"the compiled object {structure} in {self.objects.path} is another one than when the plan was made",
                hint="plan again",
            )
        return data

    @contextlib.contextmanager
    def _building(self, key: str) -> Iterator[None]:
        """Others wait while it is built; where there is no room to tell them so, they build it too."""
        with contextlib.ExitStack() as stack:
            with self._kept():
                stack.enter_context(self.cache.lock(key))
            yield

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """What the cache cannot take can be used all the same."""
        try:
            yield
        except OSError as error:
            self.unkept = error

    def _key(self, rendered: Rendered) -> str:
        parts = (str(ABI), self._version, *FLAGS, rendered.structure, rendered.source)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()

    @cached_property
    def _library(self) -> Library:
        from nkform.kernel.libbpf import Library

        return Library()

    def _open_library(self) -> Library:
        """Compiling needs no libbpf; so it is opened when the first object is loaded."""
        return self._library

    @cached_property
    def _path(self) -> str:
        found = find_compiler(self.compiler)
        if found is None:
            wanted = f"clang ({self.compiler})" if self.compiler else "clang"
            where = f" {self.objects.path} has no object of this program either." if self.objects else ""
            raise NkformError(
                Problem(
                    "NK0730",
                    f"{wanted} is not installed, and programs must be compiled.{where}",
                    hint="install it (Debian: apt-get install clang), take `engine: bcc`, or give objects that were"
                    " built elsewhere (nkform build, --objects DIR)",
                )
            )
        return found

    @cached_property
    def _version(self) -> str:
        """What `clang --version` says, remembered as long as the program file is the same: asking takes 25 ms."""
        name = hashlib.sha256(files.identity(Path(self._path)).encode()).hexdigest()
        known = self.cache.note(name)
        if known is None:
            known = self._run([self._path, "--version"], None, None, None).out.split(b"\n", 1)[0]
            with self._kept():
                self.cache.set_note(name, known)
        return known.decode(errors="replace")

    def _about_compiler(self) -> str:
        return self._version if find_compiler(self.compiler) else ""

    def _compile(self, rendered: Rendered) -> bytes:
        from nkform.bpf import assembly

        self.runs += 1
        source = f'#line 1 "{SOURCE}"\n{rendered.source}'.encode()
        with Overlay(virtual_files(rendered)) as overlay:
            command = [self._path, *FLAGS, *overlay.flags, *INCLUDES, "-x", "c", "-"]
            preprocessed = self._output([*command, "-E", "-P"], rendered, overlay, source)
            if assembly.reads_files(preprocessed.decode(errors="replace")):
                raise _reads(rendered, "by inline assembly that has a directive, or something like one")
            dependencies = overlay.add(b"")
            told = ["-c", "-o", "-", "-MD", "-MT", "x", "-MF", fd_path(dependencies)]
            data = self._output([*command, *told], rendered, overlay, source)
            _only_known(rendered, content(dependencies))
        return data

    def _output(self, command: list[str], rendered: Rendered, overlay: Overlay, source: bytes) -> bytes:
        """What a compiler makes of a program's text. Raises NkformError for what it refuses."""
        done = self._run(command, rendered, overlay, overlay.add(source))
        if done.code:
            from nkform.bpf.diagnose import compiler_error

            raise compiler_error(rendered, done.err.decode(errors="replace"))
        return done.out

    def _run(self, command: list[str], rendered: Rendered | None, overlay: Overlay | None, stdin: int | None) -> Done:
        # Nothing is written, so that no folder for temporary files is told; no configuration file is read.
        environment = {"PATH": child.PROGRAMS, "LC_ALL": "C", "CLANG_NO_DEFAULT_CONFIG": "1"}
        name = f" with the template {rendered.template.name}" if rendered else ""
        try:
            done = child.run(
                command, self.limits, environment, stdin=stdin, keep=overlay.fds if overlay else (),
            )  # fmt: skip
        except ChildError as error:
            code = "NK0732" if error.reason == "time" else "NK0762"
            position = Position(str(rendered.template.path), 1, 1) if rendered else None
            raise NkformError(Problem(code, f"{command[0]}{name} {error}", position=position)) from None
        except OSError as error:
            raise NkformError(Problem("NK0730", f"cannot run {command[0]}: {error.strerror}")) from None
        if rendered and done.code not in _ENDS:
            raise _crashed(rendered, command[0], done, self.limits)
        return done


def _reads(rendered: Rendered, how: str) -> NkformError:
    position = Position(str(rendered.template.path), 1, 1)
    return NkformError(
        Problem(
            "NK0763",
            f"the template {rendered.template.name} reads files that no digest covers: {how}",
            position=position,
            hint="a program is made of the *.h of its template's folder and of lib/, and of nothing else",
        )
    )


def _only_known(rendered: Rendered, dependencies: bytes) -> None:
    """Raises NkformError if a compiler says that it has read anything but what it was given."""
    _, _, names = dependencies.decode(errors="replace").replace("\\\n", " ").partition(":")
    if strange := sorted(set(names.split()) - {"-", "<stdin>"} - virtual_files(rendered).keys()):
        raise _reads(rendered, ", ".join(strange))


def _crashed(rendered: Rendered, compiler: str, done: Done, limits: Limits) -> NkformError:
    """The compiler ended as no compiler should: it ran into a limit on memory, or has a bug."""
    lines = done.err.decode(errors="replace").splitlines()
    said = next((line for line in lines if "ERROR" in line or "error:" in line), "")
    ended = f"died of signal {-done.code}" if done.code < 0 else f"ended with {done.code}"
    message = f"{compiler} {ended} with the template {rendered.template.name}{': ' if said else ''}{said.strip()[:200]}"
    hint = f"it may take {limits.memory >> 20} MiB of memory and {limits.cpu} s; else it has a bug"
    return NkformError(Problem("NK0762", message, position=Position(str(rendered.template.path), 1, 1), hint=hint))


def find_compiler(wanted: str | None = None) -> str | None:
    """The path of clang, or of the newest clang-NN; None if there is none."""
    for name in (wanted,) if wanted else ("clang", *_VERSIONED):
        if path := child.find(name):
            return path
    return None
