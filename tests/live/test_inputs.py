"""What was reviewed is what runs: a plan's inputs are files, all of them are in it, and a hostile one stops nobody."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from nkform.bpf import catalogue
from nkform.bpf.engine_clang import LOAD_LIMITS, ClangEngine, unloadable
from nkform.bpf.loader import Prototype, in_child
from nkform.bpf.programs import Programs
from nkform.bpf.store import Store
from nkform.kernel import rundir
from nkform.problem import NkformError
from tests.live.helpers.chain_sites import TCX_INGRESS
from tests.live.helpers.processes import Asked
from tests.live.helpers.support import Node, ip, links, needs
from tests.live.test_pairs import veth
from tests.unit.templates import body, rendered, write

SOON = 20.0
"""Seconds by which an error is there that needs none; emulated kernels are slow."""


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """What takes longer hangs, and would do so for ever."""

    def late(*_: object) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SOON)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# --- programs ---------------------------------------------------------------------------


def own(folder: Path) -> dict[str, Any]:
    """A chain of one program, of a template in this folder."""
    spec = TCX_INGRESS.spec(["own"])
    spec["templates"] = [str(folder)]
    spec["programs"]["own"] = {"template": "mine"}
    return spec


@needs("tcx")
@pytest.mark.parametrize("engine", ["clang", "bcc"])
@pytest.mark.parametrize("name", ["mine.h", "part.j2", "program.bpf.c.j2"])
def test_a_saved_plan_runs_no_code_that_changed_since(node: Node, tmp_path: Path, name: str, engine: str) -> None:
    folder = write(tmp_path / "templates", program=body('#include "mine.h"\n{% include "part.j2" %}')) / "mine"
    (folder / "mine.h").write_text("\tint one = 1;\n")
    (folder / "part.j2").write_text("\tint two = 2;\n")
    path = tmp_path / "own.plan"
    outcome = node.plan(own(tmp_path / "templates"), "-o", str(path), "--engine", engine)
    assert outcome.code == 0, outcome.err
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("NK_NEXT", "NK_DROP") if "NK_NEXT" in text else text.replace("int", "char"))
    refused = node.run("apply", str(path))
    assert refused.code == 1
    assert "NK0623" in refused.err
    (folder / name).write_text(text)
    assert node.run("apply", str(path)).code == 0


@needs("tcx")
def test_a_saved_plan_loads_no_object_that_changed_since(node: Node, tmp_path: Path) -> None:
    folder, path = tmp_path / "objects", tmp_path / "node.plan"
    node.write(TCX_INGRESS.spec(["count"]))
    assert node.run("build", str(node.path), "-o", str(folder)).code == 0
    given = ("--engine", "clang", "--objects", str(folder))
    assert node.plan(TCX_INGRESS.spec(["count"]), "-o", str(path), *given).code == 0
    (key,) = [file.stem for file in folder.glob("*.o")]
    sound = (folder / f"{key}.o").read_bytes()
    with Store(folder) as store:
        store.put(key, sound + b"\0", {})
        refused = node.run("apply", str(path))
        assert refused.code == 1
        assert "NK0623" in refused.err
        store.put(key, sound, {})
    assert node.run("apply", str(path)).code == 0


@needs("tcx")
@pytest.mark.parametrize("when", ["at the question", "after the last look", "in a saved plan"])
def test_an_object_that_is_exchanged_is_not_loaded(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Between the plan that was shown, or saved, and the program that is loaded."""
    folder = tmp_path / "objects"
    node.write(TCX_INGRESS.spec(["count"]))
    assert node.run("build", str(node.path), "-o", str(folder)).code == 0
    given = ("--engine", "clang", "--objects", str(folder))

    def exchange() -> None:
        (key,) = [each.stem for each in folder.glob("*.o")]
        with Store(folder) as store:
            data = store.get(key)
            assert data is not None
            store.put(key, data + b"\0", {})

    if when == "at the question":
        asked = Asked("apply", str(node.path), *given)
        exchange()
        assert asked.answer("yes\n") == 1
        assert "NK0517" in asked.said
    else:
        genuine = Programs.load

        def load(self: Programs, *words: Any, **more: Any) -> Any:
            exchange()
            monkeypatch.setattr(Programs, "load", genuine)
            return genuine(self, *words, **more)

        words = ("apply", "-y", str(node.path), *given)
        if when == "in a saved plan":
            assert node.plan(None, "-o", str(tmp_path / "p.plan"), *given).code == 0
            words = ("apply", "-y", str(tmp_path / "p.plan"))
        monkeypatch.setattr(Programs, "load", load)
        outcome = node.run(*words)
        assert outcome.code == 1
        assert "error[NK0623]" in outcome.err
    assert node.run("apply", "-y", str(node.path), *given).code == 0


