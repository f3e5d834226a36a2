"""Going back to programs: what is attached again is what ran, and what is on record of it is what was."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from nkform.apply.executor import Executor
from nkform.bpf import engine_clang
from nkform.kernel import libbcc
from tests.live.helpers.processes import Process, until
from tests.live.helpers.support import Node, links, pings, reaches

NEAR, FAR = "10.0.0.1", "10.0.0.2"
DROPS, PASSES = "return NK_DROP;", "return NK_PASS;"
KNOWS_ITS_DEVICE = 'return skb->ifindex == {{ fact("ifindex") }} ? NK_NEXT : NK_DROP;'


def template(folder: Path, body: str, name: str = "brake") -> str:
    """A template with this body, in a folder of templates of the user's own; the folder."""
    place = folder / "templates" / name
    place.mkdir(parents=True, exist_ok=True)
    (place / "manifest.yaml").write_text("version: 1\npurpose: x\nhooks: [primary, peer]\nmodes: [l2, l3]\n")
    (place / "program.bpf.c.j2").write_text(f'#include "packet.h"\n\n{{{{ program() }}}}\n{{\n\t{body}\n}}\n')
    return str(folder / "templates")


def half_written(folder: Path) -> None:
    """Somebody begins to write another template beside those that are used."""
    place = folder / "templates" / "draft"
    place.mkdir()
    (place / "manifest.yaml").write_text("version: 1\npurpose: x\nhooks: [peer]\nmodes: [l2]\n")


def pair(
    chain: list[Any], name: str = "v0", space: str = "web", near: str = f"{NEAR}/24", far: tuple[str, ...] = (FAR,)
) -> dict[str, Any]:
    peer = {"name": "eth0", "namespace": space, "addresses": [f"{each}/24" for each in far]}
    own = {"addresses": [near]} if near else {}
    return {name: {"kind": "veth", **own, "peer": peer, "programs": {"peer": chain}}}


def spec(devices: dict[str, Any], programs: dict[str, Any], **more: Any) -> dict[str, Any]:
    spaces = {device["peer"]["namespace"]: {"create": True} for device in devices.values()}
    declared = {"programs": programs} if programs else {}
    return {"version": 1, "node": "w", **more, "namespaces": spaces, **declared, "devices": devices}


def empty(declared: dict[str, Any]) -> dict[str, Any]:
    return {"version": 1, "node": declared["node"]}


def running(node: Node, device: str = "v0") -> list[int]:
    """The ids of the programs of a device, in order."""
    devices = {each["name"]: each for each in node.run("status", "--json").json()["devices"]}
    return [program["program_id"] for program in devices[device]["hooks"]["peer"]]


def killed_when_done(node: Node) -> None:
    """An apply of the node's spec, killed once all its actions are carried out."""
    genuine = Executor.run

    def dies(self: Executor, actions: Any) -> None:
        genuine(self, actions)
        os.kill(os.getpid(), signal.SIGKILL)

    def prepare() -> None:
        Executor.run = dies  # type: ignore[method-assign]

    assert Process("apply", "-y", str(node.path), prepare=prepare).ended() == -signal.SIGKILL


def went(node: Node, declared: dict[str, Any], way: str) -> None:
    """The node goes to a spec, by a run that can be taken back in this way."""
    node.write(declared)
    if way == "recover":
        killed_when_done(node)
        return
    words = ["--confirm", "600s", "--detach"] if way == "confirm" else []
    outcome = node.run("apply", "-y", str(node.path), *words)
    assert outcome.code == 0, outcome.err


def back(node: Node, way: str) -> None:
    outcome = node.run("recover" if way == "recover" else "rollback", "-y")
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize("way", ["rollback", "confirm", "recover"])
def test_what_ran_is_attached_again_whatever_its_template_has_become(node: Node, tmp_path: Path, way: str) -> None:
    folder = template(tmp_path, DROPS)
    declared = spec(pair(["brake"]), {"brake": {"template": "brake"}}, templates=[folder])
    node.apply(declared)
    before = running(node)
    assert not pings("web", NEAR)
    went(node, empty(declared), way)
    assert "v0" not in links()
    template(tmp_path, PASSES)
    back(node, way)
    assert not pings("web", NEAR)
    assert running(node) == before
    template(tmp_path, DROPS)
    assert node.changes(declared) == []


