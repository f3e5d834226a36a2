"""Names are bytes, and what is shown is text that no terminal obeys."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, link
from tests.live.test_pairs import veth
from tests.unit.templates import write

pytestmark = pytest.mark.usefixtures("made_once")

NAMES = [
    b"\xff\xfe",
    b"\x1b[31mred",
    b"a\x07b",
    "x\u202ey".encode(),
    b"\xe2\x80\xaex",
    b"1e5",
    b"no",
    b"~",
    b"${HOME}",
    b"#x",
]
COMMANDS = [("plan",), ("plan", "--json"), ("show",), ("show", "--json"), ("status",), ("status", "--json")]


def rename(name: bytes, namespace: str = "a") -> None:
    """By root in the namespace."""
    ip("link", "set", "eth0", "down", namespace=namespace)
    ip("link", "set", "eth0", "name", os.fsdecode(name), namespace=namespace)


def harmless(text: str) -> bool:
    return (all(c.isprintable() or c == "\n" for c in text) and text.isprintable()) or all(
        c.isprintable() or c == "\n" for c in text
    )


def shown(node: Node, *words: str) -> str:
    """What a run prints, as a process prints it."""
    done = subprocess.run(
        [sys.executable, "-m", "nkform", *words, "--no-color"], capture_output=True, check=False, env={**os.environ}
    )
    text = (done.stdout + done.stderr).decode("utf-8")
    assert "NK0900" not in text, text
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize("name", NAMES, ids=repr)
def test_a_peer_of_any_name_is_told_of_and_brought_back(node: Node, name: bytes) -> None:
    node.apply(veth())
    rename(name)
    kept = node.folder / "kept"
    for words in COMMANDS:
        text = shown(node, *words, *([str(node.path)] if words[0] == "plan" else []))
        assert harmless(text), text
    text = shown(node, "plan", str(node.path), "-o", str(kept))
    text = shown(node, "apply", str(kept))
    assert harmless(text), text
    assert node.changes() == []
    assert link("eth0", "a")["ifname"] == "eth0"


@pytest.mark.parametrize("name", [b"\xff\xfe", b"\x1b[31mred"], ids=repr)
def test_the_watch_brings_back_any_name(node: Node, name: bytes) -> None:
    node.apply(veth())
    words = [sys.executable, "-m", "nkform", "watch", "--heal", "--interval", "0.2", str(node.path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        assert run.stdout
        assert b"watching" in run.stdout.readline()
        rename(name)
        until(lambda: node.changes() == [])
        run.terminate()
        said = run.stdout.read().decode()
    assert run.returncode == 0
    assert harmless(said), said


def test_foreign_names_are_shown_harmlessly(node: Node) -> None:
    node.apply(veth())
    for name in (b"\x1b[31mred", b"\xff\xfe"):
        ip("link", "add", os.fsdecode(name), "type", "veth", "peer", "name", os.fsdecode(b"p" + name), namespace="a")
    ip("link", "set", "lo", "alias", "\x1b[2J\u202e", namespace="a")
    spec = veth()
    del spec["namespaces"]["a"], spec["devices"]["to-a"]
    text = shown(node, "plan", str(node.write(spec)))
    assert "NK0416" in text
    assert harmless(text), text


@pytest.mark.parametrize("name", [b"\xff\xfe", b"${HOME}", b"1e5", b"7e10", b"null", b"0x1f", b"1_000"], ids=repr)
def test_show_is_a_spec_for_every_name(node: Node, name: bytes) -> None:
    node.apply(veth())
    rename(name)
    ip("link", "set", os.fsdecode(name), "up", namespace="a")
    text = shown(node, "show")
    if name == b"\xff\xfe":
        return
    again = node.folder / "again.yaml"
    again.write_text(node.run("show").out)
    outcome = node.run("plan", "--json", str(again))
    assert outcome.code == 0, text + outcome.err
    assert outcome.json()["changes"] == []


@pytest.mark.parametrize("name", ["$${", "$${HOME}", "a$$$${x}", "$$"])
def test_show_is_a_spec_where_names_look_like_variables(node: Node, name: str) -> None:
    device = {"kind": "veth", "peer": {"name": name, "namespace": name}}
    node.apply({"version": 1, "node": "w", "namespaces": {name: {"create": True}}, "devices": {name: device}})
    for words in (["show"], ["show", "--json"]):
        assert node.changes(node.run(*words).out) == []
    node.write({"version": 1, "node": "w"})
    node.run("destroy", "-y", "--node", "w")


def test_show_is_a_spec_where_the_peer_has_what_others_have(node: Node) -> None:
    spec = veth()
    spec["devices"]["to-a"].update(txqlen=100)
    spec["devices"]["to-a"]["peer"].update(txqlen=1000)
    node.apply(spec)
    assert node.changes(node.run("show").out) == []


def test_show_is_a_spec_where_peers_go_by_path(node: Node) -> None:
    spec = veth()
    spec["devices"]["to-a"]["peer"]["namespace"] = {"path": "/run/elsewhere"}
    del spec["namespaces"]["a"]
    ip("netns", "add", "x")
    Path("/run/elsewhere").touch()
    subprocess.run(["mount", "--bind", "/run/netns/x", "/run/elsewhere"], check=True)
    ip("netns", "del", "x")
    node.apply(spec)
    assert node.changes(node.run("show").out) == []
    node.destroy()
    subprocess.run(["umount", "/run/elsewhere"], check=True)


def test_a_node_with_external_devices_only_is_known(node: Node) -> None:
    ip("link", "add", "ext0", "type", "veth", "peer", "name", "ext1")
    programs = {"count": {"template": "counters"}}
    device = {"kind": "external", "programs": {"ingress": ["count"]}}
    node.apply({"version": 1, "node": "outer", "programs": programs, "devices": {"ext0": device}})
    shown = node.run("show")
    assert shown.code == 0, shown.err
    assert node.changes(shown.out) == []
    assert "ext0" in node.run("status").out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_streams_that_take_ascii_only(node: Node, encoding: str) -> None:
    spec: dict[str, Any] = veth()
    node.apply(spec)
    rename("ÿ".encode())
    for words in (("plan", str(node.path)), ("show",), ("status",)):
        done = subprocess.run(
            [sys.executable, "-m", "nkform", *words],
            capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert b"NK0900" not in done.stderr


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)])
def test_closed_streams(node: Node, closed: tuple[int, ...]) -> None:
    node.write(veth())

    def close() -> None:
        for number in closed:
            os.close(number)

    for words in (("apply", "-y", str(node.path)), ("plan", str(node.path)), ("show",), ("plan", "/nonexistent")):
        done = subprocess.run(
            [sys.executable, "-m", "nkform", *words], preexec_fn=close, capture_output=True, check=False
        )
        assert done.returncode == (1 if words[-1] == "/nonexistent" else 0), (words, done.stderr)
    assert node.changes() == []


def test_a_full_or_gone_output_is_no_traceback(node: Node) -> None:
    node.apply(veth())
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "nkform", "show"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 1
    assert b"NK0900" not in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(("answer", "code"), [(b"yes\n", 0), (b"no\n", 1)])
def test_a_question_is_asked_and_answered_at_a_terminal(node: Node, answer: bytes, code: int) -> None:
    """By the console script, whose streams are wrapped; colours arrive as colours."""
    import pty

    node.write(veth())
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-m", "nkform", "apply", str(node.path)])
    said = b""
    while b"Only 'yes' goes ahead: " not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, answer)
    with contextlib.suppress(OSError):
        while chunk := os.read(terminal, 4096):
            said += chunk
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code
    assert b"\x1b[32m" in said
    assert b"\0" not in said


def test_a_folder_of_templates_may_have_any_name(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    here = node.folder / os.fsdecode(b"\xff")
    here.mkdir()
    monkeypatch.chdir(here)
    write(here / "own")
    spec = {**veth(), "templates": ["own"], "programs": {"mine": {"template": "mine"}}}
    spec["devices"]["to-a"]["programs"] = {"peer": ["mine"]}
    node.path = here / "spec.yaml"
    node.apply(spec)
    assert "mine" in node.run("status").out
    spec["devices"]["to-a"]["mtu"] = 1400
    node.write(spec)
    assert node.run("plan", "spec.yaml", "-o", "kept").code == 0
    assert node.run("apply", "kept").code == 0
    (here / "own" / "mine" / "program.bpf.c.j2").write_text("{% if")
    error = node.refused(spec)
    assert "NK0720" in error
    assert "program.bpf.c.j2:1" in error
