"""A spec file in memory: reading it within bounds, and finding the place of a path in it.

The only part of `spec` that reads files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path as File

from nkform.dataclass import dataclass, field
from nkform.document import yaml_events
from nkform.document.fault import Fault, split_lines
from nkform.kernel import files
from nkform.problem import NkformError, Path, Position, Problem

MAX_BYTES = 16 * 1024 * 1024
"""Largest spec file, in bytes: fifty times a spec of a thousand devices."""

STDIN = "-"


@dataclass
class Source:
    """One file. `renamed` tells, by the path of a mapping, which of its keys were spelled with variables."""

    name: str
    text: str
    renamed: dict[Path, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def lines(self) -> list[str]:
        return split_lines(self.text)

    @cached_property
    def parsed(self) -> yaml_events.Tree:
        """The text parsed with the place of every value: a second time, when the first place is asked for."""
        return yaml_events.parse(self.text, places=True)

    @property
    def places(self) -> yaml_events.Place:
        return self.parsed.place or yaml_events.Place(1, 1, 1, 1)

    def forget(self) -> None:
        """Drop what can be had again from the text: after a good load, places are seldom asked for."""
        for name in ("lines", "parsed"):
            self.__dict__.pop(name, None)

    def position(self, line: int, column: int) -> Position:
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        return Position(self.name, line, column, text)

    def problem(self, fault: Fault) -> Problem:
        """A fault of this text as a problem with its position."""
        return Problem(fault.code, fault.message, position=self.position(fault.line, fault.column), hint=fault.hint)

    def find(self, path: Path) -> tuple[yaml_events.Place, int]:
        """The place of the longest part of a path that this file has, and how many steps of the path that is."""
        place = self.places
        for depth, step in enumerate(path):
            key = self.renamed.get(path[:depth], {}).get(step, step) if isinstance(step, str) else step
            child = place.children.get(key)
            if child is None:
                return place, depth
            place = child
        return place, len(path)

    def spot(self, place: yaml_events.Place, *, key: bool = False) -> Position:
        """The position of a value; of its key if that is asked for, or if the value is empty or has parts."""
        if key or not place.raw:
            return self.position(place.key_line, place.key_column)
        return self.position(place.line, place.column)


def read_all(named: Sequence[File]) -> tuple[list[Source], list[Problem]]:
    """Read files, and the *.yaml and *.yml of directories, sorted by name."""
    sources: list[Source] = []
    problems: list[Problem] = []
    for file in named:
        part = file
        try:
            for part in _yaml_files(file) if str(file) != STDIN and files.is_folder(file) else [file]:
                sources.append(read(part))
        except OSError as error:
            problems.append(_unreadable(part, error))
        except NkformError as error:
            problems.extend(error.problems)
    return sources, problems


def read(file: File, within: File | None = None) -> Source:
    """Read one file, which must lie in the folder `within`; `-` is the standard input. Raises NkformError, OSError."""
    if within is None and str(file) == STDIN:
        return decode("<stdin>", files.standard_input(MAX_BYTES))
    return decode(str(file), files.read(file, MAX_BYTES, within=within, pipes=within is None))


def decode(name: str, data: bytes) -> Source:
    """The bytes of a file as text. Raises NkformError if they are too many, or no text."""
    if len(data) > MAX_BYTES:
        raise NkformError(
            Problem(
                "NK0102",
                f"{name} is larger than {MAX_BYTES // 1024**2} MiB",
                position=Position(name, 1, 1),
                hint="split it into several files; they are merged",
            )
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = Source(name, data[: error.start].decode(errors="replace"))
        hint = "save the file as UTF-8"
        if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
            hint += " (this looks like UTF-16)"
        last = before.lines[-1]
        position = Position(name, len(before.lines), len(last) + 1, last + "\N{REPLACEMENT CHARACTER}")
        raise NkformError(Problem("NK0103", "this is not UTF-8 text", position=position, hint=hint)) from None
    return Source(name, text)


def _yaml_files(directory: File) -> list[File]:
    found = [f for f in files.entries(directory) if f.suffix in {".yaml", ".yml"} and not f.name.startswith(".")]
    if not found:
        raise NkformError(
            Problem(
                "NK0101",
                f"the directory {directory} has no *.yaml or *.yml files",
                hint="name the file or the directory that holds the spec",
            )
        )
    return found


def _unreadable(file: File, error: OSError) -> Problem:
    hint = ""
    if isinstance(error, FileNotFoundError):
        hint = "check the spelling; a relative path starts at the current directory"
    return Problem("NK0101", f"cannot read {file}: {error.strerror or error}", hint=hint)
