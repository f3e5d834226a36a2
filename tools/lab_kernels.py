"""The kernels that the lab knows: their names, where each comes from, and the folders of the cache that hold them.

Touches nothing but the cache folder: looks there, marks a kernel as used, and removes those that newer ones replaced.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from debian_archive import Suite, ToolError, cache_folder

KEPT = 2
"""Kernels of one name that stay in the cache: a run may still use the one before the newest."""


@dataclass(frozen=True)
class Packaged:
    """A kernel out of Debian's own packages, which QEMU boots."""

    suites: tuple[str, ...]  # to look in, best first
    version: str  # what its version starts with


@dataclass(frozen=True)
class Built:
    """A kernel for User-Mode Linux, built here from Debian's source package."""

    suites: tuple[str, ...]
    version: str


KERNELS: dict[str, Packaged | Built] = {
    "6.1": Packaged(("bookworm",), "6.1."),
    "6.12": Packaged(("trixie", "bookworm-backports"), "6.12."),
    "newest": Packaged(("trixie-backports",), ""),
    "uml": Built(("trixie-backports",), ""),
    "uml-6.12": Built(("trixie", "bookworm-backports"), "6.12."),
}


@dataclass(frozen=True)
class PackagedKernel:
    """An unpacked kernel of Debian's in the cache."""

    name: str
    folder: Path

    @property
    def release(self) -> str:
        return next((self.folder / "lib/modules").iterdir()).name

    @property
    def modules(self) -> Path:
        return (self.folder / "lib/modules").resolve()

    @property
    def image(self) -> Path:
        for path in (self.modules / self.release / "vmlinuz", self.folder / f"boot/vmlinuz-{self.release}"):
            if path.exists():
                return path
        raise ToolError(f"{self.folder} has no kernel image; remove it and run: tools/lab fetch {self.name}")


@dataclass(frozen=True)
class BuiltKernel:
    """A kernel for User-Mode Linux in the cache: a program of this machine."""

    name: str
    folder: Path

    @property
    def release(self) -> str:
        return (self.folder / "release").read_text().strip()

    @property
    def image(self) -> Path:
        return self.folder / "linux"


Kernel = PackagedKernel | BuiltKernel


def kernel_folder(name: str) -> Path:
    """The folder of the cache with all kernels of that name."""
    return cache_folder() / "kernels" / name


def cached_kernels(name: str) -> list[Kernel]:
    """The kernels of that name that are here, the one used last first."""
    folders = [path for path in kernel_folder(name).glob("[0-9]*") if path.is_dir()]
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    match KERNELS[name]:
        case Packaged():
            return [PackagedKernel(name, folder) for folder in folders]
        case Built():
            return [BuiltKernel(name, folder) for folder in folders]


def remove_old(name: str) -> None:
    for old in cached_kernels(name)[KEPT:]:
        shutil.rmtree(old.folder, ignore_errors=True)


def find_package(source: Packaged | Built, meta: str, pattern: str) -> tuple[Suite, str, str]:
    """The suite, the package and the version of what the package `meta` stands for in the best of the source's suites.

    `pattern` is what the package's name looks like; `meta` depends on it.
    """
    problem = ""
    for suite in map(Suite, source.suites):
        try:
            suite.refresh()
        except ToolError as error:
            problem = str(error)
            continue
        version = suite.field(meta, "Version")
        package = re.search(pattern, suite.field(meta, "Depends"))
        if version and version.startswith(source.version) and package:
            return suite, package[0], version
        problem = f"Debian {suite.name} has {meta} {version or '(none)'}, not {source.version}x"
    raise ToolError(problem)
