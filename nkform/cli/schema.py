"""`nkform schema`: the JSON Schemas of the spec and of plans, for editors and other tools."""

from __future__ import annotations

import argparse
import sys


def run(options: argparse.Namespace) -> int:
    from nkform.data import data_path

    sys.stdout.write(data_path(f"schemas/{options.of}.v1.json").read_text(encoding="utf-8"))
    return 0
