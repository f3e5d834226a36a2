"""The schema file: up to date, described, and judged alike by our validator and by jsonschema."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nkform.attributes import ATTRIBUTES
from nkform.data import data_path
from nkform.document.json_schema import compile_schema
from nkform.kinds import KINDS
from nkform.spec.schema import FILE, strict, text

SCHEMA = json.loads(data_path(FILE).read_bytes())
STRICT = strict(SCHEMA)
CHECK = compile_schema(STRICT)
REFEREE = jsonschema.Draft202012Validator(STRICT)

SINGLE = {kind.said for kind in KINDS.values() if not kind.has_peer}
GOOD = SCHEMA["examples"][0]


def valid(data: object) -> bool:
    found: list[Any] = []
    CHECK(data, None, found)
    return not found


def subschemas(schema: object) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from subschemas(part)


def test_the_file_is_up_to_date() -> None:
    assert data_path(FILE).read_text(encoding="utf-8") == text(), "run: python -m nkform.spec.schema"


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator.check_schema(STRICT)


def test_every_property_is_described_and_has_an_example() -> None:
    for schema in subschemas(SCHEMA):
        for name, part in schema.get("properties", {}).items():
            if isinstance(part, dict) and schema.get("title") not in SINGLE and "const" not in part:
                target = SCHEMA["$defs"][part["$ref"].removeprefix("#/$defs/")] if "$ref" in part else part
                assert target.get("description") or target.get("title"), name
                assert target.get("examples") or name == "sysctl" or target.get("title"), name


def test_every_attribute_is_in_it() -> None:
    device, peer = SCHEMA["$defs"]["device"]["properties"], SCHEMA["$defs"]["peer"]["properties"]
    for row in ATTRIBUTES:
        assert row.name in device
        assert (row.name in peer) == (row.place == "end")


def test_references_stand_alone() -> None:
    for schema in subschemas(SCHEMA):
        assert "$ref" not in schema or len(schema) == 1


def test_the_examples_are_valid() -> None:
    referee = jsonschema.Draft202012Validator(SCHEMA)
    for schema in subschemas(SCHEMA):
        for example in schema.get("examples", ()):
            inner = {**{k: v for k, v in schema.items() if k != "examples"}, "$defs": SCHEMA["$defs"]}
            jsonschema.Draft202012Validator(inner).validate(example)
    assert referee.is_valid({"defaults": {"mtu": "${mtu}", "addresses": "${list}"}})
    assert not REFEREE.is_valid({"defaults": {"mtu": "${mtu}"}})


def test_an_unknown_keyword_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match="uniqueItems"):
        compile_schema({"type": "array", "uniqueItems": True})


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 1.0, 1.5, 67, 68, 65535, 65536, 524281, 2**32,
        "", "a", "a/b", "l2", "L2", "external", "auto", "veth", "dummy", "default", "none", "02:00:00:00:00:01",
        "10.0.0.1/32", "x" * 16, "${a}", "web\n", [], {},
        ["wg0"], {"for": ["a"]}, {"for": []}, {"for": [], "x": 1}, {"pid": 1},
        {"pid": 0}, {"path": "/"}, {"pid": 1, "path": "/"}, [{"to": "default"}], [{"via": "x"}], {"ipv4": {"a": 1}},
        {"ipv4": {"A": 1}}, {"create": True}, {"name": "eth0"},
    ]
)  # fmt: skip
KEYS = st.sampled_from(
    sorted(
        {name for schema in subschemas(SCHEMA) for name in schema.get("properties", {})} | {"x", "lxc-db", "1a", "a b"}
    )
)


def places(data: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    for key, part in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield from places(part, (*path, key))


@st.composite
def nearly_good(draw: st.DrawFn) -> object:
    """A good spec, changed at a few places."""
    data: Any = copy.deepcopy(GOOD)
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(list(places(data))))
        value = copy.deepcopy(draw(VALUES))
        if not path:
            continue
        parent = data
        for step in path[:-1]:
            parent = parent[step]
        if isinstance(parent, dict) and draw(st.booleans()):
            parent[draw(KEYS)] = value
        else:
            parent[path[-1]] = value
    return data


@given(nearly_good())
@settings(max_examples=1500)
def test_both_validators_judge_alike(data: object) -> None:
    assert valid(data) == REFEREE.is_valid(data)


def test_the_manual_names_what_the_schema_allows() -> None:
    manual = (data_path(FILE).parent.parent / "docs" / "spec.md").read_text(encoding="utf-8")
    for name in SCHEMA["$defs"]["device"]["properties"] | SCHEMA["$defs"]["route"]["properties"]:
        assert f"| `{name}` |" in manual, name
    for block in re.findall(r"```yaml\n(.*?)```", manual, re.DOTALL):
        yaml.safe_load(block)
