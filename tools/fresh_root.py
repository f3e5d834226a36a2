#!/usr/bin/python3
"""Tries the checkout on new Debian systems: `make setup` and `make unit` where only git, make and python3 are.

    tools/fresh_root.py [--worktree] [bookworm] [trixie] [-- COMMAND…]

Makes a minimal system of each suite with debootstrap, once, in the cache; each run works on a layer above it that is
thrown away, in mount and process namespaces of its own. The clone inside is of HEAD, or with --worktree the files as
they are.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from debian_archive import CHECKOUT, ToolError, appearing, cache_folder, call, debian_source, install, locked, note

SUITES = ("bookworm", "trixie")
PACKAGES = "git,make,python3"
SOURCE = "src/nkform"  # the clone, in the new system
COMMAND = ("sh", "-c", "make setup && make setup && make unit")
# How this machine reaches package archives; a new system on it needs the same to reach them.
CARRIED_FILES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/pip.conf",
    "/etc/xdg/pip",
    "/etc/ssl/certs",
    "/usr/local/share/ca-certificates",
)
CARRIED_VARIABLES = re.compile(r"PIP_.*|SSL_CERT_.*|REQUESTS_CA_BUNDLE|(https?|no)_proxy", re.IGNORECASE)


def base_system(suite: str) -> Path:
    """A minimal system of that suite, made when it is not in the cache yet."""
    target = cache_folder() / "systems" / suite
    with locked(f"system-{suite}"):
        if not target.exists():
            note(f"making a minimal Debian {suite}")
            install("apt-fresh.txt")
            uri, keyring = debian_source()
            with appearing(target) as work:
                options = ["--variant=minbase", f"--include={PACKAGES}", *([f"--keyring={keyring}"] if keyring else [])]
                call("debootstrap", *options, suite, work, uri)
    return target


def carry_in(root: Path) -> None:
    """Give the system in `root` what it takes to reach the package archives from this machine."""
    for name in CARRIED_FILES:
        source, target = Path(name), root / name[1:]
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copy(source, target)
    (root / "etc/apt/apt.conf.d/99carried").write_text(call("apt-config", "dump", "Acquire"))


def clone(target: Path, *, worktree: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    call("git", "clone", "--quiet", "--no-local", str(CHECKOUT), target)
    if worktree:
        names = call("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=CHECKOUT).splitlines()
        for name in names:
            if (CHECKOUT / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(CHECKOUT / name, target / name)


def try_suite(suite: str, command: Sequence[str], *, worktree: bool) -> int:
    """Run the command in a new system; its exit code."""
    base = base_system(suite)
    with tempfile.TemporaryDirectory(prefix=f"{suite}-", dir=base.parent, ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        for name in ("files", "work", "root", "extra"):
            (work / name).mkdir()
        clone(work / "files" / SOURCE, worktree=worktree)
        variables = {name: value for name, value in os.environ.items() if CARRIED_VARIABLES.fullmatch(name)}
        variables |= {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        inside = ["env", "-i", *(f"{name}={value}" for name, value in variables.items())]
        inside += ["sh", "-c", f'cd /{SOURCE} && exec "$@"', "sh", *command]
        # The mounts are made in a namespace of their own and vanish with it.
        script = f"""
            set -e
            mount -t overlay overlay -o lowerdir={base},upperdir={work}/files,workdir={work}/work {work}/root
            mount -t proc proc {work}/root/proc
            mount -t sysfs -o ro sysfs {work}/root/sys
            mount --rbind /dev {work}/root/dev
            mount -t tmpfs tmpfs {work}/root/run
            exec chroot {work}/root {shlex.join(inside)}
        """
        carry_in_above(base, work)
        namespaces = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
        return subprocess.run([*namespaces, "sh", "-c", script], check=False, stdin=subprocess.DEVNULL).returncode


def carry_in_above(base: Path, work: Path) -> None:
    """Carry files into the layer above the base, which itself stays as debootstrap made it."""
    # Folders that the layer brings must have the base's rights: what overlayfs shows are the upper folder's.
    for name in ("etc", "etc/apt", "etc/apt/apt.conf.d", "etc/ssl", "usr", "usr/local", "usr/local/share"):
        (work / "files" / name).mkdir(parents=True, exist_ok=True)
        if (base / name).exists():
            shutil.copystat(base / name, work / "files" / name)
    carry_in(work / "files")


def main(arguments: Sequence[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(prog="tools/fresh_root.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suite", nargs="*", default=list(SUITES), help=f"default: {' '.join(SUITES)}")
    parser.add_argument("--worktree", action="store_true", help="try the files as they are, committed or not")
    options = parser.parse_args(arguments[:split])
    command = tuple(arguments[split + 1 :]) or COMMAND
    failed = []
    try:
        if os.geteuid() != 0:
            raise ToolError("needs root, for debootstrap and chroot")
        for suite in options.suite:
            print(f"\n== Debian {suite}", flush=True)
            start = time.monotonic()
            code = try_suite(suite, command, worktree=options.worktree)
            print(f"== Debian {suite}: {'FAILED' if code else 'ok'}, {time.monotonic() - start:.0f} s", flush=True)
            failed += [suite] if code else []
    except ToolError as error:
        note(str(error))
        return error.exit_code
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
