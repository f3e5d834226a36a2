"""Loads all code that going back may need, while it is there: the change that goes back may be what cut it off (an
environment on NFS), or somebody installs another version meanwhile.

Only what is loaded when it is first needed has to be named here. `tests/unit/test_preload.py` holds the list to what
the way back imports.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

MODULES = (
    "nkform.apply.chains",
    "nkform.bpf.again",
    "nkform.bpf.assembly",
    "nkform.bpf.diagnose",
    "nkform.bpf.engine_bcc",
    "nkform.bpf.engine_clang",
    "nkform.bpf.outcome",
    "nkform.bpf.sandbox",
    "nkform.document.explain",
    "nkform.document.json_schema",
    "nkform.document.second_judge",
    "nkform.document.source",
    "nkform.document.yaml_syntax",
    "nkform.kernel.ahead",
    "nkform.kernel.clsact",
    "nkform.kernel.libbpf",
    "nkform.kernel.netconf",
    "nkform.observe.contents",
    "nkform.observe.other_nodes",
    "nkform.session.recovery",
    "difflib",
    "encodings.ascii",
    "jsonschema",
    "pyroute2",
    "pyroute2.netlink.rtnl.tcmsg",
    "referencing.exceptions",
    "resource",
    "subprocess",
    "traceback",
    "yaml",
)
"""bcc is not among them: it loads a compiler of 100 MB, and like clang it has to be there for what is compiled anew."""


def load() -> None:
    """Loads it all. What cannot be loaded now is left for when it is needed."""
    for name in MODULES:
        with suppress(ImportError):
            import_module(name)
