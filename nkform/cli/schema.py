"""`nkform schema`: the JSON Schemas of the spec and of plans, for editors and other tools."""

from __future__ import annotations

import argparse
import sys


def run(options: argparse.Namespace) -> int:
    from nkform.data import data_text

    sys.stdout.write(data_text(f"schemas/{options.of}.v1.json"))
    return 0
