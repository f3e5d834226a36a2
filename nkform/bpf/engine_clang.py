"""The clang engine: C → object file, compiled once for the whole machine, loaded through libbpf."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from nkform.bpf.catalogue import library
from nkform.bpf.diagnose import compiler_error, verifier_error
from nkform.bpf.loader import MapDefinition, Prototype, places_of
from nkform.bpf.render import ABI, Rendered
from nkform.bpf.store import Store
from nkform.bpf.values import MAP_NAME
from nkform.dataclass import dataclass, field
from nkform.kernel.bpf_programs import VerifierError
from nkform.problem import NkformError, Problem

if TYPE_CHECKING:
    from nkform.kernel.libbpf import Library

FLAGS = (
    "-target", "bpf",
    "-mcpu=v3",  # 32 bit arithmetic and jumps: every kernel from 5.1 on
    "-std=gnu11", "-O2", "-g",
    "-nostdinc", "-fno-ident", "-fdebug-compilation-dir=.", "-fno-color-diagnostics",
    "-Wall", "-Wno-unused-variable", "-Wno-unused-function", "-Wno-unused-const-variable",
    "-Werror=implicit-function-declaration", "-Werror=int-conversion", "-Werror=incompatible-pointer-types",
)  # fmt: skip
TIMEOUT = 60.0
"""Seconds for one compilation; a quarter of one is usual."""

SOURCE, OBJECT = "program.c", "program.o"
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
        """See loader.Object."""
        asked = f"load program {rendered.name}"
        with self.library().open(self.data, asked) as opened:
            if rendered.layout.fields:
                opened.set_initial_value(MAP_NAME, rendered.packed())
            try:
                insns = opened.load(rendered.function)
            except VerifierError as error:
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
    where programs are looked for first. Raises NkformError if there is no compiler when one is needed."""

    name = "clang"

    def __init__(
        self, cache: Store, *, objects: Store | None = None, compiler: str | None = None, timeout: float = TIMEOUT
    ) -> None:
        self.cache = cache
        self.objects = objects
        self.compiler = compiler
        self.timeout = timeout
        self.runs = 0
        """How often clang ran."""
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
        if self.objects is not None and (data := self.objects.get(rendered.structure)) is not None:
            return ClangObject(rendered.structure, rendered.structure, data, "objects", self._open_library)
        key = self._key(rendered)
        if (data := self.cache.get(key)) is not None:
            return ClangObject(key, rendered.structure, data, "cache", self._open_library)
        with self.cache.lock(key):
            if (data := self.cache.get(key)) is not None:  # somebody else has built it meanwhile
                return ClangObject(key, rendered.structure, data, "cache", self._open_library)
            data = self._compile(rendered)
            about = {"template": rendered.template.name, "mode": rendered.mode, "clang": self._version}
            self.cache.put(key, data, about)
        return ClangObject(key, rendered.structure, data, "compiled", self._open_library)

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
        state = Path(self._path).stat()
        real = str(Path(self._path).resolve())
        identity = f"{real}\0{state.st_ino}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}"
        name = hashlib.sha256(identity.encode()).hexdigest()
        known = self.cache.note(name)
        if known is None:
            known = self._run([self._path, "--version"], None).stdout.split(b"\n", 1)[0]
            self.cache.set_note(name, known)
        return known.decode(errors="replace")

    def _about_compiler(self) -> str:
        return self._version if find_compiler(self.compiler) else ""

    def _compile(self, rendered: Rendered) -> bytes:
        self.runs += 1
        with tempfile.TemporaryDirectory(prefix="nkform-") as folder:
            (Path(folder) / SOURCE).write_text(rendered.source, encoding="utf-8")
            places = {"nkform": library(), "template": rendered.template.folder}
            # Two machines make the same bytes: what stands in the object is the name, not where it lies here.
            names = [f"-ffile-prefix-map={path}={name}" for name, path in places.items()]
            includes = [f"-I{path}" for path in places.values()]
            done = self._run([self._path, *FLAGS, *names, *includes, "-c", SOURCE, "-o", OBJECT], folder)
            if done.returncode:
                raise compiler_error(rendered, done.stderr.decode(errors="replace"))
            return (Path(folder) / OBJECT).read_bytes()

    def _run(self, command: list[str], folder: str | None) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": os.defpath, "LC_ALL": "C", **({"TMPDIR": folder} if folder else {})}
        try:
            return subprocess.run(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NkformError(Problem("NK0732", f"{command[0]} did not end within {self.timeout:g} s")) from None
        except OSError as error:
            raise NkformError(Problem("NK0730", f"cannot run {command[0]}: {error.strerror}")) from None


def find_compiler(wanted: str | None = None) -> str | None:
    """The path of clang, or of the newest clang-NN; None if there is none."""
    for name in (wanted,) if wanted else ("clang", *_VERSIONED):
        if path := shutil.which(name):
            return str(Path(path).absolute())
    return None
