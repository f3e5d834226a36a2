"""`nkform show`: the live state as a spec."""

from __future__ import annotations

import argparse
import json
import sys

from nkform.cli.common import session


def run(options: argparse.Namespace) -> int:
    from nkform.bpf.engines import AUTO, resolve
    from nkform.report.spec_text import as_data, escaped, left_out, out_of_reach, several, unexplained, unwritable
    from nkform.report.spec_text import engines as engines_of
    from nkform.report.spec_yaml import render
    from nkform.spec.valid_part import valid_part

    with session(options) as nkform:
        observed = nkform.observe(options.node)
        live, known = observed.node, observed.known
        engines = engines_of(live, known.of)
        shown = engines[0] if engines and (len(engines) > 1 or engines[0] != resolve(AUTO)) else ""
        data, unsayable = valid_part(as_data(live, known.of, shown))
        problems = [*unexplained(live, known.of), *several(engines), *unwritable(live), *out_of_reach(live)]
        nkform.listener.warn([*problems, *left_out(live), *unsayable])
    spec = escaped(data)
    sys.stdout.write(json.dumps(spec, indent=2) + "\n" if options.json else render(spec))
    return 0
