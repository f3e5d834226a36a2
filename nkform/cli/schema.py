"""`nkform schema`: the JSON Schema of the spec, for editors and other tools."""

from __future__ import annotations

import argparse
import sys


def run(_: argparse.Namespace) -> int:
    from nkform.data import data_path

    sys.stdout.write(data_path("schemas/spec.v1.json").read_text(encoding="utf-8"))
    return 0
