"""A node as it is, with all that a spec says of such a node: for `show`, and for whoever reads a node."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from nkform.dataclass import dataclass, replace
from nkform.model import Attached, Explanation, MapsByParam, Node
from nkform.observe.explanations import Known

if TYPE_CHECKING:
    from nkform.kernel.netns import Namespaces


@dataclass(frozen=True, slots=True)
class Observed:
    """A node as it is: sysctls and the contents of filled maps with it, and what is known of its programs."""

    node: Node
    known: Known


def observed(namespaces: Namespaces, live: Node) -> Observed:
    """A live node (session/node.py, `observed`) with all that a spec says of such a node. Raises KernelError."""
    from nkform.observe import explanations
    from nkform.observe.nameless import by_processes

    live = by_processes(namespaces, live)
    known = explanations.Known(explanations.read(live.name))
    return Observed(_with_contents(live, known), known)


def _with_contents(live: Node, known: Known) -> Node:
    """The node with what those maps of its programs hold now that a spec fills."""
    from nkform.observe.contents import filled_hook

    maps = _MapReader()
    devices = {}
    for name, device in live.devices.items():
        hooks = {}
        for key, hook in device.hooks.items():
            hooks[key] = filled_hook(hook, partial(_of, maps, known, name, key))
        devices[name] = replace(device, hooks=hooks)
    return live.with_devices(devices)


def _of(maps: _MapReader, known: Known, device: str, hook: str, entry: Attached) -> MapsByParam:
    return maps.of(known.of(device, hook, entry))


class _MapReader:
    """The maps that a spec fills, of templates, each of which is read once."""

    def __init__(self) -> None:
        self._by_template: dict[tuple[str, str], MapsByParam] = {}

    def of(self, explanation: Explanation | None) -> MapsByParam:
        """Those of a program that was made so; none where its template is not there any more, or not as it was."""
        from nkform.bpf import contents
        from nkform.bpf.catalogue import kept
        from nkform.problem import NkformError

        if explanation is None:
            return {}
        key = (explanation.template, explanation.folder)
        if key not in self._by_template:
            try:
                self._by_template[key] = contents.of_all(kept(explanation).parameters, {})
            except NkformError:
                self._by_template[key] = {}
        return self._by_template[key]
