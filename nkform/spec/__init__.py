"""The spec: YAML files to the desired node, with the place of everything in them.

    files ─source─▶ text ─yaml_events─▶ data ─variables─▶ data ─json_schema─▶ checked ─merge─▶ one ─decode─▶ Node

The steps that any YAML document takes are in nkform/document/.

What is wrong is collected on the way and raised at once. Importing this costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from nkform.spec.loaded import Spec, place

__all__ = ["Spec", "load", "loads", "place"]

_NONE: Mapping[str, str] = MappingProxyType({})


def load(
    files: Sequence[str | Path],
    *,
    variables: Mapping[str, str] = _NONE,
    var_files: Sequence[str | Path] = (),
    twice: bool = False,
) -> Spec:
    """Load a spec from files, from the *.yaml and *.yml of directories, and from the standard input (`-`).

    `variables` are texts as given on the command line, read like plain YAML scalars. `twice`: a second judge of the
    schema, the package `jsonschema`, has to be of the same mind, which takes much longer. Raises NkformError with all
    problems, each with its position.
    """
    from nkform.spec.loader import load_files

    return load_files([Path(f) for f in files], variables, [Path(f) for f in var_files], twice=twice)


def loads(text: str, file: str = "<string>", *, variables: Mapping[str, str] = _NONE) -> Spec:
    """Load a spec from a text. Raises NkformError like `load`."""
    from nkform.document.source import Source
    from nkform.spec.loader import load_sources

    return load_sources([Source(file, text)], variables)
