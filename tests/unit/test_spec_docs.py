"""The manual's table, the schemas and the list of error codes keep up with the code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from nkform.bpf import docs as template_docs
from nkform.cli import arguments
from nkform.plan import schema as plan_schema
from nkform.spec import docs, loads
from nkform.spec import schema as spec_schema

TOP = Path(__file__).parents[2]
DOCUMENTS = sorted(file for file in (*TOP.glob("*.md"), *TOP.glob("docs/*.md")) if file.name != "CHANGELOG.md")


class Made(Protocol):
    """A module that makes a table of a document."""

    FILE: str

    @staticmethod
    def filled(text: str) -> str: ...


@pytest.mark.parametrize("made", [docs, template_docs], ids=["attributes", "templates"])
def test_a_table_is_up_to_date(made: Made) -> None:
    text = (TOP / made.FILE).read_text(encoding="utf-8")
    assert text == made.filled(text), "run: make docs"


@pytest.mark.parametrize(("file", "text"), [("spec.v1.json", spec_schema.text), ("plan.v1.json", plan_schema.text)])
def test_a_schema_is_up_to_date(file: str, text: Callable[[], str]) -> None:
    assert (TOP / "schemas" / file).read_text(encoding="utf-8") == text(), "run: make docs"


def test_the_manual_begins_with_a_spec_that_works() -> None:
    text = (TOP / docs.FILE).read_text(encoding="utf-8")
    example = text.split("```yaml\n", 1)[1].split("```", 1)[0]
    spec = loads(example)
    assert list(spec.node.devices) == ["lxc-web", "eth0"]
    assert spec.warnings == ()


def test_every_code_is_explained() -> None:
    used = {code for file in (TOP / "nkform").rglob("*.py") for code in re.findall(r"NK\d{4}", file.read_text())}
    explained = set(
        re.findall(r"^\| (NK\d{4}) \|", (TOP / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert used - explained == set(), "explain them in docs/errors.md"
    assert explained - used == set(), "no longer used: take them out of docs/errors.md"


@pytest.mark.parametrize("name", ["docs/architecture.md", "CONTRIBUTING.md", "README.md"])
def test_what_a_document_names_is_there(name: str) -> None:
    """Modules with the functions in brackets behind them, folders, and other documents."""
    text = (TOP / name).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:nkform|tests|tools|bpf_templates)/[\w./]*)`(?: \(((?:`[\w.]+`(?:, )?)+)[\),])?", text)
    assert len(paths) > 2
    for path, functions in paths:
        assert (TOP / path).exists(), path
        for function in re.findall(r"`([\w.]+)`", functions):
            last = function.rpartition(".")[2]
            assert re.search(rf"\b(def|class) {last}\b", (TOP / path).read_text(encoding="utf-8")), (path, function)
    for link in re.findall(r"\]\(([\w./]+)\)", text):
        assert (TOP / name).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda file: str(file.relative_to(TOP)))
def test_each_command_that_a_document_names_exists_and_has_these_options(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = document.read_text(encoding="utf-8")
    for name, rest in re.findall(r"(?:`|^ *\$ )nkform ([a-z]+)([^`\n]*)", text, re.MULTILINE):
        with pytest.raises(SystemExit):
            arguments.parse([name, "--help"])
        known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", capsys.readouterr().out))
        assert set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", rest)) <= known, f"nkform {name}{rest}"
