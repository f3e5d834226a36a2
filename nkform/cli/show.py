"""`nkform show`: the live state as a spec."""

from __future__ import annotations

import argparse
import json
import sys

from nkform.problem import fail


def run(options: argparse.Namespace) -> int:
    from nkform.kernel.netns import Namespaces
    from nkform.kernel.probe import require_root
    from nkform.observe.node import nodes, observe
    from nkform.observe.sysctls import with_sysctls
    from nkform.report.spec_text import as_spec, render

    require_root()
    with Namespaces() as namespaces:
        name = options.node
        if name is None:
            found = nodes(namespaces)
            if len(found) > 1:
                raise fail(
                    "NK0604",
                    f"several nodes have devices here: {', '.join(found)}",
                    hint="name one with --node",
                )
            if not found:
                raise fail(
                    "NK0605",
                    "nothing here carries a mark of nkform",
                    hint="`nkform apply SPEC` makes what a spec says",
                )
            name = found[0]
        live = with_sysctls(namespaces, observe(namespaces, name))
    sys.stdout.write(json.dumps(as_spec(live), indent=2) + "\n" if options.json else render(live))
    return 0
