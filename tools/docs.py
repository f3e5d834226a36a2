"""Makes what comes out of the code, for `make docs`: the JSON Schemas, and the tables in spec.md and templates.md."""

from __future__ import annotations

import runpy
from pathlib import Path

from nkform.plan.schema import text

for module in ("nkform.spec.schema", "nkform.spec.docs", "nkform.bpf.docs"):
    runpy.run_module(module, run_name="__main__")
Path(__file__).parents[1].joinpath("schemas", "plan.v1.json").write_text(text())
