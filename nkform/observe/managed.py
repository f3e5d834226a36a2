"""A checksum of what the spec that was applied last managed (plan/let_go.py), which each plan looks at.

The record of the last apply (record.py) takes longer to load.
"""

from __future__ import annotations

from nkform.kernel import rundir

FILE = "managed"


def read(node: str) -> str | None:
    """Raises KernelError."""
    return rundir.read(node, FILE)


def note(node: str, checksum: str) -> None:
    """Raises KernelError."""
    if read(node) != checksum:
        rundir.write(node, FILE, checksum)
