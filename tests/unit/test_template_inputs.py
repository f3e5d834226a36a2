"""Given a template, all that its program is made of is in its digest; nothing else is read, by whatever means."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nkform.bpf import Renderer, catalogue
from nkform.bpf.engine_clang import ClangEngine
from nkform.bpf.render import digest
from nkform.bpf.store import Store
from nkform.problem import NkformError
from tests.unit.templates import FACTS, body, rendered, template, write

SECRET = "int sesame_open = ;"


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "cache") as store:
        yield store


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is none of a template's business."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    return path


def said(error: NkformError) -> str:
    """All that a user could see of it."""
    shown = [f"{p.message} {p.hint} {p.position.text if p.position else ''}" for p in error.problems]
    return "\n".join([*shown, getattr(error, "log", "")])


REACHES = [
    '#include "{secret}"',
    '#include "../../secret"',
    "#include <{secret}>",
    '#import "{secret}"',
    '#define WHERE "{secret}"\n#include WHERE',
    '#include "code.inc"',
    '#include "sub/x.h"',
    '#include "/proc/self/root{secret}"',
    '#include "/template/../{secret}"',
    '#pragma GCC dependency "{secret}"',
    '_Pragma("GCC dependency \\"{secret}\\"")',
    'asm(".incbin \\"{secret}\\"");',
    '__asm__(".include \\"{secret}\\"");',
    'asm(".macro x y\\n.inc\\\\y \\"{secret}\\"\\n.endm\\nx bin");',
    'as\\\nm("." "incbin \\"{secret}\\"");',
    '#define PASTE(a, b) a##b\nPASTE(as, m)("\\x2eincbin \\"{secret}\\"");',
    '#define PASTE(a, b) a%:%:b\nPASTE(__as, m__)("\\56incbin \\"{secret}\\"");',
    'int named asm(".incbin");',
    *(
        f'#define HIDDEN {word}\nHIDDEN(".incbin \\"{{secret}}\\"");'
        for word in ("as\\ \nm", "as\\\t\nm", "a\\\ns\\ \t \nm", "__as\\ \nm__", "as\\ \n\\\nm")
    ),
    'asm(\n_Pragma("unknown )")\n".incbin \\"{secret}\\"");',
    'asm(\n#pragma unknown )\n".incbin \\"{secret}\\"");',
    '#pragma unknown asm(\nasm(".incbin \\"{secret}\\"");',
    'asm(R"(\n.incbin "{secret}"\n)");',
    'char text[] = R"(")"; asm(".incbin \\"{secret}\\"");',
    '#embed "{secret}"',
]


@pytest.mark.parametrize("reach", REACHES)
def test_nothing_outside_is_read(cache: Store, tmp_path: Path, secret: Path, reach: str) -> None:
    wanted = template(tmp_path / "t", program=body("", reach.replace("{secret}", str(secret))))
    (wanted.folder / "code.inc").write_text(f"{SECRET}\n")
    (wanted.folder / "sub").mkdir()
    (wanted.folder / "sub" / "x.h").write_text(f"{SECRET}\n")
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache).build(rendered(wanted))
    assert caught.value.problems[0].code in {"NK0731", "NK0763"}
    assert "sesame" not in said(caught.value)


def test_no_macro_makes_more_of_the_assembly_of_the_library(cache: Store, tmp_path: Path, secret: Path) -> None:
    """The word itself stands in a header of nkform's only."""
    twist = f'#define volatile (".incbin \\"{secret}\\""); SWALLOW\n#define SWALLOW(...)'
    wanted = template(tmp_path / "t", program=body("\tif (nk_packet(skb, data))\n\t\treturn NK_DROP;", twist))
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache).build(rendered(wanted))
    assert caught.value.problems[0].code == "NK0763"


@pytest.mark.parametrize("blank", [" ", "\t", "\t  "])
def test_a_word_that_is_continued_in_a_header_is_seen_whole(
    cache: Store, tmp_path: Path, secret: Path, blank: str
) -> None:
    """A header is compiled as it is, blanks at the end of its lines included."""
    hidden = f'#define HIDDEN as\\{blank}\nm\nHIDDEN(".incbin \\"{secret}\\"");\n'
    wanted = template(tmp_path / "t", program='#include "mine.h"\n' + body(""), header=hidden)
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache).build(rendered(wanted))
    assert caught.value.problems[0].code == "NK0763"


def test_whether_a_file_exists_changes_no_program(cache: Store, tmp_path: Path, secret: Path) -> None:
    ask = f'#if __has_include("{secret}") || __has_include("code.inc")\n#error it is there\n#endif'
    wanted = template(tmp_path / "t", program=body("", ask))
    (wanted.folder / "code.inc").touch()
    ClangEngine(cache).build(rendered(wanted))


@pytest.mark.parametrize("name", ["{secret}", "nkform.h"])
def test_an_error_shows_lines_of_what_was_compiled_only(cache: Store, tmp_path: Path, secret: Path, name: str) -> None:
    wrong = f'#line 1 "{name.replace("{secret}", str(secret))}"\nint wrong = ;'
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache).build(rendered(template(tmp_path / "t", program=body("", wrong))))
    assert "sesame" not in said(caught.value)
    assert caught.value.problems[0].position is not None
    assert caught.value.problems[0].position.text in {"", '#include "packet.h"'}


