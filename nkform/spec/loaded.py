"""A spec that has been loaded: the desired node, and the way back from it to the places in the files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

from nkform.dataclass import dataclass, fields, replace
from nkform.document.source import Source
from nkform.document.yaml_events import Place
from nkform.model import Attrs, ComputedFor, Device, Endpoint, Node
from nkform.problem import Path, Position, Problem


@dataclass(frozen=True)
class Spec:
    """The desired node. `warnings` have positions; `sources` are the files, in the order in which they were given.

    `templates` are the folders of the user's program templates, `engine` what compiles programs (auto, clang, bcc).
    `expedite`: whether a run may expedite the kernel's grace periods while programs come and go.
    """

    node: Node
    warnings: tuple[Problem, ...] = ()
    sources: tuple[Source, ...] = ()
    templates: tuple[str, ...] = ()
    engine: str = "auto"
    expedite: bool = True

    def locate(self, path: Path) -> Position | None:
        """The place of a path of the merged spec: that of its `defaults` if it comes from there, else the nearest."""
        return locate(self.sources, path)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what the spec means: other spelling, order of devices or division into files changes nothing."""
        import hashlib
        import json

        text = json.dumps(_canonical(self.node), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def place(problem: Problem, spec: Spec) -> Problem:
    """The problem with its position, if it has none yet and its path is known."""
    if problem.position is not None or problem.path is None:
        return problem
    return replace(problem, position=spec.locate(problem.path))


class Found(NamedTuple):
    """The place that is nearest to a path; `exact` if it is the path's own, or that of its default."""

    source: Source
    place: Place
    exact: bool
    default: bool


def locate(sources: Sequence[Source], path: Path, *, key: bool = False) -> Position | None:
    """The position in the files that is nearest to a path; None only if there is no file."""
    found = find(sources, path)
    if found is None:
        return sources[0].position(1, 1) if sources else None
    return found.source.spot(found.place, key=key and found.exact)


def find(sources: Sequence[Source], path: Path) -> Found | None:
    """The place in the files that is nearest to a path."""
    best: Found | None = None
    most = -1
    for at, skipped in _candidates(path):
        for source in sources:
            where, depth = source.find(at)
            if depth and depth + skipped > most:
                most = depth + skipped
                best = Found(source, where, depth == len(at), bool(skipped))
        if most == len(path):
            break
    return best


def _candidates(path: Path) -> list[tuple[Path, int]]:
    """The path itself and, for a part of a device, its default; with how many steps less the latter has."""
    if len(path) > 2 and path[0] == "devices":
        return [(path, 0), (("defaults", *path[2:]), 1)]
    return [(path, 0)]


def _canonical(node: Node) -> object:
    return {
        "node": node.name,
        "namespaces": {name: namespace.create for name, namespace in node.namespaces.items()},
        "devices": {
            name: [device.kind, _attrs(device.attrs), [_end(end) for end in device.ends], _chains(device)]
            for name, device in node.devices.items()
        },
    }


def _chains(device: Device) -> object:
    return [
        device.attach,
        {
            hook: [chain.default, str(chain.position), [[p.name, p.template, p.params] for p in chain.programs]]
            for hook, chain in device.chains.items()
        },
    ]


def _end(end: Endpoint) -> object:
    names = [f.name for f in fields(end.routes[0])] if end.routes else []
    routes = sorted([str(getattr(route, name)) for name in names] for route in end.routes)
    return [
        end.name,
        end.namespace,
        _attrs(end.attrs),
        [a.text for a in end.addresses],
        routes,
        dict(end.sysctl),
    ]


def _attrs(attrs: Attrs) -> object:
    return {k: {"for": list(v.devices)} if isinstance(v, ComputedFor) else v for k, v in attrs.items()}
