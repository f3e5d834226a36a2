"""Makes what comes out of the code: the JSON Schema of the spec, and the tables in docs/spec.md. Run by `make docs`."""

from __future__ import annotations

import runpy

for module in ("nkform.spec.schema", "nkform.spec.docs"):
    runpy.run_module(module, run_name="__main__")
