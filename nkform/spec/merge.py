"""Several files, one spec; and `defaults` under every device.

Mappings are united. What two files both say must be the same where it is one value for the whole (`version`, `node`,
a key of `defaults`, a namespace), and is an error where it is a thing of its own (a device). Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nkform.attributes import BY_NAME, may_have
from nkform.document.scalars import quoted
from nkform.kinds import kind_of
from nkform.problem import Path

Data = dict[str, Any]

Clash = Callable[[str, int, int, Path], None]
"""Called with what clashes, the numbers of the two files, and the path in both."""

_DEEP = frozenset({"peer", "sysctl", "ipv4", "ipv6", "programs"})
"""Keys of a device whose mappings are merged; other values replace."""


def merge_files(files: Sequence[Data], clash: Clash) -> Data:
    """The union of files that obey the schema, without their variables."""
    merger = _Merger(clash)
    for number, data in enumerate(files):
        merger.add({key: value for key, value in data.items() if key != "vars"}, number)
    return merger.merged


class _Merger:
    """What the files so far say, and which of them said it."""

    def __init__(self, clash: Clash) -> None:
        self.merged: Data = {}
        self.clash = clash
        self.origin: dict[Path, int] = {}

    def add(self, data: Data, number: int) -> None:
        for key, value in data.items():
            if key == "templates":
                self.merged[key] = [*self.merged.get(key, ()), *value]
            elif key in {"namespaces", "devices", "defaults", "programs"}:
                self.unite(self.merged.setdefault(key, {}), value or {}, number, (key,))
            else:
                self.put(self.merged, key, value, number, ())

    def unite(self, into: Data, data: Data, number: int, path: Path) -> None:
        for key, value in data.items():
            if path[0] == "defaults" and key in _DEEP and isinstance(value, dict):
                self.unite(into.setdefault(key, {}), value, number, (*path, key))
            else:
                self.put(into, key, value, number, path)

    def put(self, into: Data, key: str, value: Any, number: int, path: Path) -> None:
        """Put a value under a key that no other file has, or has with the same value."""
        first = self.origin.setdefault((*path, key), number)
        if first == number:
            into[key] = value
        elif path == ("devices",):
            self.clash(f"the device {quoted(key)}", first, number, (*path, key))
        elif path in {("namespaces",), ("programs",)}:
            if (into[key] or {}) != (value or {}):
                self.clash(f"the {path[0].removesuffix('s')} {quoted(key)}", first, number, (*path, key))
        elif into[key] != value:
            self.clash(f"the default of `{key}`" if path else f"`{key}`", first, number, (*path, key))


def merge_defaults(defaults: Data, device: Data) -> Data:
    """A device with what it does not say itself taken from the defaults."""
    if not defaults:
        return device
    merged = {**defaults, **device}
    for key in _DEEP & defaults.keys() & device.keys():
        if isinstance(defaults[key], dict) and isinstance(device[key], dict):
            merged[key] = merge_defaults(defaults[key], device[key])
    return merged


def defaults_for(kind: str, defaults: Mapping[str, Any]) -> Data:
    """The defaults that mean something to a kind of device: what another kind alone has, an attribute, a hook or a
    peer, is left out."""
    result: Data = {}
    traits = kind_of(kind)
    for key, value in defaults.items():
        row = BY_NAME.get(key)
        if key == "peer":
            result |= {key: defaults_for(kind, value)} if traits.has_peer else {}
        elif key == "programs":
            result[key] = {hook: chain for hook, chain in value.items() if hook in traits.hooks}
        elif row is None or may_have(row, kind):
            result[key] = value
    return result
