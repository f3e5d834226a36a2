"""Builds kernels for User-Mode Linux from Debian's source packages, into the cache.

A build is named by what went into it: the source's version, and a digest of the configuration, the edits
(lab_edits.py), the options and the compiler. Checkouts share it as long as those agree. The source and the build tree
are removed when the kernel is made, or when making it failed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from debian_archive import (
    CHECKOUT,
    Suite,
    ToolError,
    appearing,
    call,
    codename,
    fresh,
    install,
    locked,
    note,
    remove_leftovers,
)
from lab_edits import FLOATING_POINT_STATE, INTERRUPT_WORK, TYPE_INFORMATION, Edit, apply_edits
from lab_kernels import KERNELS, Built, BuiltKernel, cached_kernels, find_package, kernel_folder, remove_old

CONFIGURATION = CHECKOUT / "tools/lab-guest/uml.config"

# A lab that is killed takes its compilers with it: they live in a process namespace that ends with its first process.
WITH_THE_LAB = (
    "setpriv",
    "--pdeathsig",
    "KILL",
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "sh",
    "-c",
    '"$@"',
    "sh",
)

# Most files of the source take no part: the configuration only reads the Kconfig files among them.
UNUSED = (
    *(f"*/drivers/{name}/*.[ch]" for name in ("gpu", "media", "staging", "net/ethernet", "net/wireless")),
    "*/sound/*.[ch]",
    "*/Documentation/*.rst",
    *(f"*/tools/{name}/*" for name in ("perf", "testing")),
)
OPTIONS = ("KCFLAGS=-g0",)
"""make's. Debugging information takes a quarter more time; only lab_edits.TYPE_INFORMATION asks for some.

-O1 would save another quarter, but the source counts on -O2: checks at compile time fail (kernel/bpf/arena.c).
"""

FURTHER = """\
CONFIG_NET_L3_MASTER_DEV=y
CONFIG_NET_VRF=y
CONFIG_BONDING=y
CONFIG_IPV6_SIT=y
CONFIG_NET_SCH_TBF=y
CONFIG_NET_SCH_HTB=y
"""
"""What others may have on a node: devices and queueing disciplines that tests give to pairs."""

TAIL = 40  # lines of a failed command's output that are shown


@dataclass(frozen=True)
class Recipe:
    """What a kernel is made from, besides the source."""

    configuration: str  # lines of a .config; what they do not name is off
    edits: tuple[Edit, ...]

    def digest(self, compiler: str) -> str:
        parts = (self.configuration, repr(self.edits), repr(OPTIONS), compiler)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def recipe(name: str) -> Recipe:
    """How to make the kernel of that name."""
    configuration, edits = CONFIGURATION.read_text() + FURTHER, INTERRUPT_WORK + TYPE_INFORMATION
    if name == "uml-6.12":
        return Recipe(configuration + "CONFIG_PROC_SYSCTL=y\n", edits + FLOATING_POINT_STATE)
    return Recipe(configuration, edits)


def compiler() -> str:
    """What compiles here, and for which system: a kernel is a program that is linked with the system's C library."""
    if not shutil.which("gcc"):
        install("apt-lab-build.txt")
    return f"{codename()} {call('gcc', '--version').splitlines()[0]}"


def build_kernel(name: str) -> BuiltKernel:
    """The newest kernel of that name; built only when there is none of the newest source, looked for once a day."""
    source = KERNELS[name]
    assert isinstance(source, Built)
    digest = recipe(name).digest(compiler())
    folder = kernel_folder(name)
    checked = folder / "checked"
    if fresh(checked) and (kernel := ready(name, digest, checked.read_text())):
        return kernel
    with locked(f"kernel-{name}", f"another lab builds the kernel {name}; waiting for it"):
        if fresh(checked) and (kernel := ready(name, digest, checked.read_text())):
            return kernel
        try:
            suite, package, version = find_package(source, "linux-source", r"linux-source-\d+\.\d+")
        except ToolError as error:
            if kernel := ready(name, digest):
                note(f"{error}; going on with the kernel that is here, {kernel.release}")
                return kernel
            raise
        kernel = ready(name, digest, version)
        if kernel is None:
            kernel = BuiltKernel(name, folder / f"{version}-{digest}")
            note(f"building Linux {version} of Debian {suite.name} for User-Mode Linux; this takes some minutes")
            start = time.monotonic()
            install("apt-lab-build.txt")
            remove_leftovers(folder)
            with appearing(kernel.folder) as work:
                make_kernel(recipe(name), suite, package, work)
            remove_old(name)
            note(f"built in {time.monotonic() - start:.0f} s")
        checked.write_text(version)
        return kernel


def ready(name: str, digest: str, version: str = "") -> BuiltKernel | None:
    """A kernel of that name that is in the cache, marked as used; of any version when none is given."""
    for kernel in cached_kernels(name):
        its_version, _, its_digest = kernel.folder.name.rpartition("-")
        if isinstance(kernel, BuiltKernel) and its_digest == digest and version in ("", its_version):
            kernel.folder.touch()
            return kernel
    return None


def make_kernel(recipe: Recipe, suite: Suite, package: str, work: Path) -> None:
    """Make a kernel and leave nothing but it, its release and its configuration in `work`."""
    suite.unpack([package], work / "package")
    source = work / "source"
    source.mkdir()
    (archive,) = (work / "package/usr/src").glob(f"{package}.tar.*")
    unused = [f"--exclude={pattern}" for pattern in UNUSED]
    supervised(work, "tar", "-C", source, "-xf", archive, "--strip-components=1", "--wildcards", *unused)
    shutil.rmtree(work / "package")
    apply_edits(source, recipe.edits)
    (work / "wanted").write_text(recipe.configuration)
    tree = work / "tree"
    make = ("make", "-s", "-C", source, "ARCH=um", f"O={tree}", *OPTIONS)
    tree.mkdir()
    supervised(work, *make, f"KCONFIG_ALLCONFIG={work}/wanted", "allnoconfig")
    configuration = (tree / ".config").read_text()
    if missing := options(recipe.configuration) - options(configuration):
        note(f"this source does not have, or not on its own: {' '.join(sorted(missing))}")
    supervised(work, *make, f"-j{len(os.sched_getaffinity(0))}", "linux")
    (work / "config").write_text(configuration)
    (work / "release").write_text((tree / "include/config/kernel.release").read_text())
    call("strip", "--strip-debug", "-o", work / "linux", tree / "linux")
    for unneeded in (source, tree):
        shutil.rmtree(unneeded)
    for file in ("wanted", "log"):
        (work / file).unlink()


def options(configuration: str) -> set[str]:
    """The options that lines of a .config turn on or give a value."""
    return set(re.findall(r"^CONFIG_\w+=(?!n$).*$", configuration, re.MULTILINE))


def supervised(work: Path, *command: str | Path) -> None:
    """Run a long command, its output in a file, so that it ends with this process; a failure shows the output's end."""
    log = work / "log"
    with log.open("w") as output:
        done = subprocess.run(
            (*WITH_THE_LAB, *command), stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-TAIL:])
        raise ToolError(f"{command[0]} failed with exit code {done.returncode}; the end of its output:\n{tail}")


def is_built(name: str) -> bool:
    """Whether a kernel of that name, made as this checkout would, is here."""
    return bool(shutil.which("gcc")) and ready(name, recipe(name).digest(compiler())) is not None
