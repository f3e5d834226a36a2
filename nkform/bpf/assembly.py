"""Inline assembly: what of it a program may hold. Pure.

The assembler of clang reads files by itself (`.incbin`, `.include`), past all that the preprocessor was given to see.
All that can make it do so is a directive, and a directive begins with a dot, which no instruction of BPF needs. So
inline assembly must not hold one. That is looked for in what the preprocessor makes, where nothing hides it any more:
a template's own text tells little, since a macro can put the word together, or make another thing of assembly that
stands in a header of nkform's.
"""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
      (?P<pragma>^[ \t]*\#.*)
    | (?P<raw>(?:u8|[uUL])?R")
    | (?P<string>(?:u8|[uUL])?"(?:[^"\\\n]|\\.)*")
    | (?P<char>[uUL]?'(?:[^'\\\n]|\\.)*')
    | (?P<broken>["'].*)
    | (?P<word>[A-Za-z_$][A-Za-z0-9_$]*)
    | (?P<open>\()
    | (?P<close>\))
    """,
    re.VERBOSE | re.MULTILINE,
)
"""What else a line holds whose literal has no end is no part of the program, and it is no program that compiles. A
pragma can stand between any two tokens, and its brackets and quotes are its own."""

_WORD = "asm"
"""A part of each keyword."""

_KEYWORDS = frozenset({"asm", "__asm", "__asm__"})
_QUALIFIERS = frozenset({"volatile", "__volatile", "__volatile__", "goto", "inline", "__inline", "__inline__", "const"})
_ESCAPES = re.compile(r"\\[^nt\"]")


def reads_files(preprocessed: str) -> bool:
    """Whether inline assembly in a preprocessed text holds, or may hold, a directive."""
    if _WORD not in preprocessed:
        return False
    inside = -1
    """How many brackets are open since the keyword; -1: there was none."""
    for token in _TOKEN.finditer(preprocessed):
        kind, text = token.lastgroup, token.group()
        if kind == "raw":
            return True  # where it ends, not every compiler says alike
        if inside < 0:
            inside = 0 if text in _KEYWORDS else -1
            continue
        if kind == "string":
            if "." in text or _ESCAPES.search(text):
                return True
        elif kind == "open":
            inside += 1
        elif kind == "close":
            inside -= 1
        elif kind == "word" and inside == 0 and text not in _QUALIFIERS:
            return True  # no way to write it that we know
        if inside == 0 and kind == "close":
            inside = -1
    return inside >= 0
