"""Given a template or a compiler that takes too much, when it is used, then it ends soon, with an error."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from nkform.bpf import Renderer, render
from nkform.bpf.engine_clang import LIMITS, ClangEngine
from nkform.bpf.store import Store
from nkform.dataclass import replace
from nkform.problem import NkformError
from tests.unit.templates import FACTS, body, rendered, template

LESS = replace(render.LIMITS, cpu=1, seconds=10)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "cache") as store:
        yield store


BOMBS = [
    "{% set r = range(1000) %}{% for a in r %}{% for b in r %}{% for c in r %}{% endfor %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x='a') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    '{{ ("%2000000000d" % 1)|identifier }}',
    '{{ "{:>2000000000}".format(1)|identifier }}',
    '{{ "x".ljust(2000000000)|identifier }}',
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[[1]]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|sum(start=[]) %}{% endfor %}",
]


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_template_that_takes_too_much_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bomb: str) -> None:
    monkeypatch.setattr(render, "LIMITS", LESS)
    wanted = template(tmp_path, program=body(bomb))
    renderer = Renderer()
    with pytest.raises(NkformError) as caught:
        renderer.render(wanted, {}, FACTS, "clang")
    (problem,) = caught.value.problems
    assert problem.code in {"NK0761", "NK0720"}
    assert problem.position is not None
    assert problem.position.file == str(wanted.path)
    assert rendered(template(tmp_path / "sound"), {}).source


def test_after_one_that_takes_too_much_others_are_rendered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "LIMITS", LESS)
    renderer = Renderer()
    evil, sound = template(tmp_path / "evil", program=body(BOMBS[0])), template(tmp_path / "sound")
    for _ in range(2):
        with pytest.raises(NkformError, match="too long"):
            renderer.render(evil, {}, FACTS, "clang")
        assert "NK_NEXT" in renderer.render(sound, {}, FACTS, "clang").source
        renderer = Renderer([evil, sound])


@pytest.mark.parametrize(
    "mistake",
    [
        "{% macro f(a, a) %}{% endmacro %}",
        "{{ program(a=1, a=1) }}",
        '{{ map("aa", "array", "int", "int", 1e400) }}',
        '{{ "\\ud800"|enumeration("\\ud800") }}',
        '{{ "x"|enumeration(1, []) }}',
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    ],
)
def test_a_mistake_that_python_complains_of_is_an_error_of_the_template(tmp_path: Path, mistake: str) -> None:
    wanted = template(tmp_path, program=body(mistake))
    with pytest.raises(NkformError) as caught:
        rendered(wanted)
    (problem,) = caught.value.problems
    assert problem.code == "NK0720"
    assert problem.position is not None
    assert problem.position.file == str(wanted.path)


def fake(folder: Path, script: str) -> str:
    path = folder / "clang"
    path.write_text(f"#!/bin/sh\ncase $1 in --version) echo fake; exit;; esac\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exec yes", "NK0762"),
        ("exec yes >&2", "NK0762"),
        ("kill -SEGV $$", "NK0762"),
        ("while :; do :; done", "NK0732"),
        ("sleep 60 & exit", "NK0732"),
        ("exec dd if=/dev/zero of=/dev/null bs=3G count=1", "NK0731"),
    ],
)
def test_a_compiler_that_takes_too_much_ends(cache: Store, tmp_path: Path, script: str, code: str) -> None:
    few = replace(LIMITS, seconds=3, cpu=1)
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache, compiler=fake(tmp_path, script), limits=few).build(rendered(template(tmp_path / "t")))
    assert caught.value.problems[0].code == code
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20, "in KiB"


C_BOMB = "#define X0 1\n" + "".join(f"#define X{n} X{n - 1} + X{n - 1} + X{n - 1} + X{n - 1}\n" for n in range(1, 30))


def test_macros_that_multiply_end(cache: Store, tmp_path: Path) -> None:
    few = replace(LIMITS, seconds=20, cpu=2, memory=1 << 30)
    wanted = template(tmp_path / "t", program=body("\tint x = X29;", C_BOMB))
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache, limits=few).build(rendered(wanted))
    assert caught.value.problems[0].code in {"NK0732", "NK0762"}


def test_a_compiler_that_crashes_is_an_error_of_the_template(cache: Store, tmp_path: Path) -> None:
    wanted = template(tmp_path / "t", program=body("", "#pragma clang __debug crash"))
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache).build(rendered(wanted))
    (problem,) = caught.value.problems
    assert problem.code == "NK0762"
    assert problem.position is not None
    assert problem.position.file == str(wanted.path)
