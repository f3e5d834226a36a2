"""`nkform show`: the live state as a spec."""

from __future__ import annotations

import argparse
import json
import sys

from nkform.cli.common import only_node, warn, warn_interrupted


def run(options: argparse.Namespace) -> int:
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.probe import require_root
    from nkform.observe import explanations
    from nkform.observe.node import observe
    from nkform.observe.sysctls import with_sysctls
    from nkform.report.spec_text import as_spec, render, unexplained

    require_root()
    with Namespaces() as namespaces:
        name = only_node(namespaces, options.node)
        live = with_sysctls(namespaces, observe(namespaces, name))
    warn_interrupted(name, options)
    known = explanations.read(name)
    told = {digest: (each.template, each.params, "" if each.builtin else each.folder) for digest, each in known.items()}
    warn(unexplained(live, told), options)
    spec = as_spec(live, told)
    sys.stdout.write(json.dumps(spec, indent=2) + "\n" if options.json else render(spec))
    return 0
