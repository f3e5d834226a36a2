"""Given rendered programs, when clang builds them, then each structure once; and errors speak of the template."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from nkform.bpf import Renderer, catalogue, check, engines
from nkform.bpf.diagnose import ProgramError, verifier_error
from nkform.bpf.engine_clang import LIMITS, ClangEngine
from nkform.bpf.store import Store
from nkform.dataclass import replace
from nkform.problem import NkformError
from tests.unit.templates import FACTS, body, rendered, template

TEMPLATES = catalogue()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "cache") as store:
        yield store


def guards(count: int) -> list[dict[str, object]]:
    return [{"prefixes": [f"10.{n >> 8}.{n & 255}.2/32", f"fd00::{n:x}/128"]} for n in range(count)]


def test_a_thousand_guards_and_counters_cost_two_runs_of_clang(cache: Store) -> None:
    engine, renderer = ClangEngine(cache), Renderer()
    for params in guards(1000):
        for name, given in (("source_guard", params), ("counters", {})):
            checked = check(TEMPLATES[name], given)
            engine.build(renderer.render(TEMPLATES[name], checked.params, FACTS, "clang"))
    assert engine.runs == 2


def test_a_second_process_takes_the_object_from_the_cache(cache: Store, tmp_path: Path) -> None:
    wanted = rendered(TEMPLATES["verdict"])
    first = ClangEngine(cache).build(wanted)
    with Store(tmp_path / "cache") as other:
        second = ClangEngine(other)
        assert second.build(wanted).data == first.data
        assert (first.origin, second.build(wanted).origin, second.runs) == ("compiled", "cache", 0)


def test_a_damaged_object_is_built_anew(cache: Store, tmp_path: Path) -> None:
    wanted = rendered(TEMPLATES["verdict"])
    ClangEngine(cache).build(wanted)
    (file,) = (tmp_path / "cache").glob("*.o")
    file.write_bytes(b"\x7fELF evil")
    again = ClangEngine(cache)
    assert again.build(wanted).data != b"\x7fELF evil"
    assert again.runs == 1


def test_compiling_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    wanted = rendered(TEMPLATES["source_guard"], guards(1)[0])
    with Store(tmp_path / "a") as one, Store(tmp_path / "b") as two:
        assert ClangEngine(one).build(wanted).data == ClangEngine(two).build(wanted).data


def test_objects_that_were_built_elsewhere_need_no_compiler(cache: Store, tmp_path: Path) -> None:
    wanted = rendered(TEMPLATES["source_guard"], guards(1)[0])
    with Store(tmp_path / "objects") as given:
        ClangEngine(cache).export(wanted, given)
        with Store(tmp_path / "empty") as empty:
            engine = ClangEngine(empty, objects=given, compiler="no-such-clang")
            assert engine.build(wanted).origin == "objects"
            other = rendered(TEMPLATES["counters"])
            with pytest.raises(NkformError, match=r"no-such-clang\) is not installed.*has no object") as caught:
                engine.build(other)
    assert caught.value.problems[0].code == "NK0730"
    assert "apt-get install clang" in caught.value.problems[0].hint


def test_a_missing_clang_is_told_with_what_to_do(cache: Store) -> None:
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache, compiler="no-such-clang").build(rendered(TEMPLATES["verdict"]))
    assert "engine: bcc" in caught.value.problems[0].hint


def test_auto_is_clang_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert engines.resolve("auto") == "clang"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert engines.resolve("auto", objects=True) == "clang"
    assert engines.resolve("bcc") == "bcc"


def compile_error(cache: Store, folder: Path, program: str, **more: str) -> ProgramError:
    with pytest.raises(ProgramError) as caught:
        ClangEngine(cache).build(rendered(template(folder, program=program, **more)))
    return caught.value


def test_a_template_that_does_not_compile_is_told_with_its_line(cache: Store, tmp_path: Path) -> None:
    error = compile_error(cache, tmp_path / "t", body("{# a comment #}\n\tint x = 1\n"))
    (problem,) = error.problems
    assert problem.code == "NK0731"
    assert "expected ';'" in problem.message
    assert problem.position is not None
    assert (problem.position.line, problem.position.text) == (6, "\tint x = 1")
    assert problem.position.column == 11
    assert "program.c" in error.log


def test_an_undeclared_function_does_not_compile(cache: Store, tmp_path: Path) -> None:
    error = compile_error(cache, tmp_path / "t", body("\tbpf_no_such_helper(skb);"))
    assert "bpf_no_such_helper" in error.problems[0].message
    assert error.problems[0].position is not None
    assert error.problems[0].position.line == 5


def test_an_error_within_a_loop_over_values_is_told_with_the_line_of_its_text(cache: Store, tmp_path: Path) -> None:
    manifest = (
        "parameters:\n  ports: {role: value, description: x, type: array, items: {type: integer, maximum: 65535},"
        " default: [1, 2]}\n"
    )
    loop = '{% call(port) each("ports") %}\n\tif (skb->nonsense == {{ port }})\n\t\treturn NK_DROP;\n{% endcall %}'
    error = compile_error(cache, tmp_path / "t", body(loop), manifest=manifest)
    assert error.problems[0].position is not None
    assert error.problems[0].position.line == 6


def test_an_error_in_a_header_is_told_with_the_header(cache: Store, tmp_path: Path) -> None:
    error = compile_error(cache, tmp_path / "t", '#include "mine.h"\n' + body(""), header="\nint broken = ;\n")
    position = error.problems[0].position
    assert position is not None
    assert (Path(position.file).name, position.line, position.text) == ("mine.h", 2, "int broken = ;")


def test_a_header_of_the_system_is_not_found(cache: Store, tmp_path: Path) -> None:
    error = compile_error(cache, tmp_path / "t", "#include <stdio.h>\n" + body(""))
    assert "stdio.h" in error.problems[0].message


def test_a_compiler_that_hangs_is_ended(cache: Store, tmp_path: Path) -> None:
    slow = tmp_path / "clang"
    slow.write_text("#!/bin/sh\ncase $1 in --version) echo slow;; *) exec sleep 60;; esac\n")
    slow.chmod(slow.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache, compiler=str(slow), limits=replace(LIMITS, seconds=0.5)).build(
            rendered(TEMPLATES["verdict"])
        )
    assert caught.value.problems[0].code == "NK0732"


def test_clang_sees_nothing_of_the_environment(cache: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "told"
    spy = tmp_path / "clang"
    spy.write_text(f"#!/bin/sh\nenv > {told}\necho version\nexit 1\n")
    spy.chmod(0o755)
    monkeypatch.setenv("C_INCLUDE_PATH", "/tmp/evil")
    monkeypatch.setenv("CCC_OVERRIDE_OPTIONS", "+evil")
    with pytest.raises(ProgramError):
        ClangEngine(cache, compiler=str(spy)).build(rendered(TEMPLATES["verdict"]))
    names = {line.partition("=")[0] for line in told.read_text().splitlines()}
    assert names <= {"PATH", "LC_ALL", "CLANG_NO_DEFAULT_CONFIG", "PWD", "SHLVL", "_", "OLDPWD"}


# What verifiers say: of Linux 6.18, which names lines, and of 6.1, which does not.
NEW_LOG = """\
0: R1=ctx() R10=fp0
; int x = *(int *)(long)skb->data; @ program.c:10
0: (61) r1 = *(u32 *)(r1 +76)         ; R1=pkt(r=0)
; return NK_NEXT; @ nkform.h:3
1: (61) r1 = *(u32 *)(r1 +0)
invalid access to packet, off=0 size=4, R1(id=0,off=0,r=0)
R1 offset is outside of the packet
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
OLD_LOG = NEW_LOG.replace(" @ program.c:10", "").replace("; return NK_NEXT; @ nkform.h:3\n", "")


@pytest.mark.parametrize("log", [NEW_LOG, OLD_LOG])
def test_what_the_verifier_says_is_told_with_the_line_of_the_template(tmp_path: Path, log: str) -> None:
    wanted = rendered(template(tmp_path, program=body("\tint x = *(int *)(long)skb->data;")))
    line = wanted.source.split("\n").index("\tint x = *(int *)(long)skb->data;") + 1
    error = verifier_error(wanted, log.replace(":10", f":{line}"), "R1 offset is outside of the packet")
    (problem,) = error.problems
    assert problem.code == "NK0740"
    assert problem.position is not None
    assert problem.position.line == 5
    assert problem.message.endswith("R1 offset is outside of the packet")
    assert "more lines" in problem.hint