def test_the_guardian_attaches_what_ran(node: Node, tmp_path: Path) -> None:
    folder = template(tmp_path, DROPS)
    declared = spec(pair(["brake"]), {"brake": {"template": "brake"}}, templates=[folder])
    node.apply(declared)
    node.write(empty(declared))
    assert node.run("apply", "-y", str(node.path), "--confirm", "1s", "--detach").code == 0
    template(tmp_path, PASSES)
    until(lambda: node.run("recover", "-y").out.startswith("Nothing to recover"))
    assert "v0" in links()
    assert not pings("web", NEAR)


def test_what_knows_its_device_is_made_again_for_the_new_one(node: Node, tmp_path: Path) -> None:
    folder = template(tmp_path, KNOWS_ITS_DEVICE)
    declared = spec(pair(["brake"]), {"brake": {"template": "brake"}}, templates=[folder])
    node.apply(declared)
    assert reaches("web", NEAR)
    before = running(node)
    node.apply(empty(declared))
    half_written(tmp_path)
    back(node, "rollback")
    assert reaches("web", NEAR)
    assert running(node) != before
    (tmp_path / "templates" / "draft" / "manifest.yaml").unlink()
    assert node.changes(declared) == []


def test_what_knows_its_device_is_not_made_of_another_template(node: Node, tmp_path: Path) -> None:
    folder = template(tmp_path, KNOWS_ITS_DEVICE)
    devices = {**pair(["brake"]), **pair([], "v1", "web2", near="")}
    declared = spec(devices, {"brake": {"template": "brake"}}, templates=[folder])
    node.apply(declared)
    node.apply(empty(declared))
    template(tmp_path, PASSES)
    outcome = node.run("rollback", "-y")
    assert outcome.code == 1
    for words in ("NK0766", "brake", "v0", f"{folder}/brake"):
        assert words in outcome.err
    assert links() == {"v1"}, "nothing is in the way of the other one"
    template(tmp_path, KNOWS_ITS_DEVICE)
    back(node, "rollback")
    assert reaches("web", NEAR)
    assert node.changes(declared) == []


def test_programs_of_one_digest_keep_their_own_parameters(node: Node) -> None:
    """One guard has its prefixes from its parameters, the other one has the same from its peer's addresses."""
    explicit = {"use": "g", "params": {"prefixes": [f"{FAR}/32"]}}
    devices = {**pair([explicit], far=("10.0.0.9", "10.0.0.10")), **pair(["g"], "v1", "web2")}
    for device in devices.values():
        device["peer"]["addresses"] = [f"{each.partition('/')[0]}/32" for each in device["peer"]["addresses"]]
        device["peer"]["routes"] = [{"to": f"{NEAR}/32"}]
        device["addresses"] = []
    devices["v0"] = {**devices["v0"], "addresses": [f"{NEAR}/32"], "routes": [{"to": "10.0.0.8/29"}]}
    declared = spec(devices, {"g": {"template": "source_guard", "params": {"accepted": "pass"}}})
    node.apply(declared)
    shown = node.run("show")
    assert node.changes(shown.out) == [], shown.out
    assert f"{FAR}/32" in shown.out.partition("v1:")[0]
    assert not pings("web", NEAR)
    devices["v0"]["numtxqueues"] = 2
    node.apply(spec(devices, declared["programs"]))
    back(node, "rollback")
    assert not pings("web", NEAR)
    del devices["v0"]["numtxqueues"]
    assert node.changes(declared) == []
    assert node.changes(node.run("show").out) == []


