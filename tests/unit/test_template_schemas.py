"""Given a manifest whose parameters use all of JSON Schema, a spec is judged by it, and no schema takes for ever."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_specifications import REGISTRY

from nkform.bpf import catalogue, judge
from nkform.bpf.judge import FORMATS
from nkform.cli.main import main
from nkform.data import data_path
from nkform.dataclass import replace
from nkform.document.second_judge import KEYWORDS, SecondJudge, lost_references
from nkform.problem import NkformError, Problem
from tests.unit.commands import nkform
from tests.unit.templates import write

INTEGER = {"role": "value", "description": "A number.", "type": "integer"}
PORTS = {"role": "value", "description": "Ports.", "type": "array", "items": {"type": "integer", "maximum": 65535}}
WORD = {"role": "structure", "description": "A word.", "type": "string", "format": "identifier"}
ADDRESSES = {
    "role": "value", "description": "Some.", "type": "array", "items": {"type": "string", "format": "address"},
}  # fmt: skip


def manifest(**parameters: dict[str, Any]) -> str:
    lines = ["parameters:\n"]  # each keyword has a line of its own, with its value as JSON, which is read quickly
    for name, raw in parameters.items():
        lines += [f"  {name}:\n", *(f"    {keyword}: {json.dumps(part)}\n" for keyword, part in raw.items())]
    return "".join(lines)


def spec(base: Path, **params: object) -> Path:
    """A spec with one program of the template `mine`, which is in `templates` beside it."""
    chain = [{"use": "one", "params": params}]
    text = {
        "version": 1, "node": "worker-1", "templates": ["templates"],
        "programs": {"one": {"template": "mine"}},
        "devices": {"lxc-web": {"peer": {"name": "eth0"}, "programs": {"peer": chain}}},
    }  # fmt: skip
    file = base / "spec.yaml"
    file.write_text(yaml.safe_dump(text, sort_keys=False))
    return file


def faults(base: Path, schema: dict[str, Any]) -> tuple[Problem, ...]:
    with pytest.raises(NkformError) as caught:
        catalogue([write(base, manifest=manifest(it=schema))])
    return caught.value.problems


RULES: list[tuple[dict[str, Any], object, object, str]] = [
    (INTEGER | {"oneOf": [{"multipleOf": 3}, {"multipleOf": 5}]}, 9, 7, "fit exactly one of the 2 schemas of `oneOf`"),
    (INTEGER | {"oneOf": [{"multipleOf": 3}, {"multipleOf": 5}]}, 5, 15, "it fits several of them"),
    (INTEGER | {"anyOf": [{"maximum": 3}, {"minimum": 9}]}, 9, 7, "it must be at most 3, not 7; or it must be at leas"),
    (INTEGER | {"enum": [1, 2, 4]}, 4, 3, "must be 1, 2 or 4, not 3"),
    (INTEGER | {"const": 4}, 4, 3, "must be 4, not 3"),
    (INTEGER | {"exclusiveMaximum": 4}, 3, 4, "must be less than 4, not 4"),
    (INTEGER | {"exclusiveMinimum": 4}, 5, 4, "must be more than 4, not 4"),
    (INTEGER | {"not": {"multipleOf": 2}}, 3, 4, "must not be 4"),
    (INTEGER | {"if": {"minimum": 10}, "then": {"multipleOf": 10}}, 30, 15, "must be a multiple of 10, not 15"),
    (INTEGER | {"if": {"minimum": 10}, "then": {}, "else": {"maximum": 5}}, 11, 7, "must be at most 5, not 7"),
    (INTEGER | {"$defs": {"even": {"multipleOf": 2}}, "allOf": [{"$ref": "#/$defs/even"}]}, 4, 3, "multiple of 2"),
    (PORTS | {"uniqueItems": True}, [1, 2], [1, 2, 1], "has an item twice: 1"),
    (PORTS | {"contains": {"const": 53}}, [1, 53], [1], "must have at least 1 of the items"),
    (PORTS | {"contains": {"const": 53}, "maxContains": 1}, [53], [53, 53], "at least 1 and at most 1"),
    (PORTS | {"prefixItems": [{"const": 53}]}, [53, 1], [1, 53], "must be 53, not 1"),
    (PORTS | {"prefixItems": [{}], "unevaluatedItems": False, "items": {"type": "integer"}}, [1], None, ""),
    (PORTS | {"items": {"type": "integer", "not": {"const": 22}}}, [21], [22], "an item of `it` must not be 22"),
    (WORD | {"pattern": "^nk_"}, "nk_a", "a", 'must match the pattern ^nk_, which the text "a" does not'),
    (WORD | {"minLength": 2, "maxLength": 3}, "ab", "a", "must have between 2 and 3 characters, not 1"),
    (WORD | {"patternProperties": {"^x": False}, "propertyNames": {"maxLength": 1}}, "name", None, ""),
    (ADDRESSES | {"items": {"type": "string", "format": "address", "anyOf": [{"format": "ipv4"}, {"const": "::1"}]}},
     ["10.0.0.1", "::1"], ["10.0.0.1", "::2"], "must be of the format ipv4"),
    (ADDRESSES | {"items": {"type": "string", "format": "address", "not": {"format": "ipv6"}}},
     ["10.0.0.1"], ["::2"], "must not be the text"),
]  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What `nkform validate` says of a spec that breaks all RULES; one that obeys them is valid."""
    base = tmp_path_factory.mktemp("rules")
    write(base / "templates", manifest=manifest(**{f"p{n}": rule[0] for n, rule in enumerate(RULES)}))
    good = nkform("validate", spec(base, **{f"p{n}": rule[1] for n, rule in enumerate(RULES)}))
    assert (good.returncode, good.stderr) == (0, "")
    bad = nkform("validate", spec(base, **{f"p{n}": rule[2] if rule[3] else rule[1] for n, rule in enumerate(RULES)}))
    assert bad.returncode == 1
    return bad.stderr


