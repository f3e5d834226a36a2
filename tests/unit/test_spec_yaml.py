"""YAML within bounds: what is read, what is refused, and that both parsers of PyYAML end in the same."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nkform.document import yaml_events as tree
from nkform.document.scalars import resolve
from nkform.document.source import MAX_BYTES, decode
from nkform.problem import NkformError
from nkform.spec import loads

Parser = Callable[[str], tree.Tree]


@pytest.fixture(params=["libyaml", "pure Python"])
def parse(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Parser:
    if request.param == "pure Python":
        monkeypatch.delattr(yaml, "CSafeLoader")
    return tree.parse


def codes(parsed: tree.Tree) -> list[str]:
    return [fault.code for fault in parsed.faults]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1500", 1500), ("-1", -1), ("+5", 5), ("0", 0), ("0x1F", 31), ("1.5", 1.5), ("1500.0", 1500), ("1e3", 1000),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None),
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("True", "True"), ("NULL", "NULL"),
        ("0777", "0777"), ("0o17", "0o17"), ("12:30", "12:30"), ("1_000", "1_000"), ("2026-01-01", "2026-01-01"),
        (".inf", ".inf"), (".nan", ".nan"), ("1e999", "1e999"), ("9" * 50, "9" * 50), ("0x", "0x"), ("-", "-"),
        ("02:00:00:00:00:01", "02:00:00:00:00:01"), ("10.0.0.1", "10.0.0.1"), ("=", "="), ("<<", "<<"),
    ],
)  # fmt: skip
def test_a_plain_scalar_means_what_it_says(text: str, value: object) -> None:
    resolved = resolve(text)
    assert (resolved, type(resolved)) == (value, type(value))


def test_anchors_aliases_and_merges(parse: Parser) -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {y: 4, <<: [{z: 5, x: 6}, *a]}\nd: *a\ne: {'<<': 7}"
    parsed = parse(text)
    assert parsed.faults == []
    assert parsed.data == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"y": 4, "z": 5, "x": 6},
        "d": {"x": 1, "y": 2},
        "e": {"<<": 7},
    }


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a: 1\na: 2", "NK0105"),
        ("{a: 1, b: {c: 1, 'c': 2}}", "NK0105"),
        ("{<<: {}, <<: {}}", "NK0105"),
        ("1: a", "NK0106"),
        ("? [a]\n: b", "NK0106"),
        ("{{a: b}: c}", "NK0106"),
        ("? \n: a", "NK0106"),
        ("a: !!python/object/apply:os.system [ls]", "NK0107"),
        ("a: !!str 1", "NK0107"),
        ("a: ! b", "NK0107"),
        ("[" * 65 + "]" * 65, "NK0108"),
        (f"a: &a {'[' * 40}{']' * 40}\nb: {'[' * 24}*a{']' * 24}", "NK0108"),
        (f"a: &a {'{a: ' * 40}{'}' * 40}\nb: &b [[*a], {'[' * 20}*a{']' * 20}]\nc: [*b, {{<<: *a}}, [[*b]]]", "NK0108"),
        ("a: *b", "NK0110"),
        ("a: &a [*a]", "NK0110"),
        ("&a {b: &c {d: *a}}", "NK0110"),
        ("a: 1\n---\nb: 2", "NK0111"),
        ("a: {<<: 1}", "NK0113"),
        ("a: [", "NK0104"),
        ("a: b: c", "NK0104"),
        ("\ta: b", "NK0104"),
        ("a: 'b", "NK0104"),
        ("@a", "NK0104"),
        ("%YAML 9.9\n", "NK0104"),
        ('a: "\\q"', "NK0104"),
        ("a: \x07", "NK0103"),
        ("a: \ufffe", "NK0103"),
    ],
)
def test_what_is_refused(parse: Parser, text: str, code: str) -> None:
    found = codes(parse(text))
    assert found[0] == code, found
    assert codes(tree.parse(text, places=True))[0] == code


def test_several_faults_are_told_at_once(parse: Parser) -> None:
    assert codes(parse("a: 1\na: 2\n3: x\nb: !!str y\nc: *d\n")) == ["NK0105", "NK0106", "NK0107", "NK0110"]


def test_aliases_cannot_explode(parse: Parser) -> None:
    lines = ["l0: &l0 [" + ", ".join("x" * 10) + "]"]
    lines += [f"l{i}: &l{i} [" + ", ".join([f"*l{i - 1}"] * 10) + "]" for i in range(1, 30)]
    start = time.monotonic()
    assert codes(parse("\n".join(lines))) == ["NK0109"]
    assert time.monotonic() - start < 5


def test_merges_cannot_explode() -> None:
    lines = ["m0: &m0 {" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}"]
    lines += [f"m{i}: {{<<: *m0}}" for i in range(1, 1000)]
    assert codes(tree.parse("\n".join(lines))) == ["NK0109"]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: "])
def test_deep_nesting_ends_soon(opening: str) -> None:
    start = time.monotonic()
    assert codes(tree.parse(opening * 100_000))[-1] in {"NK0108", "NK0104"}
    assert time.monotonic() - start < 5


def test_a_file_has_a_size() -> None:
    with pytest.raises(NkformError) as caught:
        decode("x", b"#" * (MAX_BYTES + 1))
    assert [problem.code for problem in caught.value.problems] == ["NK0102"]


@pytest.mark.parametrize("data", [b"\xff\xfea\x00", b"a: \xff", b"\xc0\x80"])
def test_only_utf8_is_text(data: bytes) -> None:
    with pytest.raises(NkformError) as caught:
        decode("x", data)
    assert [problem.code for problem in caught.value.problems] == ["NK0103"]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert decode("x", b"\xef\xbb\xbfa: 1").text == "a: 1"


def test_json_is_read_whatever_characters_are_in_it(parse: Parser) -> None:
    data = {"\U0001f600": "\U0010ffff \U00010000 \\ud83d ${x}", "plain": r"\ud83d"}
    for ascii_only in (True, False):
        assert parse(json.dumps(data, ensure_ascii=ascii_only)).data == data


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n...\n"])
def test_an_empty_file_lacks_everything(text: str) -> None:
    with pytest.raises(NkformError) as caught:
        loads(text)
    assert [problem.code for problem in caught.value.problems] == ["NK0202", "NK0202"]


SCALARS = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(st.characters(codec="utf-8"), max_size=20)
TREES = st.recursive(
    SCALARS,
    lambda part: st.lists(part, max_size=4) | st.dictionaries(st.text("abc<:- #0", max_size=5), part, max_size=4),
    max_leaves=20,
)


@given(TREES)
def test_what_is_dumped_is_read_back(data: object) -> None:
    """As JSON, which YAML includes; what PyYAML dumps means the same to us where YAML 1.1 and 1.2 agree."""
    text = json.dumps(data, ensure_ascii=True).replace("\\u007f", "?")
    if '"<<"' in text:
        return
    assert tree.parse(text).data == json.loads(text)


@given(TREES)
def test_the_place_of_everything_is_known(data: object) -> None:
    text = yaml.safe_dump(data, allow_unicode=True)
    parsed, placed = tree.parse(text), tree.parse(text, places=True)
    assert parsed.data == placed.data
    assert parsed.faults == placed.faults or [f.code for f in parsed.faults] == [f.code for f in placed.faults]
    if placed.place and not placed.faults:
        check_places(placed.data, placed.place)


def check_places(data: object, place: tree.Place) -> None:
    assert place.line >= 1
    assert place.column >= 1
    parts = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, part in parts:
        check_places(part, place.children[key])


PIECES = st.sampled_from(
    [
        "a", "b", "c", ": ", ":\n  ", ":\n", "\n", "\n  ", "\n    ", "- ", "\n- ", "\n  - ", ", ", "[", "]", "{", "}",
        "&x ", "*x", "<<: ", "'<<': ", "!!str ", "!t ", "'q'", '"\\u00e9"', "'", '"', "1", "1.0", "~", "true", "? ",
        "|\n  text\n", "# word\n", "\n---\n", "\n...\n", "\t", "{a: 1, a: 2}", "<<: *x\n", "<<: [*x, {b: 1}]\n",
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=24).map("".join))
@settings(max_examples=1500)
def test_both_ways_of_reading_find_the_same(text: str) -> None:
    """With places every event is dealt with by itself, without them most are dealt with on the way."""
    parsed, placed = tree.parse(text), tree.parse(text, places=True)
    assert repr(parsed.data) == repr(placed.data)
    assert [(f.code, f.line, f.column) for f in parsed.faults] == [(f.code, f.line, f.column) for f in placed.faults]


@pytest.mark.parametrize("places", [False, True])
def test_the_number_of_values_is_bounded_exactly(monkeypatch: pytest.MonkeyPatch, places: bool) -> None:
    monkeypatch.setattr(tree, "MAX_NODES", 10)
    assert not tree.parse("a: [1, 2, 3]\nb: {c: x}", places=places).faults
    assert [f.code for f in tree.parse("a: [1, 2, 3]\nb: {c: [x]}", places=places).faults] == ["NK0109"]
