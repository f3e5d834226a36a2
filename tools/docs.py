"""Makes what comes out of the code: the JSON Schemas, and the tables in docs/spec.md. Run by `make docs`."""

from __future__ import annotations

import runpy
from pathlib import Path

from nkform.plan.schema import text

for module in ("nkform.spec.schema", "nkform.spec.docs"):
    runpy.run_module(module, run_name="__main__")
Path(__file__).parents[1].joinpath("schemas", "plan.v1.json").write_text(text())
