"""Leaving control groups, of version 2 and of each hierarchy of version 1 (cgroups(7)). Moves this process alone.

Whoever freezes, kills or limits a group means what was started in it; a process that is to outlive its maker has to be
in none but the topmost.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from nkform.kernel.detached_mount import mounted

KINDS = ("cgroup", "cgroup2")


def leave() -> None:
    """Joins the topmost group of each hierarchy, as far as that can be."""
    with suppress(OSError):
        tops = list(_tops())
        for line in _lines("/proc/self/cgroup"):
            _, controllers, group = line.split(":", 2)
            if group != "/":
                _leave(controllers, tops)


def _leave(controllers: str, tops: list[tuple[frozenset[str], str]]) -> None:
    """Leaves the group of the hierarchy of some controllers; none: version 2."""
    wanted = frozenset(controllers.split(",")) if controllers else frozenset(KINDS[1:])
    for options, path in tops:
        if wanted <= options:
            with suppress(OSError):  # something else is mounted over it, say
                _join(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
                return
    if controllers:  # to mount version 2 could change what the machine has set for it (nsdelegate)
        with suppress(OSError):
            _join(mounted("cgroup", "see the control groups", _options(wanted)))


def _join(top: int) -> None:
    """Joins the group of a folder, whose descriptor is closed. Raises OSError."""
    try:
        fd = os.open("cgroup.procs", os.O_WRONLY | os.O_CLOEXEC, dir_fd=top)
        try:
            os.write(fd, str(os.getpid()).encode())
        finally:
            os.close(fd)
    finally:
        os.close(top)


def _tops() -> Iterator[tuple[frozenset[str], str]]:
    """What is mounted, and where: controllers among its options, or `cgroup2` (proc_pid_mountinfo(5))."""
    for line in _lines("/proc/self/mountinfo"):
        mount, _, source = line.partition(" - ")
        kind, _, options = source.split(" ", 2)
        if kind in KINDS:
            yield frozenset((kind, *options.split(","))), _unescaped(mount.split(" ")[4])


def _unescaped(place: str) -> str:
    """A path as the kernel prints it: space, tab, newline and backslash as octal numbers."""
    for sign in " \t\n\\":  # the backslash last
        place = place.replace(f"\\{ord(sign):03o}", sign)
    return place


def _options(controllers: frozenset[str]) -> dict[str, str]:
    """What says which hierarchy is meant: controllers, or the name of one that has none."""
    options: dict[str, str] = {}
    for each in controllers:
        name, _, value = each.partition("=")
        options |= {"none": "", name: value} if value else {name: ""}
    return options


def _lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
