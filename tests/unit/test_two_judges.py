"""Our own judge of schemas and the package jsonschema are of one mind; `nkform validate --strict` asks both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nkform.document.json_schema import compile_schema, knows
from nkform.document.second_judge import SecondJudge
from nkform.problem import NkformError
from tests.unit.commands import nkform
from tests.unit.templates import write

NUMBERS = st.sampled_from([-1, 0, 1, 2, 2.0, 2.5, True])
TEXTS = st.sampled_from(["", "a", "ab", "b\n", "aé"])
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "é"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "object", "array", "null"])


def known_schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    sizes = st.one_of(st.integers(0, 2), st.sampled_from([1.0, -1, "1", True]))
    names = st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.one_of(TYPES, st.lists(TYPES, max_size=2)),
            "enum": st.lists(VALUES, max_size=2),
            "const": VALUES,
            "properties": names,
            "additionalProperties": st.one_of(st.booleans(), inner),
            "propertyNames": inner,
            "required": st.lists(st.sampled_from(["a", "b"]), max_size=2),
            "items": st.one_of(st.booleans(), inner),
            "minimum": NUMBERS,
            "maximum": NUMBERS,
            **dict.fromkeys(
                ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), sizes
            ),
            "pattern": st.sampled_from(["^a", "b$", "", 1]),
            "if": inner,
            "then": inner,
            "description": st.sampled_from(["x", 1]),
            "not": inner,
        },
    )


SCHEMAS: st.SearchStrategy[Any] = st.recursive(st.just({}), known_schemas, max_leaves=4)


@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_what_our_own_judge_knows_it_judges_like_the_second(schema: Any, values: list[Any]) -> None:
    if not knows(schema):
        return
    jsonschema.Draft202012Validator.check_schema(schema)
    own, second = compile_schema(schema), SecondJudge(schema)
    for value in values:
        found: list[Any] = []
        own(value, None, found)
        assert second.valid(value) == (not found), value


def test_what_it_does_not_know_it_does_not_judge() -> None:
    assert knows({"type": "object", "properties": {"a": {"minimum": 1, "description": "x"}}, "required": ["a"]})
    others: list[Any] = [True, {"not": {}}, {"if": {}}, {"$ref": "#"}, {"enum": [1], "const": 1}, {"enum": [[1]]}]
    wrong = [{"minimum": "1"}, {"enum": 1}, {"type": "text"}, {"minLength": -1}, {"items": {"uniqueItems": 1}}]
    assert [schema for schema in others + wrong if knows(schema)] == []


def test_with_strict_both_judges_check_a_spec(tmp_path: Path) -> None:
    done = nkform("validate", "--strict", "examples/anywhere.yaml")
    assert (done.returncode, done.stderr) == (0, "")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\nnode: worker-1\ndevices: {lxc-web: {mtu: 67, peer: {name: eth0}}}\n")
    usual, strict = nkform("validate", wrong), nkform("validate", "--strict", wrong)
    assert "NK0204" in strict.stderr
    assert strict.stderr == usual.stderr


def test_where_there_is_no_second_judge_that_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    missing = "raise ModuleNotFoundError(\"No module named 'jsonschema'\", name='jsonschema')\n"
    (tmp_path / "jsonschema.py").write_text(missing)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    done = nkform("validate", "--strict", "examples/anywhere.yaml")
    assert "error[NK0601]: the second judge is missing: No module named 'jsonschema'" in done.stderr
    assert "install python3-jsonschema" in done.stderr
    assert nkform("validate", "examples/anywhere.yaml").returncode == 0
    manifest = "parameters: {it: {role: value, description: x, type: integer, multipleOf: 2, default: 2}}\n"
    found = nkform("templates", "--templates", write(tmp_path / "templates", manifest=manifest)).stderr
    assert "error[NK0767]" in found
    assert "install python3-jsonschema" in found


def test_where_the_judges_differ_nkform_says_that_it_is_wrong(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from nkform.spec import load, loader

    monkeypatch.setattr(loader, "checker", lambda: lambda *_: None)
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\nnode: worker-1\ndevices: {lxc-web: {colour: red, peer: {name: eth0}}}\n")
    with pytest.raises(NkformError, match="nkform's own finds nothing, and jsonschema does") as caught:
        load([wrong], twice=True)
    assert caught.value.problems[0].code == "NK0900"
    assert load([wrong]).node.name == "worker-1"
