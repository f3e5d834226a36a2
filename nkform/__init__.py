"""nkform: declarative provisioning of netkit and veth pairs and their BPF program chains.

The Python API is `Session` and what goes with it (docs/api.md). Each name is imported when it is used.
"""

from __future__ import annotations

__version__ = "0.1.0"

__all__ = [
    "Applied",
    "Listener",
    "NkformError",
    "PlanOptions",
    "Planned",
    "Problem",
    "Session",
    "Spec",
    "__version__",
    "load",
    "loads",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from nkform.problem import NkformError, Problem
    from nkform.session.listener import Listener
    from nkform.session.prepared import PlanOptions
    from nkform.session.running import Applied
    from nkform.session.session import Planned, Session
    from nkform.spec import Spec, load, loads

_MODULES = {
    "Applied": "nkform.session.running",
    "Listener": "nkform.session.listener",
    "NkformError": "nkform.problem",
    "PlanOptions": "nkform.session.prepared",
    "Planned": "nkform.session.session",
    "Problem": "nkform.problem",
    "Session": "nkform.session.session",
    "Spec": "nkform.spec",
    "load": "nkform.spec",
    "loads": "nkform.spec",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