@pytest.mark.parametrize("body", [DROPS, KNOWS_ITS_DEVICE], ids=["held", "made again"])
def test_a_node_without_a_compiler_goes_back(
    node: Node, tmp_path: Path, body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = template(tmp_path, body)
    declared = spec(pair(["brake", "count"]), {"brake": {"template": "brake"}, "count": {"template": "counters"}})
    declared["templates"] = [folder]
    objects = str(tmp_path / "objects")
    outcome = node.run("build", str(node.write(declared)), "-o", objects)
    assert outcome.code == 0, outcome.err
    monkeypatch.setattr(engine_clang, "find_compiler", lambda *_: None)
    monkeypatch.setattr(libbcc, "find", lambda *_: None)
    node.apply(declared, "--objects", objects)
    for way in ("rollback", "confirm", "recover"):
        went(node, empty(declared), way)
        back(node, way)
        assert len(running(node)) == 2
        assert node.changes(declared, "--objects", objects) == []


def test_templates_that_nothing_is_made_of_are_not_read(node: Node, tmp_path: Path) -> None:
    folder = template(tmp_path, DROPS)
    counts = {"use": "count", "as": "counted"}
    programs = {"brake": {"template": "brake"}, "count": {"template": "counters"}}
    declared = spec(pair([counts, "brake"]), programs, templates=[folder])
    node.apply(declared)
    before = running(node)
    node.apply(empty(declared))
    half_written(tmp_path)
    back(node, "rollback")
    assert running(node) == before
    status = node.run("status", "--json").json()["devices"][0]["hooks"]["peer"]
    assert status[0]["numbers"]
    assert [each["template"] for each in status] == ["counters", "brake"]


def test_maps_that_a_spec_fills_are_shown_beside_a_half_written_template(node: Node, tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "templates" / "udp_set"
    place = tmp_path / "templates" / "udp_set"
    place.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file():
            (place / file.name).write_bytes(file.read_bytes())
    declared = spec(pair(["set"]), {"set": {"template": "udp_set", "params": {"ports": [9000]}}})
    node.apply({**declared, "templates": [str(tmp_path / "templates")]})
    half_written(tmp_path)
    shown = node.run("show")
    assert "9000" in shown.out
    assert shown.err == ""


@pytest.mark.parametrize("way", ["rollback", "confirm", "recover"])
def test_what_is_there_again_can_be_shown(node: Node, way: str) -> None:
    programs = {"g": {"template": "source_guard"}, "c": {"template": "counters"}}
    declared = spec(pair(["g", "c"]), programs)
    node.apply(declared)
    before = node.run("show").out
    went(node, spec(pair(["c"]), {"c": programs["c"]}), way)
    back(node, way)
    shown = node.run("show")
    assert shown.err == ""
    assert shown.out == before
    assert node.changes(declared) == []


def test_templates_of_one_name_in_two_folders_are_told_apart(node: Node, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    programs = {"brake": {"template": "brake"}}
    first = spec(pair(["brake"]), programs, templates=[template(one, KNOWS_ITS_DEVICE)])
    second = spec(
        pair(["brake"], "v1", "web2", "10.0.5.1/24", ("10.0.5.2",)), programs, templates=[template(other, DROPS)]
    )
    node.apply(first)
    node.apply(second, "--target", "v1")
    assert len(node.run("status", "--json").json()["devices"]) == 2
    node.apply(empty(first))
    back(node, "rollback")
    assert reaches("web", NEAR)
    assert not pings("web2", "10.0.5.1")


def test_a_program_that_names_a_device_is_made_again_for_the_new_one(node: Node, tmp_path: Path) -> None:
    folder = template(tmp_path, 'return bpf_redirect({{ value("out") }}, 0);')
    manifest = tmp_path / "templates" / "brake" / "manifest.yaml"
    out = "out: {role: value, description: x, type: string, format: ifindex}"
    manifest.write_text(f"{manifest.read_text()}parameters: {{{out}}}\n")
    brake = {"template": "brake", "params": {"out": "v1"}}
    declared = spec({**pair(["brake"]), **pair([], "v1", "web2", near="")}, {"brake": brake}, templates=[folder])
    node.apply(declared)
    before = running(node)
    node.apply(spec(pair([]), {}))
    back(node, "rollback")
    assert running(node) != before, "it would send to the number of a device that is gone"
    assert node.changes(declared) == []


def test_show_says_what_one_engine_cannot(node: Node) -> None:
    devices = {**pair(["c"]), **pair(["c"], "v1", "web2", ""), **pair(["c"], "v2", "web3", "")}
    declared = spec(devices, {"c": {"template": "counters"}}, engine="bcc")
    node.apply(declared)
    node.apply({**declared, "engine": "clang"}, "--target", "v1")
    shown = node.run("show")
    assert "NK0609" in shown.err
    assert "engine: bcc" in shown.out
    assert [change["name"] for change in node.changes(shown.out)] == ["v1"]


def test_show_says_the_engine(node: Node) -> None:
    declared = spec(pair(["c"]), {"c": {"template": "counters"}}, engine="bcc")
    node.apply(declared)
    shown = node.run("show")
    assert node.changes(shown.out) == []
    node.apply({**declared, "engine": "clang"})
    shown = node.run("show")
    assert "engine" not in shown.out, "it is what nkform takes here by itself"
    assert node.changes(shown.out) == []