@needs("tcx")
@pytest.mark.parametrize("engine", ["clang", "bcc"])
@pytest.mark.parametrize(
    "reach",
    [
        '#include "code.inc"',
        '#include "sub/x.h"',
        '#include "/etc/hostname"',
        '#include "../../../../../../etc/hostname"',
        'asm(".incbin \\"/etc/hostname\\"");',
        '#include "hidden.h"',
        '#if __has_include("/etc/hostname")\n#error SEEN\n#endif\nnot c;',
    ],
)
def test_a_program_is_made_of_what_is_in_its_digest(node: Node, tmp_path: Path, reach: str, engine: str) -> None:
    folder = write(tmp_path / "templates", program=body("", reach)) / "mine"
    (folder / "code.inc").touch()
    (folder / "hidden.h").write_text('#define HIDDEN as\\ \nm\nHIDDEN(".incbin \\"/etc/hostname\\"");\n')
    (folder / "sub").mkdir()
    (folder / "sub" / "x.h").touch()
    error = node.refused(own(tmp_path / "templates"), "--engine", engine, command="apply")
    assert "NK0731" in error or "NK0763" in error
    assert "SEEN" not in error
    assert Path("/etc/hostname").read_text().strip() not in error.replace(str(tmp_path), "")


@needs("tcx")
@pytest.mark.parametrize("engine", ["clang", "bcc"])
@pytest.mark.parametrize("macro", ["__DATE__", "__TIME__", "__TIMESTAMP__"])
def test_no_program_knows_when_it_was_compiled(node: Node, tmp_path: Path, macro: str, engine: str) -> None:
    """By no warning that it could turn off; of a system's header there would be none at all."""
    off = '#pragma GCC system_header\n#pragma clang diagnostic ignored "-Wdate-time"\n'
    header = f'{off}#pragma pop_macro("{macro}")\n#define LAST ({macro}[sizeof({macro}) - 2] & 1)\n'
    program = body("\tif (LAST)\n\t\treturn NK_DROP;", '#include "mine.h"')
    write(tmp_path / "templates", program=program, header=header)
    error = node.refused(own(tmp_path / "templates"), "--engine", engine, command="apply")
    assert "NK0731" in error
    assert macro in error


@needs("tcx")
@pytest.mark.parametrize("engine", ["clang", "bcc"])
def test_a_compiler_that_dies_is_an_error_and_the_node_is_as_before(node: Node, tmp_path: Path, engine: str) -> None:
    node.apply(TCX_INGRESS.spec(["count"]))
    write(tmp_path / "templates", program=body("", "#pragma clang __debug crash"))
    error = node.refused(own(tmp_path / "templates"), "--engine", engine, command="apply")
    assert "NK0762" in error
    assert "mine" in error
    assert node.changes(TCX_INGRESS.spec(["count"])) == []


@needs("tcx")
def test_a_full_cache_keeps_no_program_from_running(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "full"
    folder.mkdir(mode=0o700)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, b"size=4k,mode=700") == 0
    try:
        (folder / "filler").write_bytes(bytes(4096))
        monkeypatch.setattr("nkform.bpf.engines.default_path", lambda: folder)
        outcome = node.apply(TCX_INGRESS.spec(["count"]), "--engine", "clang")
        assert "NK0765" in outcome.err
        assert "No space left" in outcome.err
    finally:
        assert libc.umount2(os.fsencode(folder), 2) == 0


@needs("tcx")
def test_an_object_that_is_none_is_an_error(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "objects"
    node.write(TCX_INGRESS.spec(["count"]))
    assert node.run("build", str(node.path), "-o", str(folder)).code == 0
    (key,) = [file.stem for file in folder.glob("*.o")]
    sound = (folder / f"{key}.o").read_bytes()
    half = len(sound) // 2
    for evil in (b"", b"\x7fELF", sound[:200], sound[:64] + bytes(half), sound[:half], sound[:-64] + b"\xff" * 64):
        with Store(folder) as store:
            store.put(key, evil, {})
        given = ("--engine", "clang", "--objects", str(folder))
        error = node.refused(TCX_INGRESS.spec(["count"]), *given, command="apply")
        assert "load program counters" in error
        assert links() == set()


def test_what_crashes_while_an_object_is_looked_at_is_an_error(tmp_path: Path) -> None:
    def crash() -> Prototype:
        ctypes.string_at(0)
        raise AssertionError("not reached")

    wanted = rendered(catalogue()["verdict"])
    with pytest.raises(NkformError) as caught:
        in_child(wanted, crash, LOAD_LIMITS, partial(unloadable, wanted))
    (problem,) = caught.value.problems
    assert problem.code == "NK0764"
    assert "SIGSEGV" in problem.message


# --- files ------------------------------------------------------------------------------

NO_FILES: dict[str, Callable[[Path], object]] = {
    "fifo": os.mkfifo,
    "folder": Path.mkdir,
    "loop": lambda path: path.symlink_to(path.name),
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "device": lambda path: os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5)),
}
no_files = pytest.mark.parametrize("what", NO_FILES)


