"""What becomes of mounts: whether they last as long as the network that nkform works on.

A command such as `ip netns exec` makes a mount namespace of its own, with a new /sys, that ends with the command. What
is mounted there goes with it: a bpffs with all pins, and so all programs; names of network namespaces. Touches nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

Identity = tuple[int, int]
"""A namespace's device and inode number."""


def are_shared(folder: str) -> bool:
    """Whether what is mounted below a folder is seen by the mount namespace that its mount came from.

    False where the mount gets what is mounted there and gives nothing back, or stands alone (mount_namespaces(7),
    shared:N and master:N in proc_pid_mountinfo(5)).
    """
    best, shared = "", False
    try:
        with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                words = line.split(" - ", 1)[0].split(" ")
                place, marks = words[4], words[6:]
                if f"{folder}/".startswith(f"{place.rstrip('/')}/") and len(place) >= len(best):
                    best, shared = place, any(mark.startswith("shared:") for mark in marks)
                    shared = shared and not any(mark.startswith("master:") for mark in marks)
    except OSError:
        return True  # no /proc: then nothing is known of it
    return shared


def are_outlived(names: str) -> bool:
    """Whether the network namespace that the thread is in outlives this mount namespace, as far as can be told.

    So it is where a process that this one comes from is in another mount namespace, and the network namespace is that
    process's too, or has a name in the folder `names`.
    """
    own = _namespaces("thread-self")
    others = [
        each for each in map(_namespaces, _ancestors()) if each is not None and own is not None and each[0] != own[0]
    ]
    if own is None or not others:
        return False
    if any(net == own[1] for _, net in others):
        return True
    with suppress(OSError):
        return any(_identity(entry.path) == own[1] for entry in os.scandir(names))
    return False


def _ancestors() -> Iterator[str]:
    """The numbers of the processes that this one comes from, as far as this one may look (proc_pid_stat(5))."""
    number = os.getppid()
    with suppress(OSError, ValueError, IndexError):
        while number > 0:
            yield str(number)
            stat = Path(f"/proc/{number}/stat").read_bytes()
            number = int(stat.rpartition(b")")[2].split()[1])


def _namespaces(process: str) -> tuple[Identity, Identity] | None:
    """A process's mount and network namespace. None: this one may not look."""
    mount, network = (_identity(f"/proc/{process}/ns/{kind}") for kind in ("mnt", "net"))
    return (mount, network) if mount and network else None


def _identity(path: str) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
