"""What a compiler or the verifier says → problems with the template's line. Reads no files.

A line is shown only of what went into the program, as it was then: `#line` can name any file of the machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from nkform.bpf.render import Rendered
from nkform.bpf.texts import library, library_texts
from nkform.problem import NkformError, Position, Problem

MAX_ERRORS = 5
"""Errors of a compiler that are shown; the rest is in the log."""

MAIN_FILES = frozenset({"program.c", "/virtual/main.c"})
"""What the rendered C is called to clang, and to bcc."""

BCC_FILE = "main.c"
"""What bcc calls it to the verifier, after it has added lines of its own: there a line is known by its text only."""

_DIAGNOSTIC = r"^(?P<file>[^\s:][^:]*):(?P<line>\d+):(?P<column>\d+): (?:fatal )?error: (?P<text>.*)$"
_BARE = r"^(?:.*: )?(?:fatal )?error: (?P<text>.*)$"
_SOURCE = r"^; (?P<text>.*?)(?: @ (?P<file>[^ :]+):(?P<line>\d+))?$"
"""Compiled by `re` when they are first used, which is when something is wrong."""


class ProgramError(NkformError):
    """A program that cannot be compiled or loaded. `log` is all that the compiler or the verifier said."""

    def __init__(self, log: str, *problems: Problem) -> None:
        super().__init__(*problems)
        self.log = log


def compiler_error(rendered: Rendered, output: str) -> ProgramError:
    """The error that a compiler's output stands for."""
    problems = []
    for line in output.splitlines():
        if found := re.match(_DIAGNOSTIC, line):
            position = _position(rendered, found["file"], int(found["line"]), int(found["column"]))
            problems.append(_compile_problem(rendered, found["text"], position))
    if not problems:
        texts = [found["text"] for line in output.splitlines() if (found := re.match(_BARE, line))]
        said = texts[0] if texts else next(iter(output.strip().splitlines()), "the compiler does not say why")
        problems = [_compile_problem(rendered, said, Position(str(rendered.template.path), 1, 1))]
    return ProgramError(output, *problems[:MAX_ERRORS])


def verifier_error(rendered: Rendered, log: str, last_line: str) -> ProgramError:
    """The error that the verifier's log stands for."""
    lines = log.strip().splitlines()
    position = _verified_place(rendered, lines) or Position(str(rendered.template.path), 1, 1)
    rest = len(lines) - 1
    hint = f"the verifier's log has {rest} more lines" if rest > 0 else ""
    message = f"the kernel refuses the program {rendered.template.name}: {last_line}"
    return ProgramError(log, Problem("NK0740", message, position=position, hint=hint))


def template_line(rendered: Rendered, line: int) -> tuple[str, int] | None:
    """The file and line of the template that a line of the rendered C comes from."""
    return rendered.places[line - 1] if 0 < line <= len(rendered.places) else None


def _compile_problem(rendered: Rendered, text: str, position: Position) -> Problem:
    message = f"the template {rendered.template.name} does not compile: {text}"
    return Problem("NK0731", message, position=position)


def _position(rendered: Rendered, file: str, line: int, column: int) -> Position:
    from nkform.bpf.overlay import real_place

    start = Position(str(rendered.template.path), 1, 1)
    if Path(file).name not in MAIN_FILES and file not in MAIN_FILES:
        return real_place(rendered, file, line, column) or start
    place = template_line(rendered, line)
    if place is None:
        return start
    text, made = _text(rendered, *place), rendered.source.split("\n")[line - 1]
    return Position(*place, column if text == made else 1, text)


def _text(rendered: Rendered, file: str, line: int) -> str:
    """A line of a text that the program was rendered from."""
    folders = {str(rendered.template.folder): rendered.template.texts, str(library()): library_texts()}
    text = folders.get(str(Path(file).parent), {}).get(Path(file).name, "")
    lines = text.split("\n")
    return lines[line - 1] if 0 < line <= len(lines) else ""


def _verified_place(rendered: Rendered, log: list[str]) -> Position | None:
    """The last line of the source that the log names and that is the template's; old kernels name no numbers."""
    source = rendered.source.split("\n")
    for text, file, number in _named_sources(log):
        name = Path(file).name
        if number and name != BCC_FILE:
            candidates = [number] if name in MAIN_FILES else []
        else:
            candidates = [place for place, line in enumerate(source, 1) if line.strip() == text]
        for candidate in candidates:
            if place := template_line(rendered, candidate):
                return Position(*place, 1, _text(rendered, *place))
    return None


def _named_sources(log: list[str]) -> Iterator[tuple[str, str, int]]:
    for line in reversed(log):
        if found := re.match(_SOURCE, line.strip()):
            yield found["text"].strip(), found["file"] or "", int(found["line"] or 0)
