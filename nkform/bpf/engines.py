"""Which engine compiles: clang where there is one, else bcc, or what the spec or the command line says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from nkform.bpf.loader import Object
from nkform.bpf.render import Rendered
from nkform.bpf.store import Store, default_path

AUTO = "auto"


class Engine(Protocol):
    """Compiles programs."""

    @property
    def name(self) -> str:
        """clang or bcc: what `render` is told."""

    @property
    def unkept(self) -> OSError | None:
        """Why a cache did not take an object, which is used all the same; None if all is well."""

    def build(self, rendered: Rendered) -> Object:
        """The object of a program. Raises NkformError (it does not compile, the compiler is missing)."""

    def close(self) -> None:
        """Lets go of the folders that it works with."""


def resolve(wanted: str, *, objects: bool = False) -> str:
    """The engine that `auto` stands for on this machine. With given objects no compiler is needed."""
    from nkform.bpf.engine_clang import find_compiler
    from nkform.kernel import libbcc

    if wanted != AUTO:
        return wanted
    if objects or find_compiler() is not None or libbcc.find() is None:
        return "clang"  # without either, the error names clang first
    return "bcc"


def make(
    wanted: str = AUTO,
    *,
    cache: Path | None = None,
    objects: Path | None = None,
    given: Mapping[str, str] = MappingProxyType({}),
) -> Engine:
    """An engine. `cache` None: the machine's. `given`: what was in objects that were built elsewhere (`checksum`), by
    structure, where that is known. Raises NkformError if a folder cannot be trusted."""
    if resolve(wanted, objects=objects is not None) == "bcc":
        from nkform.bpf.engine_bcc import BccEngine

        return BccEngine()
    from nkform.bpf.engine_clang import ClangEngine

    store = Store(objects, create=False) if objects is not None else None
    return ClangEngine(Store(cache or default_path()), objects=store, given=given)
