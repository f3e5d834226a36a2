"""`nkform show`: the live state as a spec."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from nkform.cli.common import observe_meant, warn, warn_interrupted
from nkform.dataclass import replace
from nkform.model import Contents, Node
from nkform.observe.explanations import Explanations


def run(options: argparse.Namespace) -> int:
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.probe import require_root
    from nkform.observe import explanations
    from nkform.observe.sysctls import with_sysctls
    from nkform.report.spec_text import as_spec, render, unexplained, unwritable

    require_root()
    with Namespaces() as namespaces:
        live = with_sysctls(namespaces, observe_meant(namespaces, options.node))
    name = live.name
    warn_interrupted(name, options)
    known = explanations.read(name)
    live = _with_contents(live, _filled_maps(known))
    told = {digest: (each.template, each.params, "" if each.builtin else each.folder) for digest, each in known.items()}
    warn([*unexplained(live, told), *unwritable(live)], options)
    spec = as_spec(live, told)
    sys.stdout.write(json.dumps(spec, indent=2) + "\n" if options.json else render(spec))
    return 0


def _filled_maps(known: Explanations) -> dict[str, Contents]:
    """By digest, the maps that a spec fills, of programs that have some."""
    from nkform.bpf import contents
    from nkform.bpf.catalogue import catalogue
    from nkform.problem import NkformError

    found: dict[str, Contents] = {}
    for folder in {"" if each.builtin else str(Path(each.folder).parent) for each in known.values()}:
        try:
            templates = catalogue([Path(folder)] if folder else [])
        except NkformError:  # not there any more, or not as it was
            continue
        for digest, each in known.items():
            if folder == ("" if each.builtin else str(Path(each.folder).parent)) and each.template in templates:
                found[digest] = contents.of_all(templates[each.template].parameters, {})
    return {digest: maps for digest, maps in found.items() if maps}


def _with_contents(live: Node, maps: Mapping[str, Contents]) -> Node:
    """The node with what is in those maps now."""
    from nkform.observe.contents import filled_hook

    if not maps:
        return live
    devices = {}
    for name, device in live.devices.items():
        hooks = {
            key: filled_hook(hook, lambda entry: maps.get(entry.identity, {})) for key, hook in device.hooks.items()
        }
        devices[name] = replace(device, hooks=hooks)
    return live.with_devices(devices)
