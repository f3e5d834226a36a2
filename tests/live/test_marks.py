"""Whose a namespace is: a mark that its own root can write proves nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nkform.observe import owned
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Process, end_all, until
from tests.live.helpers.support import Node, ip, link, links
from tests.live.test_pairs import veth


def alias(namespace: str) -> str:
    return str(link("lo", namespace).get("ifalias", ""))


def relabel(namespace: str, text: str) -> None:
    """What root in a namespace can do."""
    ip("link", "set", "lo", "alias", text, namespace=namespace)


def names() -> set[str]:
    return {path.name for path in Path("/run/netns").iterdir()}


def changed() -> dict[str, Any]:
    spec = veth()
    for device in spec["devices"].values():
        device["mtu"] = 1400
    return spec


@pytest.fixture(autouse=True)
def _all_end() -> Iterator[None]:
    yield
    end_all()


@pytest.mark.parametrize("text", ["", "x", "nkform:other"])
def test_a_mark_that_a_workload_took_away_is_drift_that_is_mended(node: Node, text: str) -> None:
    node.apply(veth())
    relabel("a", text)
    (change,) = node.changes()
    assert (change["kind"], change["name"]) == ("namespace", "a")
    node.apply(changed())
    assert alias("a") == "nkform:w"
    relabel("a", text)
    node.destroy()
    assert names() == set()


def test_the_watch_mends_a_mark(node: Node) -> None:
    node.apply(veth())
    run = Process("watch", "--heal", "--interval", "0.2", str(node.path))
    run.hears("watching")
    relabel("a", "nkform:other")
    until(lambda: alias("a") == "nkform:w")
    os.kill(run.pid, signal.SIGTERM)
    assert run.ended() == 0


def test_a_forged_mark_deletes_no_namespace(node: Node) -> None:
    ip("netns", "add", "foreign")
    relabel("foreign", "nkform:w")
    node.apply(veth())
    assert "foreign" in names()
    run = Process("watch", "--heal", "--interval", "0.2", str(node.path))
    run.hears("watching")
    ip("link", "set", "to-a", "mtu", "1300")
    until(lambda: link("to-a")["mtu"] == 1500)
    os.kill(run.pid, signal.SIGTERM)
    assert run.ended() == 0
    assert node.run("destroy", "-y", "--node", "w").code == 0
    assert names() == {"foreign"}


def test_a_workload_in_a_namespace_of_others_cannot_make_it_ours(node: Node) -> None:
    """Although a pair of ours leads there, and it says that it is ours."""
    ip("netns", "add", "a")
    spec = veth()
    spec["namespaces"]["a"] = {}
    node.apply(spec)
    relabel("a", "nkform:w")
    assert node.changes() == []
    node.destroy()
    assert names() == {"a"}


def test_a_forged_mark_is_not_taken_for_one_that_was_made(node: Node) -> None:
    ip("netns", "add", "a")
    relabel("a", "nkform:w")
    assert "NK0412" in node.refused(veth())
    node.apply(veth(), "--adopt")
    node.destroy()
    assert names() == set()


def test_another_namespace_of_the_same_name_is_another(node: Node) -> None:
    node.apply(veth())
    ip("netns", "del", "a")
    until(lambda: "to-a" not in links())
    ip("netns", "add", "a")
    relabel("a", "nkform:w")
    assert "NK0412" in node.refused(veth())
    node.destroy()
    assert names() == {"a"}


def test_ours_are_known_where_the_record_was_lost_and_never_deleted_for_their_mark_alone(node: Node) -> None:
    node.apply(veth())
    Path("/run/nkform/w", owned.FILE).unlink()
    assert node.changes() == []  # pairs of ours lead there, and the spec says that they are ours
    Path("/run/nkform/w", owned.FILE).unlink(missing_ok=True)
    outcome = node.destroy()
    assert names() == {"a", "b"}
    assert "NK0418" in outcome.err
    assert "namespace b is left in place" in outcome.err
    again = node.destroy()
    assert "NK0418" in again.err
    assert again.out == "Nothing to destroy but what is left in place.\n"


def test_the_record_comes_back_with_the_next_apply(node: Node) -> None:
    node.apply(veth())
    Path("/run/nkform/w", owned.FILE).unlink()
    node.apply(changed())
    node.destroy()
    assert names() == set()
    assert not Path("/run/nkform/w", owned.FILE).exists()


def test_what_is_let_go_is_on_record_no_more(node: Node) -> None:
    node.apply(veth())
    spec = veth()
    spec["namespaces"]["a"] = {}
    node.apply(spec)
    assert alias("a") == ""
    assert set(owned.read("w")) == {"b"}
    node.destroy()
    assert names() == {"a"}


def test_a_failed_run_leaves_the_record_as_it_was(node: Node) -> None:
    node.apply(veth())
    before, record = netstate_snapshot(), owned.read("w")
    spec = changed()
    spec["namespaces"]["c"] = {"create": True}
    spec["devices"]["to-b"]["peer"]["routes"] = [{"to": "default", "via": "203.0.113.1"}]
    assert node.run("apply", "-y", str(node.write(spec))).code == 1
    assert differences(before, netstate_snapshot()) == []
    assert owned.read("w") == record
    relabel("a", "x")
    assert "NK0505" in node.run("apply", "-y", str(node.path)).err
    assert differences(before, netstate_snapshot()) == []
    assert owned.read("w") == record


def test_a_namespace_that_could_not_be_taken_over_is_not_on_record(node: Node) -> None:
    from tests.live.helpers.fault_injection import injected

    ip("netns", "add", "a")
    node.write(veth())
    with injected("set alias nkform:w on lo") as injection:
        outcome = node.run("apply", "-y", "--adopt", str(node.path))
    assert injection.hit
    assert outcome.code == 1
    assert owned.read("w") == {}
    assert node.run("destroy", "-y", str(node.path)).code == 0
    assert names() == {"a"}


@pytest.mark.parametrize("name", ["", ".", "..", "../evil", "../../tmp/evil", "@machine", "x" * 64])
def test_an_alias_that_names_no_node_marks_nothing(node: Node, name: str) -> None:
    """Names become parts of paths below /run/nkform."""
    ip("link", "add", "to-a", "type", "veth", "peer", "name", "far")
    ip("link", "set", "to-a", "alias", f"nkform:{name}")
    before = {*Path("/run").rglob("*"), *Path("/tmp").glob("evil*")}
    spec = veth()
    assert "NK0412" in node.refused(spec)
    assert "NK0605" in node.run("status").err
    for words in ("destroy", "-y"), ("status",), ("show",), ("confirm",), ("rollback", "-y"), ("recover", "-y"):
        outcome = node.run(*words, "--node", name)
        assert outcome.code == 1
        assert "NK0605" in outcome.err or (words[0], name) == ("destroy", "")
    assert {*Path("/run").rglob("*"), *Path("/tmp").glob("evil*")} == before
    assert "to-a" in links()
