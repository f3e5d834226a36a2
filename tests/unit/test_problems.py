"""Problems on a terminal and as JSON."""

from __future__ import annotations

import json

from nkform.problem import Position, Problem
from nkform.report.problems import as_dicts, harmless, render


def at(text: str, column: int) -> str:
    return render([Problem("NK0201", "wrong", position=Position("a.yaml", 7, column, text))])


def test_the_caret_points_at_the_place() -> None:
    problem = Problem("NK0201", "no such key", position=Position("a.yaml", 12, 3, "  mtuu: 1"), hint="mtu?\nor mac?")
    assert render([problem]) == (
        "error[NK0201]: no such key\n"
        "  --> a.yaml:12:3\n"
        "     |\n"
        "  12 |   mtuu: 1\n"
        "     |   ^\n"
        "  hint: mtu?\n"
        "        or mac?"
    )


def test_a_problem_may_have_no_place() -> None:
    problems = [Problem("NK0601", "no"), Problem("NK0416", "left", severity="warning", hint="x")]
    assert render(problems) == "error[NK0601]: no\n\nwarning[NK0416]: left\n  hint: x"


def test_an_empty_line_is_not_shown() -> None:
    assert at("", 1) == "error[NK0201]: wrong\n  --> a.yaml:7:1"


def test_nothing_reaches_the_terminal_that_it_might_obey() -> None:
    evil = "\x1b[2J\x07\u202e\x9b\r"
    problem = Problem("NK0201", evil, position=Position(evil, 1, 2, evil), hint=evil)
    assert all(char.isprintable() or char == "\n" for char in render([problem]))
    assert harmless("a\x1b\u202e\U000e0001") == "a\\x1b\\u202e\\U000e0001"


def test_the_caret_keeps_its_place_behind_what_is_shown_otherwise() -> None:
    for before, width in (("\t\t", 2), ("\x1b", 4), ("漢字", 4), ("e\u0301", 1), ("a" * 30, 30)):
        *_, line, caret = at(before + "X: 1", len(before) + 1).split("\n")
        assert caret.index("^") - caret.index("|") - 2 == width
        if before.isascii() or width == len(before):
            assert line[caret.index("^")] == "X"


def test_a_long_line_is_cut_around_the_caret() -> None:
    text = "a" * 5000 + "X" + "b" * 5000
    *_, line, caret = at(text, 5001).split("\n")
    assert len(line) < 120
    assert line[caret.index("^")] == "X"
    assert line.startswith("  7 | …")
    assert line.endswith("…")


def test_colour_is_only_where_it_is_wanted() -> None:
    problem = Problem("NK0201", "wrong")
    assert "\x1b" not in render([problem], colour=False)
    assert render([problem], colour=True).startswith("\x1b[31merror[NK0201]\x1b[0m: wrong")


def test_as_data() -> None:
    problems = [
        Problem("NK0201", "m", path=("devices", "a", 0), position=Position("f", 1, 2, "t"), hint="h"),
        Problem("NK0601", "n", severity="warning"),
    ]
    assert json.loads(json.dumps(as_dicts(problems))) == [
        {"severity": "error", "code": "NK0201", "message": "m", "path": ["devices", "a", 0], "file": "f", "line": 1,
         "column": 2, "hint": "h"},
        {"severity": "warning", "code": "NK0601", "message": "n", "path": None, "file": None, "line": None,
         "column": None, "hint": None},
    ]  # fmt: skip
