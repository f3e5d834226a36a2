"""Which network namespace is meant: a closed vocabulary, and the one text that stands for each word of it. Pure.

Models, plans and journals hold a namespace by its key, a text: it is compared, sorted and written down as it is. What
is in a key is known here alone.
"""

from __future__ import annotations

from nkform.dataclass import dataclass

ROOT = ""
"""The key of the namespace that nkform itself runs in."""


@dataclass(frozen=True, slots=True)
class Root:
    """The namespace that nkform itself runs in."""


@dataclass(frozen=True, slots=True)
class Named:
    """The namespace of a name below /run/netns (ip-netns(8))."""

    name: str


@dataclass(frozen=True, slots=True)
class OfPid:
    """The namespace that a process is in."""

    pid: int


@dataclass(frozen=True, slots=True)
class OfPath:
    """The namespace that a file stands for."""

    path: str


@dataclass(frozen=True, slots=True)
class Unnamed:
    """One that nothing leads to but the id by which the root namespace knows it. It is only ever observed."""

    nsid: int


NamespaceKey = Root | Named | OfPid | OfPath | Unnamed

_OF_PID, _OF_PATH, _UNNAMED = "pid:", "path:", "nsid:"


def key_of(meant: NamespaceKey) -> str:
    """The text that stands for a namespace."""
    match meant:
        case Root():
            return ROOT
        case Named(name):
            return name
        case OfPid(pid):
            return f"{_OF_PID}{pid}"
        case OfPath(path):
            return f"{_OF_PATH}{path}"
        case Unnamed(nsid):
            return f"{_UNNAMED}{nsid}"


def meant_by(key: str) -> NamespaceKey:
    """The namespace that a text stands for. Raises ValueError where a number is none."""
    if key == ROOT:
        return Root()
    if key.startswith(_OF_PID):
        return OfPid(int(key.removeprefix(_OF_PID)))
    if key.startswith(_OF_PATH):
        return OfPath(key.removeprefix(_OF_PATH))
    if key.startswith(_UNNAMED):
        return Unnamed(int(key.removeprefix(_UNNAMED)))
    return Named(key)


def can_be_a_name(name: str) -> bool:
    """Whether the key of a name stands for that name, and not for something else."""
    return not name.startswith((_OF_PID, _OF_PATH, _UNNAMED))


def is_unnamed(key: str) -> bool:
    """Whether nothing leads to a namespace: it cannot be entered, nor said in a spec."""
    return key.startswith(_UNNAMED)


def described(key: str) -> str:
    """A namespace as people are told of it."""
    match meant_by(key):
        case Root():
            return "the namespace that nkform runs in"
        case OfPid(pid):
            return f"the namespace of process {pid}"
        case OfPath(path):
            return f"the namespace of {path}"
        case Named(name):
            return f"the namespace {name}"
        case Unnamed(nsid):
            return f"the namespace of id {nsid}"
