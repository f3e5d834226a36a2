"""The texts that programs are made of: all of a template's folder and of the library that may enter one, read at once.

What is rendered and what is compiled is made of these texts in memory and of nothing else, so that all of it is in the
digest, and nothing that changes on disk after a plan was made is in a program. Reads files; executes nothing of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from nkform.data import data_path
from nkform.kernel import files
from nkform.problem import NkformError, Position, Problem

BUILT_IN = "bpf_templates"
LIBRARY = "lib"

MAX_BYTES = 1 << 20
"""Largest program text and largest header, in bytes."""

MAX_FILES = 128
"""Headers and included templates of one folder. Each is a file descriptor while a program is compiled."""

_TEXT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*\.(h|j2)")
_CONTROLS = frozenset(map(chr, range(32))) - {"\t", "\n"}


def library() -> Path:
    """The folder of what templates share: headers, and those that stand in for the kernel's with bcc."""
    return data_path(BUILT_IN) / LIBRARY


@cache
def library_texts() -> Mapping[str, str]:
    """All texts of the library by their path within it. Raises NkformError, OSError."""
    base = library()
    found = [path for path in files.entries_below(base) if _TEXT.fullmatch(path.name)]
    return {str(path.relative_to(base)): read_text(path, base) for path in found}


def folder_texts(folder: Path) -> Mapping[str, str]:
    """The headers and Jinja texts of a template by name, the program's own among them.

    Files of other names are none of its texts: nothing can include them. Raises NkformError, OSError.
    """
    names = list(_names(folder))
    if len(names) > MAX_FILES:
        raise NkformError(Problem("NK0701", f"{folder} has more than {MAX_FILES} headers and templates"))
    return {name: read_text(folder / name, folder) for name in names}


def _names(folder: Path) -> Iterator[str]:
    yield from (path.name for path in files.entries(folder) if _TEXT.fullmatch(path.name))


def read_text(path: Path, within: Path) -> str:
    """A text of a folder; links that lead out of it are refused. Raises NkformError, OSError."""
    data = files.read(path, MAX_BYTES, within=within)
    if len(data) > MAX_BYTES:
        raise NkformError(Problem("NK0701", f"{path} is larger than {MAX_BYTES >> 20} MiB"))
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise NkformError(Problem("NK0701", f"{path} is not UTF-8 text")) from None
    text = text.replace("\r\n", "\n")
    if _CONTROLS.intersection(text):
        bad = next(c for c in text if c in _CONTROLS)
        line = text[: text.index(bad)].count("\n") + 1
        position = Position(str(path), line, 1)
        raise NkformError(Problem("NK0701", f"the character U+{ord(bad):04X} is not allowed here", position=position))
    return text