@pytest.mark.parametrize("number", range(len(RULES)))
def test_a_parameter_obeys_all_of_its_schema(told: str, number: int) -> None:
    said = RULES[number][3]
    about = [part for part in told.split("\n\n") if f"`p{number}`" in part]
    assert all(part.startswith("error[NK0712]: ") and "spec.yaml:" in part and "^" in part for part in about)
    assert bool(about) == bool(said)
    assert said in "".join(about).replace(f"`p{number}`", "`it`")


def test_the_item_that_is_wrong_is_pointed_at(tmp_path: Path) -> None:
    write(tmp_path / "templates", manifest=manifest(it=PORTS | {"contains": {"const": 1}, "items": {
        "type": "integer", "multipleOf": 2,
    }}))  # fmt: skip
    file = spec(tmp_path, it=[2, 7])
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if text.strip() == "- 7")
    said = nkform("validate", file).stderr
    assert f"spec.yaml:{line}:" in said
    assert "an item of `it` must be a multiple of 2, not 7" in said
    assert "`it` must have at least 1 of the items" in said


def test_programs_with_the_same_parameters_are_all_told(tmp_path: Path) -> None:
    write(tmp_path / "templates", manifest=manifest(it=INTEGER | {"multipleOf": 2}))
    file = spec(tmp_path, it=1)
    text = yaml.safe_load(file.read_text())
    text["devices"]["lxc-db"] = {"peer": {"name": "eth1"}, "programs": text["devices"]["lxc-web"]["programs"]}
    file.write_text(yaml.safe_dump(text))
    assert nkform("validate", file).stderr.count("error[NK0712]") in {1, 2}
    text["devices"]["lxc-db"]["programs"] = {"peer": [{"use": "one", "params": {"it": 3}}]}
    file.write_text(yaml.safe_dump(text))
    assert nkform("validate", file).stderr.count("error[NK0712]") == 2


FAULTY: list[tuple[dict[str, Any], tuple[object, ...], str]] = [
    (INTEGER | {"oneOf": {"minimum": 1}}, ("oneOf",), "must be a list"),
    (INTEGER | {"not": {"minimum": "x"}}, ("minimum",), "must be a number"),
    (INTEGER | {"anyOf": []}, ("anyOf",), "at least 1"),
    (INTEGER | {"not": {"minumum": 3}}, ("minumum",), "JSON Schema has no keyword `minumum`"),
    (WORD | {"pattern": "("}, ("pattern",), "is no pattern"),
    (WORD | {"patternProperties": {"[": {}}}, ("[",), "is no pattern"),
    (INTEGER | {"$ref": "#/$defs/absent"}, ("$ref",), "leads to nothing in this schema"),
    (INTEGER | {"$ref": "#"}, ("$ref",), "refers to itself without end"),
    (INTEGER | {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "not": {"$ref": "#/$defs/a"}},
     ("$ref",), "refers to itself without end"),
    (INTEGER | {"$schema": "http://json-schema.org/draft-07/schema#"}, ("$schema",), "must be https://json-schema.or"),
    (INTEGER | {"not": {"$id": "urn:x"}}, ("$id",), "for a whole schema"),
    (ADDRESSES | {"contains": {"format": "hostname"}}, ("format",), "which is no format of a parameter"),
    (INTEGER | {"multipleOf": 0}, ("multipleOf",), "more than 0"),
    (INTEGER | {"multipleOf": 2, "default": 3}, ("default",), "the default of `it` must be a multiple of 2, not 3"),
    (PORTS | {"uniqueItems": True, "default": [1, 1]}, ("default",), "the default of `it` has an item twice"),
    (WORD | {"enum": ["a", 1]}, ("enum",), "its words are not"),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "where", "said"), FAULTY, ids=[str(n) for n in range(len(FAULTY))])
def test_a_schema_that_is_none_is_an_error_of_the_manifest(
    tmp_path: Path, schema: dict[str, Any], where: tuple[str, ...], said: str
) -> None:
    found = faults(tmp_path, schema)
    assert len(found) == 1 or "$defs" in schema
    assert said in found[0].message
    position = found[0].position
    assert position is not None
    assert position.file == str(tmp_path / "mine" / "manifest.yaml")
    assert where[-1] in "\n".join(Path(position.file).read_text().splitlines()[position.line - 2 : position.line])


