"""`nkform validate`: the spec alone, no kernel."""

from __future__ import annotations

import argparse
import json

from nkform.cli.common import programs_of, read_spec
from nkform.listing import counted


def run(options: argparse.Namespace) -> int:
    spec = read_spec(options)
    with programs_of(spec, options):
        pass
    devices, namespaces = len(spec.node.devices), len(spec.node.namespaces)
    if options.json:
        print(json.dumps({"valid": True, "node": spec.node.name, "devices": devices, "namespaces": namespaces}))
    else:
        counts = f"{counted(devices, 'device')}, {counted(namespaces, 'namespace')}"
        print(f"The spec of {spec.node.name} is valid: {counts}.")
    return 0
