"""Whatever is in a file or on the node: an error that names it, and never one that is a bug of nkform's."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from nkform.apply.executor import Executor
from nkform.dataclass import replace
from nkform.kernel import bpf, bpffs
from nkform.kernel.clsact import PREFIX, Direction, Tc
from nkform.kernel.descriptors import Owned
from nkform.kernel.netns import RUN
from tests.live.helpers.chain_sites import CLSACT_INGRESS, DEVICE, NODE, TCX_INGRESS
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, Outcome, ip, needs
from tests.live.test_pairs import veth

DEEP = "[" * 100_000 + "]" * 100_000


def expected(outcome: Outcome) -> str:
    text = outcome.out + outcome.err
    assert "NK0900" not in text, text
    assert "Traceback" not in text
    return text


def test_a_saved_plan_that_nests_deep(node: Node) -> None:
    node.write(veth())
    kept = node.folder / "plan"
    assert node.run("plan", str(node.path), "-o", str(kept)).code == 0
    kept.write_text(kept.read_text().replace('"actions":', f'"deep": {DEEP}, "actions":', 1))
    assert "NK0621" in expected(node.run("apply", "-y", str(kept)))


LINES = ["[]", "{}", "null", '"x"', '[1, "2", 3, 4]', "1.5", DEEP, '{"type": "Nothing"}', "\xff"]


@pytest.mark.parametrize("line", LINES, ids=[line[:20] for line in LINES])
def test_a_journal_with_a_line_that_no_run_writes(node: Node, line: str) -> None:
    from tests.live.helpers.attack import killed_after

    node.apply(veth())
    spec = veth()
    spec["devices"]["to-a"]["mtu"] = 1400
    node.write(spec)
    killed_after(node, 1)
    with Path("/run/nkform/w/journal").open("a", encoding="latin-1") as journal:
        journal.write(line + "\n")
    said = [
        expected(node.run(*words))
        for words in (("plan", str(node.path)), ("recover", "-y"), ("apply", "-y", str(node.path)), ("show",))
    ]
    Path("/run/nkform/w/journal").unlink()
    assert [text for text in said if "NK0510" not in text] == []


@pytest.mark.parametrize("text", ["", "[]", "{}", "null", '{"node": 1}', '{"node": {"devices": []}}', DEEP, "\0"])
def test_a_record_that_nobody_wrote(node: Node, text: str) -> None:
    node.apply(veth())
    Path("/run/nkform/w/applied.json").write_text(text)
    ip("link", "set", "to-a", "mtu", "1400")
    for words in (("plan", str(node.path)), ("status",), ("show",), ("apply", "-y", str(node.path))):
        assert node.run(*words).code == 0
    assert node.changes() == []


@pytest.mark.parametrize("name", ["pid:abc", "pid:1", "path:x", "nsid:0", "a:b", "\x1b[31m", "-n", " "])
def test_a_namespace_of_any_name(node: Node, name: str) -> None:
    node.apply(veth())
    (RUN / name).touch()
    for words in (("plan", str(node.path)), ("status",), ("show",), ("doctor",), ("apply", "-y", str(node.path))):
        assert node.run(*words).code == 0
    node.destroy()
    (RUN / name).unlink()


def test_an_exception_in_a_run_tells_where_it_came_from_and_that_all_was_undone(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(veth())
    before = netstate_snapshot()
    spec = veth()
    spec["devices"]["to-a"]["mtu"] = 1400
    genuine = Executor.run
    tripped: list[Any] = []

    def run(self: Executor, actions: Any) -> None:
        genuine(self, actions)
        if not tripped:
            tripped.append(actions)
            raise ZeroDivisionError("by a bug")

    monkeypatch.setattr(Executor, "run", run)
    error = node.refused(spec, command="apply")
    assert "NK0900" in error
    assert "by a bug" in error
    assert "NK0505" in error
    assert "transaction.py:" in error
    assert differences(before, netstate_snapshot()) == []


@needs("tcx")
def test_a_map_that_is_not_per_cpu(node: Node) -> None:
    """A template whose manifest has numbers for people in a plain map."""
    folder = node.folder / "templates" / "plain"
    folder.mkdir(parents=True)
    (folder / "manifest.yaml").write_text(
        "version: 1\npurpose: Counts.\nhooks: [peer]\nmodes: [l2, l3]\n"
        "maps: {counts: {description: x, keys: [all], fields: [packets]}}\n"
    )
    (folder / "program.bpf.c.j2").write_text(
        '#include "packet.h"\n{{ map("counts", "array", key="__u32", value="__u64", entries=1) }}\n'
        "{{ program() }}\n{\n\t__u32 key = 0;\n\t__u64 *count = {{ lookup("
        '"counts", "&key") }};\n\n\tif (count)\n\t\t*count += 1;\n\treturn NK_NEXT;\n}\n'
    )
    spec = {
        "version": 1, "node": "w", "templates": [str(node.folder / "templates")],
        "programs": {"plain": {"template": "plain"}},
        "devices": {"v0": {"kind": "veth", "peer": {"name": "v1"}, "programs": {"peer": ["plain"]}}},
    }  # fmt: skip
    node.write(spec)
    outcome = node.run("apply", "-y", str(node.path))
    assert outcome.code == 0, outcome.err
    expected(node.run("status"))
    assert node.run("status").code == 0


NO_NUMBERS = ["²", "٣", "99999999999999999999", "4294967296", "9" * 100, "-1", "01", "1_0", ""]


def everything_is_expected(node: Node) -> None:
    for words in (("plan", str(node.path)), ("status",), ("show",), ("apply", "-y", str(node.path)), ("destroy", "-y")):
        expected(node.run(*words, *(["--node", NODE] if words[0] == "destroy" else [])))


@needs("tcx")
@pytest.mark.parametrize("part", [2, 3], ids=["link", "program"])
@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_pin_whose_name_has_no_number_where_one_belongs(node: Node, number: str, part: int) -> None:
    node.apply(TCX_INGRESS.spec(["count"]))
    (pin,) = bpffs.pins(NODE)
    parts = pin.entry.split("@")
    parts[part] = number
    Path(pin.path()).rename(replace(pin, entry="@".join(parts)).path())
    everything_is_expected(node)


@needs("tcx")
@pytest.mark.parametrize("name", ["²", "count@x@²", "count@x@99999999999999999999", "count", "@@"])
def test_a_held_program_of_any_name(node: Node, name: str) -> None:
    node.apply(TCX_INGRESS.spec(["count"]))
    node.apply(TCX_INGRESS.spec([]))
    (pin,) = bpffs.pins(NODE, top=bpffs.HELD)
    Path(pin.path()).rename(replace(pin, entry=name).path())
    expected(node.run("rollback", "-y"))
    everything_is_expected(node)


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_filter_whose_name_has_no_number_where_one_belongs(node: Node, number: str) -> None:
    node.apply(CLSACT_INGRESS.spec(["count"]))
    (running,) = CLSACT_INGRESS.filters()
    index = socket.if_nametoindex(DEVICE)
    name = running.name.removeprefix(PREFIX).rpartition("@")[0] + f"@{number}"
    with Tc() as tc, Owned(bpf.prog_fd(running.prog_id)) as program:
        tc.filter_update(index, Direction.INGRESS, running.priority, program, name=name)
    everything_is_expected(node)


@pytest.mark.parametrize("number", NO_NUMBERS)
def test_a_record_of_namespaces_with_a_cookie_that_is_none(node: Node, number: str) -> None:
    node.apply(veth())
    record = Path("/run/nkform/w/namespaces")
    lines = [line.split(" ") for line in record.read_text().splitlines()]
    record.write_text("".join(f"{boot} {number} {name}\n" for boot, _, name in lines))
    everything_is_expected(node)


def test_a_note_of_a_guardian_that_nests_deep(node: Node) -> None:
    node.apply(veth())
    (record,) = Path("/run/nkform").rglob("namespaces")
    note = record.with_name("guardian")
    note.write_text(DEEP)
    note.chmod(0o600)
    for command in ("status", "show", "confirm", "recover"):
        expected(node.run(command))
    expected(node.run("plan", str(node.path)))
    expected(node.run("apply", "-y", str(node.path)))
