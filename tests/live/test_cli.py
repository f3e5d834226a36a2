"""The command line as scripts and people meet it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nkform.kernel import rundir
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, link, links
from tests.live.test_pairs import veth
from tests.sizes import SIZES


def test_exit_codes_of_plan(node: Node) -> None:
    assert node.plan(veth()).code == 0
    assert node.plan(veth(), "--detailed-exitcode").code == 2
    node.apply(veth())
    assert node.plan(veth(), "--detailed-exitcode").code == 0
    assert node.plan({"version": 1}, "--detailed-exitcode").code == 1
    assert node.run("plan").code == 1
    assert node.run("no-such-command").code == 1


def test_a_plan_reads_like_terraform(node: Node) -> None:
    out = node.plan(veth()).out
    assert "+ device to-a" in out
    assert "# device.to-a will be created" in out
    assert out.endswith("Plan: 4 to add, 0 to change, 0 to destroy.\n")
    assert node.plan(veth(), "--summary").out == "Plan: 4 to add, 0 to change, 0 to destroy.\n"
    assert "Apply complete! Objects: 4 added, 0 changed, 0 destroyed." in node.apply(veth()).out
    assert node.plan(veth()).out.startswith("No changes.")
    spec = veth()
    spec["devices"]["to-a"]["mtu"] = 1400
    assert "~ mtu = 1500 -> 1400" in node.plan(spec).out


def test_nothing_changes_without_a_yes(node: Node) -> None:
    """In a process of its own, without a terminal."""
    node.write(veth())
    words = [sys.executable, "-m", "nkform", "apply", str(node.path)]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 1
    assert "NK0603" in done.stderr
    assert "-y" in done.stderr
    assert links() == set()


def test_target_changes_only_that_device(node: Node) -> None:
    node.write(veth())
    assert node.run("apply", "-y", str(node.path), "--target", "to-a").code == 0
    assert links() == {"to-a"}
    assert node.changes(None, "--target", "to-a") == []
    assert {c["name"] for c in node.changes()} == {"b", "to-b"}
    assert "NK0407" in node.refused(veth(), "--target", "nowhere")
    assert "did you mean to-a?" in node.refused(veth(), "--target", "to_a")


def test_a_node_that_has_no_more_than_programs_is_known(node: Node) -> None:
    """Nothing is on record of it after going back."""
    ip("link", "add", "nic0", "type", "veth", "peer", "name", "far")
    for hook in ("ingress", "egress"):
        device = {"kind": "external", "programs": {hook: ["count"]}}
        programs = {"count": {"template": "counters"}}
        node.apply({"version": 1, "node": "w", "programs": programs, "devices": {"nic0": device}})
    assert node.run("rollback", "-y").code == 0
    for command in ("show", "status"):
        outcome = node.run(command)
        assert outcome.code == 0, outcome.err
        assert "ingress" in outcome.out


def test_a_target_that_the_spec_has_no_more_is_destroyed(node: Node) -> None:
    node.apply(veth())
    spec = veth()
    for name in ("to-a", "to-b"):
        del spec["devices"][name]
    node.write(spec)
    outcome = node.run("apply", "-y", str(node.path), "--target", "to-a")
    assert outcome.code == 0, outcome.err
    assert "to-a" not in links()
    assert "to-b" in links()


def test_json_is_whole(node: Node) -> None:
    plan = node.plan(veth(), "--json").json()
    assert plan["summary"] == {"add": 4, "change": 0, "destroy": 0}
    assert {c["kind"] for c in plan["changes"]} == {"namespace", "device"}
    node.apply(veth())
    assert json.loads(node.run("show", "--json").out)["node"] == "w"


def test_show_needs_a_name_where_there_are_several(node: Node) -> None:
    assert "NK0605" in node.run("show").err
    node.apply(veth())
    other = {"version": 1, "node": "v", "devices": {"x": {"kind": "veth", "peer": {"name": "y"}}}}
    node.apply(other)
    assert "NK0604" in node.run("show").err
    assert "to-a" in node.run("show", "--node", "w").out
    assert node.changes(node.run("show", "--node", "v").out) == []
    assert node.run("destroy", "-y", "--node", "w").code == 0
    assert links() == {"x", "y"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rollback", "ok.yaml"), "nkform rollback: error: unrecognized arguments: ok.yaml; name a node with --node"),
        (("status", "--all"), "nkform status: error: unrecognized arguments: --all"),
        (("apply", "-o", "x"), "nkform apply: error: unrecognized arguments: -o"),
    ],
)
def test_a_word_too_many_is_told_with_the_usage_of_its_command(node: Node, words: tuple[str, ...], said: str) -> None:
    outcome = node.run(*words)
    assert outcome.code == 1
    assert outcome.err.startswith(f"usage: nkform {words[0]} ")
    assert outcome.err.splitlines()[-1] == said


def test_destroy_says_what_goes_and_when_there_is_nothing(node: Node) -> None:
    node.apply(veth())
    out = node.destroy().out
    assert "will be destroyed\n" in out
    assert "because" not in out
    assert node.destroy().out == "Nothing to destroy: nothing here belongs to w.\n"


def test_a_plan_of_what_destroy_removes(node: Node) -> None:
    node.apply(veth())
    planned = node.plan({"version": 1, "node": "w"}, "--destroy", "--detailed-exitcode")
    assert planned.code == 2
    changes = node.plan(None, "--destroy", "--json").json()["changes"]
    assert {(change["operation"], change["name"]) for change in changes} == {
        ("destroy", name) for name in ("to-a", "to-b", "a", "b")
    }
    assert links() == {"to-a", "to-b"}
    assert planned.out == node.destroy().out.partition("\n\nDestroy complete")[0] + "\n"
    assert node.plan(None, "--destroy", "--detailed-exitcode").code == 0
    for words in (("-o", "x.plan"), ("--target", "to-a"), ("--adopt",)):
        assert "NK0602" in node.plan(None, "--destroy", *words).err


def test_going_back_says_that_things_were_not_there_before(node: Node) -> None:
    node.apply(veth())
    out = node.run("rollback", "-y").out
    for what in ("device.to-a", "namespace.a"):
        assert f"# {what} will be destroyed (because it was not there before)" in out


ON_A_NODE = (("show",), ("status",), ("destroy", "-y"), ("destroy",))
"""The commands that look at a node by its name, or change it."""


@pytest.mark.parametrize("words", ON_A_NODE, ids=" ".join)
@pytest.mark.parametrize("name", ["worker-2", "../w", ""])
def test_a_node_that_is_not_there_is_an_error_that_names_those_that_are(
    node: Node, words: tuple[str, ...], name: str
) -> None:
    outcome = node.run(*words, "--node=worker-2")
    assert outcome.code == 1
    assert "NK0605" in outcome.err
    node.apply(veth())
    node.apply({"version": 1, "node": "v", "namespaces": {"alone": {"create": True}}})
    outcome = node.run(*words, f"--node={name}")
    assert outcome.code == 1
    assert outcome.out == ""
    if name or words[0] != "destroy":
        assert "NK0605" in outcome.err
        assert "v, w" in outcome.err
    assert sorted(path.name for path in Path("/run/nkform").iterdir() if not path.name.startswith("@")) == ["v", "w"]


def test_a_node_of_which_there_are_only_records_is_said_to_be_one(node: Node) -> None:
    node.write(veth())
    node.run("apply", "-y", str(node.path), "--confirm", "1s", "--detach")
    until(lambda: links() == set() and rundir.stamp("w", "unconfirmed") is None)
    hint = "hint: nothing here carries a mark of nkform; of w there are only records"
    assert hint in node.run("status", "--node", "nobody").err


@pytest.mark.parametrize("words", ON_A_NODE[:3], ids=" ".join)
@pytest.mark.parametrize("left", ["records", "pins", "marks"])
def test_a_node_that_has_but_little_left_is_known(node: Node, words: tuple[str, ...], left: str) -> None:
    spec = veth()
    if left == "pins":
        spec["programs"] = {"count": {"template": "counters"}}
        spec["devices"] = {"far": {"kind": "external", "programs": {"ingress": ["count"]}}}
        spec.pop("namespaces", None)
        ip("link", "add", "far", "type", "veth", "peer", "name", "away")
    node.apply(spec)
    if left == "records":
        for name in links():
            ip("link", "del", name)
        for name in ("a", "b"):
            ip("netns", "del", name)
    else:
        shutil.rmtree("/run/nkform/w")
    outcome = node.run(*words, "--node", "w")
    assert outcome.code == 0, outcome.err


def test_a_node_that_has_a_namespace_only_is_one_of_several(node: Node) -> None:
    node.apply(veth())
    node.apply({"version": 1, "node": "v", "namespaces": {"alone": {"create": True}}})
    assert "NK0604" in node.run("show").err
    assert "NK0604" in node.run("status").err


def test_a_plan_right_after_many_devices_came_up(node: Node) -> None:
    """The kernel is still giving links their addresses then, and interrupts whoever lists them."""
    device = {"kind": "veth", "addresses": ["169.254.1.1/32", "fe80::1/64"]}
    devices = {f"v{number}": {**device, "peer": {"name": f"p{number}"}} for number in range(SIZES.many_pairs)}
    node.apply({"version": 1, "node": "w", "devices": devices})
    for _ in range(5):
        assert node.changes() == []


@pytest.mark.parametrize("drift", [("mtu", "1300"), ("txqueuelen", "7"), ("alias", "nkform:w"), ("down",)])
def test_drift_is_found_and_mended(node: Node, drift: tuple[str, ...]) -> None:
    from tests.live.helpers.support import ip

    spec = veth()
    spec["devices"]["to-a"]["txqlen"] = 1000
    node.apply(spec)
    ip("link", "set", "eth0", *drift, namespace="a")
    changes = node.changes()
    assert [c["operation"] for c in changes] == ([] if drift[0] == "alias" else ["update"])
    node.apply(spec)
    assert link("eth0", "a")["mtu"] == 1500


@pytest.mark.parametrize("change", ["rename", "move"])
def test_a_peer_that_the_workload_took_elsewhere_is_found(node: Node, change: str) -> None:
    from tests.live.helpers.support import ip

    node.apply(veth())
    if change == "rename":
        ip("link", "set", "eth0", "down", namespace="a")
        ip("link", "set", "eth0", "name", "wan", namespace="a")
    else:
        ip("netns", "add", "c")
        ip("link", "set", "eth0", "netns", "c", namespace="a")
    assert [c["operation"] for c in node.changes()] == ["update"]
    node.apply(veth())
    assert links("a") == {"eth0"}
