"""Where the files stand that come with nkform but are no Python: schemas, program templates.

In a wheel they lie in the package, under `_data/`; in a checkout at its top level.
"""

from __future__ import annotations

from pathlib import Path

from nkform.kernel import files

MAX_BYTES = 1 << 24
"""Far more than any of them has."""

_PACKAGE = Path(__file__).parent


def data_path(name: str) -> Path:
    """The path of a data file, such as `schemas/spec.v1.json`; FileNotFoundError if the installation lacks it."""
    for base in (_PACKAGE / "_data", _PACKAGE.parent):
        path = base / name
        if files.is_there(path):
            return path
    raise FileNotFoundError(f"nkform's data file {name} is missing: the installation is incomplete")


def data_text(name: str) -> str:
    """What a data file says. Raises OSError."""
    return files.read(data_path(name), MAX_BYTES).decode()
