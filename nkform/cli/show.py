"""`nkform show`: the live state as a spec."""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from nkform.cli.common import observe_meant, warn, warn_interrupted
from nkform.dataclass import replace
from nkform.model import Attached, Contents, Explanation, Node
from nkform.observe.explanations import Known


def run(options: argparse.Namespace) -> int:
    from nkform.bpf.engines import AUTO, resolve
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.probe import require_root
    from nkform.observe import explanations
    from nkform.report.spec_text import as_spec, several, unexplained, unwritable
    from nkform.report.spec_text import engines as engines_of
    from nkform.report.spec_yaml import render

    require_root()
    with Namespaces() as namespaces:
        live = observe_meant(namespaces, options.node, all_sysctls=True)
    name = live.name
    warn_interrupted(name, options)
    known = explanations.Known(explanations.read(name))
    live = _with_contents(live, known)
    engines = engines_of(live, known.of)
    warn([*unexplained(live, known.of), *several(engines), *unwritable(live)], options)
    shown = engines[0] if engines and (len(engines) > 1 or engines[0] != resolve(AUTO)) else ""
    spec = as_spec(live, known.of, shown)
    sys.stdout.write(json.dumps(spec, indent=2) + "\n" if options.json else render(spec))
    return 0


def _with_contents(live: Node, known: Known) -> Node:
    """The node with what those maps of its programs hold now that a spec fills."""
    from nkform.observe.contents import filled_hook

    maps = _FilledMaps()
    devices = {}
    for name, device in live.devices.items():
        hooks = {}
        for key, hook in device.hooks.items():
            hooks[key] = filled_hook(hook, partial(_of, maps, known, name, key))
        devices[name] = replace(device, hooks=hooks)
    return live.with_devices(devices)


def _of(maps: _FilledMaps, known: Known, device: str, hook: str, entry: Attached) -> Contents:
    return maps.of(known.of(device, hook, entry))


class _FilledMaps:
    """The maps that a spec fills, of templates, each of which is read once."""

    def __init__(self) -> None:
        self._by_template: dict[tuple[str, str], Contents] = {}

    def of(self, explanation: Explanation | None) -> Contents:
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
