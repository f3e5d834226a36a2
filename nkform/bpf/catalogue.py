"""All templates: those that come with nkform, and those in folders of the user's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from nkform.bpf.judge import Judge
from nkform.bpf.template import MANIFEST, Template, read
from nkform.bpf.texts import BUILT_IN, LIBRARY
from nkform.data import data_path
from nkform.document.scalars import quoted
from nkform.kernel import files
from nkform.model import Explanation
from nkform.nearest import nearest
from nkform.problem import NkformError, Problem

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")


def catalogue(folders: Sequence[Path] = (), judge: Judge | None = None) -> Mapping[str, Template]:
    """Templates by name. Raises NkformError with everything that is wrong with any of them."""
    if judge is None:
        with Judge() as own:
            return catalogue(folders, own)
    found: dict[str, Template] = {}
    problems: list[Problem] = []
    for base, builtin in ((data_path(BUILT_IN), True), *((folder, False) for folder in folders)):
        try:
            parts = [folder for folder in files.entries(base) if _is_template(folder)]
        except OSError as error:
            problems.append(Problem("NK0701", f"cannot read the folder of templates {base}: {error.strerror}"))
            continue
        except ValueError as error:  # a NUL, say
            problems.append(Problem("NK0701", f"no folder of templates has the name {str(base)!r}: {error}"))
            continue
        for folder in parts:
            if fault := _name_fault(folder, found):
                problems.append(fault)
                continue
            try:
                found[folder.name] = read(folder, builtin=builtin, judge=judge)
            except NkformError as error:
                problems.extend(error.problems)
    if problems:
        raise NkformError(*problems)
    return found


def kept(explanation: Explanation) -> Template:
    """The template that programs were made of, as it is now; others beside it are not looked at. Raises NkformError."""
    builtin = explanation.builtin
    folder = data_path(BUILT_IN) / explanation.template if builtin else Path(explanation.folder)
    return read(folder, builtin=builtin)


def unknown(name: str, templates: Mapping[str, Template]) -> Problem:
    """The problem of a template that does not exist."""
    near = nearest(name, templates)
    hint = f"did you mean {near}?" if near else "known here: " + ", ".join(sorted(templates))
    return Problem("NK0704", f"there is no template {quoted(name)}", hint=hint)


def _is_template(folder: Path) -> bool:
    """Whether a folder has a manifest, or what stands in a manifest's place."""
    if folder.name == LIBRARY or folder.name.startswith("."):
        return False
    return files.is_there(folder / MANIFEST)


def _name_fault(folder: Path, found: Mapping[str, Template]) -> Problem | None:
    name = folder.name
    if not _NAME.fullmatch(name):
        return Problem(
            "NK0703",
            f"{folder}: {name[:60]!r} cannot be the name of a template",
            hint="a small letter and up to 30 small letters, digits and _",
        )
    if name in found:
        other = "comes with nkform" if found[name].builtin else f"is in {found[name].folder.parent}"
        return Problem("NK0703", f"{folder}: a template {name} {other} already", hint="give this one another name")
    return None