def test_a_header_is_compiled_as_it_was_when_the_digest_was_made(cache: Store, tmp_path: Path) -> None:
    wanted = template(tmp_path / "t", program='#include "mine.h"\n' + body(""), header="static const int mine = 1;\n")
    made = rendered(wanted)
    (wanted.folder / "mine.h").write_text("this is no C;\n")
    ClangEngine(cache).build(made)


def test_an_included_template_is_rendered_as_it_was_when_the_catalogue_was_made(tmp_path: Path) -> None:
    wanted = template(tmp_path / "t", program=body('{% include "part.j2" %}'))
    (wanted.folder / "part.j2").write_text("\tint part = 1;\n")
    wanted = catalogue([tmp_path / "t"])["mine"]
    renderer = Renderer()
    before = digest(renderer.render(wanted, {}, FACTS, "clang"))
    (wanted.folder / "part.j2").write_text("\tint part = 2;\n")
    assert "part = 1" in renderer.render(wanted, {}, FACTS, "bcc").source
    assert before == digest(Renderer().render(wanted, {}, FACTS, "clang"))
    assert before != digest(Renderer().render(catalogue([tmp_path / "t"])["mine"], {}, FACTS, "clang"))


def test_a_barrier_to_the_compiler_is_no_way_out(cache: Store, tmp_path: Path) -> None:
    barrier = '\tasm volatile("" : "+r"(skb));\n\tasm volatile("%0 = *(u32 *)(%1 + 0)" : "=r"(skb) : "r"(skb));'
    ClangEngine(cache).build(rendered(template(tmp_path / "t", program=body(barrier))))


def test_what_a_compiler_has_read_besides_is_refused(cache: Store, tmp_path: Path) -> None:
    spy = tmp_path / "clang"
    spy.write_text(
        '#!/bin/sh\ncase "$*" in --version) echo spy; exit;; *" -E "*) exit;; esac\n'
        'while [ "$1" != -MF ]; do shift; done\n'
        'echo "x: /template/mine.h /etc/hostname" > "$2"\n'
    )
    spy.chmod(0o755)
    wanted = template(tmp_path / "t", header="\n")
    with pytest.raises(NkformError) as caught:
        ClangEngine(cache, compiler=str(spy)).build(rendered(wanted))
    (problem,) = caught.value.problems
    assert problem.code == "NK0763"
    assert "/etc/hostname" in problem.message
    assert "/template" not in problem.message


@pytest.mark.parametrize("name", ["program.bpf.c.j2", "manifest.yaml", "mine.h", "part.j2"])
def test_a_link_that_leads_out_of_the_template_is_refused(tmp_path: Path, secret: Path, name: str) -> None:
    folder = write(tmp_path / "t") / "mine"
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(secret)
    with pytest.raises(NkformError, match="leads out of") as caught:
        catalogue([tmp_path / "t"])
    assert "sesame" not in said(caught.value)


def test_links_within_a_template_are_followed(tmp_path: Path) -> None:
    folder = write(tmp_path / "real", header="#define X 1\n") / "mine"
    (folder / "2026").mkdir()
    for name in ("program.bpf.c.j2", "manifest.yaml", "mine.h"):
        (folder / name).rename(folder / "2026" / name)
        (folder / name).symlink_to(f"now/{name}")
    (folder / "now").symlink_to("2026")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "mine").symlink_to(folder)
    assert catalogue([tmp_path / "linked"])["mine"].headers == {"mine.h": "#define X 1\n"}


@pytest.mark.parametrize("name", ["program.bpf.c.j2", "manifest.yaml", "mine.h"])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path.name)])
def test_what_is_no_file_is_told_with_its_path_at_once(tmp_path: Path, name: str, make: object) -> None:
    folder = write(tmp_path / "t") / "mine"
    (folder / name).unlink(missing_ok=True)
    assert callable(make)
    make(folder / name)
    with pytest.raises(NkformError) as caught:
        catalogue([tmp_path / "t"])
    assert str(folder / name) in caught.value.problems[0].message
    assert caught.value.problems[0].code == "NK0701"


def test_a_folder_whose_name_has_a_nul_is_an_error() -> None:
    with pytest.raises(NkformError) as caught:
        catalogue([Path("templates\0evil")])
    assert caught.value.problems[0].code == "NK0701"


def test_nothing_of_a_compilation_lies_where_others_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As who owns TMPDIR would do: whatever object appears there is another one when the compiler has ended."""
    public = tmp_path / "public"
    public.mkdir(mode=0o777)
    monkeypatch.setenv("TMPDIR", str(public))
    monkeypatch.setattr("tempfile.tempdir", None)
    evil = tmp_path / "clang"
    evil.write_text(
        f'#!/bin/sh\n/usr/bin/clang "$@"\ncode=$?\nfind {public} -name "*.o" -exec sh -c "echo evil > {{}}" \\;\n'
        "exit $code\n"
    )
    evil.chmod(0o755)
    with Store(tmp_path / "cache") as cache:
        data = ClangEngine(cache, compiler=str(evil)).build(rendered(template(tmp_path / "t"))).data
    assert data.startswith(b"\x7fELF")