def test_the_manual_of_a_template_has_the_rules(tmp_path: Path) -> None:
    write(tmp_path, manifest=manifest(it=INTEGER | {"multipleOf": 2}, other=INTEGER))
    done = nkform("templates", "mine", "--templates", tmp_path)
    assert done.stdout.count("rules:") == 1
    assert 'rules: {"type": "integer", "multipleOf": 2}' in done.stdout


def test_a_mistyped_keyword_of_a_parameter_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    (problem,) = faults(tmp_path, INTEGER | {"multipelOf": 2})
    assert (problem.code, problem.hint) == ("NK0201", "did you mean `multipleOf`?")


@pytest.fixture
def listening() -> Iterator[tuple[str, list[object]]]:
    """A server that somebody could ask, and those who did."""
    asked: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            try:
                while True:
                    asked.append(server.accept()[1])
            except OSError:
                pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/schema.json", asked
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef"])
@pytest.mark.parametrize("base", [{}, {"$id": "http://127.0.0.1/"}, {"$id": "file:///"}])
def test_nothing_is_fetched(
    tmp_path: Path, listening: tuple[str, list[object]], keyword: str, base: dict[str, str]
) -> None:
    url, asked = listening
    file = tmp_path / "schema.json"
    file.write_text("{}")
    for place in (url, f"file://{file}", str(file), "schema.json"):
        found = faults(tmp_path / str(len(place)), INTEGER | base | {"not": {keyword: place}})
        assert "leads out of this schema" in found[0].message
        with pytest.raises(lost_references()):
            SecondJudge({**base, keyword: place}).valid(1)
    assert asked == []


DOUBLING = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)} | {"d40": {}}
HOSTILE: dict[str, tuple[dict[str, Any], object]] = {
    "pattern that is known": (WORD | {"pattern": "^(a+)+$"}, "a" * 31 + "_"),
    "pattern that is not": (WORD | {"not": {"pattern": "^((a|a)+)+$"}}, "a" * 31 + "_"),
    "pattern in the default": (WORD | {"pattern": "^(a+)+$", "default": "a" * 31 + "_"}, "a"),
    "references that double": (INTEGER | {"$defs": DOUBLING, "$ref": "#/$defs/d0"}, 1),
    "circle for lists alone": (
        PORTS | {"$defs": {"a": {"if": {"type": "array"}, "then": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}, [1],
    ),
    "large enum of lists": (INTEGER | {"enum": [[n] for n in range(20_000)]}, 1),
    "large enum": (INTEGER | {"enum": list(range(2, 200_000))}, 1),
    "counts without end": (WORD | {"pattern": "(((a{1,999}){1,999}){1,999}){1,999}$"}, "b"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_ends_in_an_error_in_time(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(judge, "LIMITS", replace(judge.LIMITS, cpu=1))
    schema, value = HOSTILE[name]
    write(tmp_path / "templates", manifest=manifest(it=schema))
    begun = time.monotonic()
    assert main(["validate", str(spec(tmp_path, it=value))]) == 1
    assert time.monotonic() - begun < 60
    said = capsys.readouterr().err
    assert "error[NK" in said
    assert "Traceback" not in said
    assert "internal" not in said
    assert len(said) < 20_000


@pytest.mark.parametrize(("depth", "code"), [(50, 0), (80, 1)])
def test_a_schema_that_nests_deep_is_judged_or_refused(tmp_path: Path, depth: int, code: int) -> None:
    nested: Any = {"minimum": 1}
    for _ in range(depth):
        nested = {"not": nested}
    write(tmp_path / "templates", manifest=manifest(it=INTEGER | {"allOf": [nested]}))
    done = nkform("validate", spec(tmp_path, it=1))
    assert (done.returncode, "NK0108" in done.stderr) == (code, bool(code))


def test_a_pattern_that_takes_for_ever_ends_a_command_in_time(tmp_path: Path) -> None:
    write(tmp_path / "templates", manifest=manifest(it=WORD | {"pattern": "^(a+)+$"}))
    done = nkform("validate", spec(tmp_path, it="a" * 31 + "_"))
    assert done.returncode == 1
    assert "error[NK0767]: the schemas of the parameters of mine are no use: to judge by them " in done.stderr
    assert "took more than 5 s" in done.stderr or "did not end within 20 s" in done.stderr


def test_the_second_judge_has_the_keywords_of_the_draft_and_the_manifest_those_of_both() -> None:
    draft: set[str] = set()
    for name in ("applicator", "content", "core", "format-annotation", "meta-data", "unevaluated", "validation"):
        url = f"https://json-schema.org/draft/2020-12/meta/{name}"
        draft |= REGISTRY.contents(url)["properties"].keys()
    assert set(KEYWORDS) == draft - {"$vocabulary"}
    definitions = json.loads(data_path("schemas/template.v1.json").read_text())["$defs"]
    parameter = definitions["parameter"]["properties"]
    assert set(parameter) == {*KEYWORDS, "role", "map"}
    assert set(parameter["items"]["properties"]) == set(KEYWORDS)
    assert tuple(sorted(definitions["format"]["enum"])) == tuple(sorted(FORMATS))