@no_files
def test_what_is_no_file_in_place_of_a_journal_is_told_with_its_path(node: Node, what: str) -> None:
    node.apply(veth())
    path = rundir.RUN / "w" / "journal"
    NO_FILES[what](path)
    try:
        for words in (("plan", str(node.path)), ("apply", "-y", str(node.path)), ("recover", "-y")):
            with at_once():
                outcome = node.run(*words)
            assert outcome.code == 1
            assert str(path) in outcome.err
            assert "NK0900" not in outcome.err
    finally:
        path.rmdir() if what == "folder" else path.unlink()


@no_files
def test_what_is_no_file_in_place_of_the_lock_is_told_with_its_path(node: Node, what: str) -> None:
    path = rundir.RUN / "@lock"
    rundir.RUN.mkdir(mode=0o700, exist_ok=True)
    path.unlink(missing_ok=True)
    NO_FILES[what](path)
    try:
        with at_once():
            error = node.refused(veth(), command="apply")
        assert str(path) in error
        assert "NK0900" not in error
        assert links() == set()
    finally:
        path.rmdir() if what == "folder" else path.unlink()


@no_files
def test_what_is_no_namespace_is_told_with_its_path(node: Node, tmp_path: Path, what: str) -> None:
    path = tmp_path / "space"
    NO_FILES[what](path)
    pair = {"kind": "veth", "peer": {"name": "x", "namespace": {"path": str(path)}}}
    spec = {"version": 1, "node": "w", "devices": {"v": pair}}
    with at_once():
        assert str(path) in node.refused(spec)


@no_files
def test_what_is_no_namespace_among_names_stops_nobody(node: Node, what: str) -> None:
    ip("netns", "add", "theirs")
    path = Path("/run/netns/odd")
    NO_FILES[what](path)
    try:
        with at_once():
            node.apply(veth())
            assert node.run("show").code == 0
    finally:
        path.rmdir() if what == "folder" else path.unlink()


@no_files
def test_an_object_of_the_cache_that_is_no_file_is_compiled_anew(tmp_path: Path, what: str) -> None:
    wanted = rendered(catalogue()["verdict"])
    with Store(tmp_path / "cache") as cache:
        ClangEngine(cache).build(wanted)
        for file in (tmp_path / "cache").iterdir():
            file.unlink()
            NO_FILES[what](file)
        with at_once():
            assert ClangEngine(cache).build(wanted).origin == "compiled"


# --- saved plans ------------------------------------------------------------------------


def test_a_plan_for_the_null_device_leaves_it_what_it_is(node: Node, tmp_path: Path) -> None:
    null = tmp_path / "null"
    os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    assert node.plan(veth(), "-o", str(null)).code == 0
    assert stat.S_ISCHR(null.lstat().st_mode)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".null")] == []


@pytest.mark.parametrize("what", [name for name in NO_FILES if name not in {"device", "loop"}])
def test_a_plan_goes_into_no_fifo(node: Node, tmp_path: Path, what: str) -> None:
    path = tmp_path / "odd"
    NO_FILES[what](path)
    before = path.lstat()
    with at_once():
        outcome = node.plan(veth(), "-o", str(path))
    assert outcome.code == 1
    assert f"{path} cannot be written" in outcome.err
    assert os.path.samestat(path.lstat(), before)


def test_a_plan_goes_to_the_standard_output(node: Node, tmp_path: Path) -> None:
    outcome = node.plan(veth(), "-o", "-")
    assert outcome.code == 0, outcome.err
    assert "Plan:" in outcome.err
    assert not Path("-").exists()
    path = tmp_path / "from.plan"
    path.write_text(outcome.out)
    path.chmod(0o600)
    assert node.run("apply", str(path)).code == 0
    assert node.changes(veth()) == []
    assert node.plan(veth(), "-o", "-", "--json").code == 1


def test_a_link_into_proc_is_not_put_aside(node: Node, tmp_path: Path) -> None:
    """As /dev/stdout is one."""
    link = tmp_path / "stdout"
    with (tmp_path / "out").open("w") as out:
        link.symlink_to(f"/proc/self/fd/{out.fileno()}")
        outcome = node.plan(veth(), "-o", str(link))
    assert outcome.code == 1
    assert "`-o -`" in outcome.err
    assert link.is_symlink()


def test_the_null_device_is_no_plan(node: Node) -> None:
    with at_once():
        outcome = node.run("apply", "/dev/null")
    assert outcome.code == 1
    assert "/dev/null" in outcome.err
