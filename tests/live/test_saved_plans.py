"""A plan in a file is carried out as it was looked at, or refused with what has changed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nkform.data import data_path
from tests.live.helpers import isolation
from tests.live.helpers.chain_sites import TCX_INGRESS, Others
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, links, needs
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")


@pytest.fixture
def plan(node: Node, tmp_path: Path) -> Path:
    """A saved plan that makes the pairs of `veth`, with a change of one that is there."""
    old = veth()
    old["devices"]["to-a"]["mtu"] = 1400
    del old["devices"]["to-b"]
    node.apply(old)
    path = tmp_path / "node.plan"
    outcome = node.plan(veth(), "-o", str(path))
    assert outcome.code == 0, outcome.err
    assert str(path) in outcome.out
    return path


def refused(node: Node, plan: Path) -> str:
    before = links()
    outcome = node.run("apply", str(plan))
    assert outcome.code == 1, outcome.out
    assert "Traceback" not in outcome.err
    assert links() == before
    return outcome.err


def test_a_saved_plan_is_carried_out_without_the_spec(node: Node, plan: Path) -> None:
    node.path.unlink()
    outcome = node.run("apply", str(plan))
    assert outcome.code == 0, outcome.err
    assert "1 changed" in outcome.out
    assert node.changes(veth()) == []
    assert "NK0620" in refused(node, plan), "a plan is good for once"


def test_it_says_what_is_drift(node: Node, tmp_path: Path) -> None:
    node.apply(veth())
    ip("link", "set", "to-a", "mtu", "1400")
    path = tmp_path / "node.plan"
    assert node.plan(veth(), "-o", str(path)).code == 0
    (change,) = json.loads(path.read_text())["changes"]
    assert [(field["path"], field["drift"]) for field in change["fields"]] == [(["mtu"], True)]
    assert node.run("apply", str(path)).code == 0


def test_it_is_readable_by_its_owner_alone_and_matches_its_schema(plan: Path, node: Node) -> None:
    assert plan.stat().st_mode & 0o777 == 0o600
    schema = json.loads(data_path("schemas/plan.v1.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(json.loads(plan.read_text()))
    validator.validate(node.plan(veth(), "--json").json())
    assert not validator.is_valid({**json.loads(plan.read_text()), "actions": [{"type": "RemoveEverything"}]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda: ip("link", "set", "to-a", "mtu", "1300"), ("mtu", "1400", "1300")),
        (lambda: ip("addr", "add", "192.0.2.9/32", "dev", "to-a"), ("addresses", "192.0.2.9/32")),
        (lambda: ip("link", "delete", "to-a"), ("to-a", "is gone")),
        (lambda: (ip("netns", "delete", "a"), until(lambda: "to-a" not in links())), ("a",)),
        (lambda: ip("link", "set", "to-a", "alias", "other"), ("owner", "w")),
    ],
)
def test_a_stale_plan_says_what_changed(
    node: Node, plan: Path, change: Callable[[], Any], said: tuple[str, ...]
) -> None:
    change()
    error = refused(node, plan)
    assert "NK0620" in error
    for word in said:
        assert word in error, error


def test_things_of_others_beside_ours_do_not_make_it_stale(node: Node, plan: Path) -> None:
    ip("link", "add", "theirs", "type", "veth", "peer", "name", "theirs2")
    assert node.run("apply", str(plan)).code == 0


@needs("tcx")
def test_a_chain_that_somebody_changed_makes_it_stale(node: Node, tmp_path: Path) -> None:
    node.apply(TCX_INGRESS.spec(["count"]))
    path = tmp_path / "chain.plan"
    assert node.plan(TCX_INGRESS.spec(["guard", "count"]), "-o", str(path)).code == 0
    others = Others()
    try:
        others.attach(TCX_INGRESS, "theirs", 20000)
        error = node.run("apply", str(path)).err
        assert "NK0620" in error
        assert "the programs at the hook peer of device x are not those that they were" in error
        assert "[count, theirs" in error
    finally:
        others.close()


def edited(data: dict[str, Any]) -> None:
    data["actions"] = []


def edited_basis(data: dict[str, Any]) -> None:
    data["basis"]["desired"]["devices"]["to-a"]["attrs"]["mtu"] = 9000


@pytest.mark.parametrize("edit", [edited, edited_basis, lambda data: data.pop("checksum"), lambda data: data.clear()])
def test_an_edited_plan_is_refused(node: Node, plan: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(plan.read_text())
    edit(data)
    plan.write_text(json.dumps({"format": "nkform-plan", **data}))
    assert "NK0621" in refused(node, plan)
    plan.write_text(plan.read_text()[:-1])
    assert "NK0621" in refused(node, plan)


def test_a_plan_of_another_place_is_refused(node: Node, plan: Path) -> None:
    isolation.fresh_network()
    assert "NK0622" in refused(node, plan)


def test_a_plan_of_another_version_is_refused(node: Node, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nkform.session.saved_plans.__version__", "999")
    error = refused(node, plan)
    assert "NK0622" in error
    assert "999" in error


def test_a_plan_that_others_could_have_written_is_refused(node: Node, plan: Path) -> None:
    plan.chmod(0o622)
    assert "NK0624" in refused(node, plan)
    plan.chmod(0o600)
    os.chown(plan, 65534, 65534)
    assert "NK0624" in refused(node, plan)


def test_templates_that_changed_make_another_plan(node: Node, tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "templates"
    shutil.copytree(data_path("bpf_templates") / "counters", folder / "mine")
    shutil.copytree(data_path("bpf_templates") / "lib", folder / "lib")
    manifest = folder / "mine" / "manifest.yaml"
    manifest.write_text(manifest.read_text().replace("name: counters", "name: mine"))
    spec = TCX_INGRESS.spec(["own"])
    spec["templates"] = [str(folder)]
    spec["programs"]["own"] = {"template": "mine"}
    path = tmp_path / "own.plan"
    outcome = node.plan(spec, "-o", str(path))
    assert outcome.code == 0, outcome.err
    source = folder / "mine" / "program.bpf.c.j2"
    source.write_text(source.read_text() + "\n// another digest\nstatic const int marker = 1;\n")
    assert "NK0623" in refused(node, path)


def test_options_of_its_own_are_refused(node: Node, plan: Path) -> None:
    outcome = node.run("apply", str(plan), "--target", "to-a")
    assert outcome.code == 1
    assert "--target" in outcome.err


def test_a_link_in_place_of_the_file_is_not_followed(node: Node, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "link.plan"
    path.symlink_to(victim)
    assert node.plan(veth(), "-o", str(path)).code == 0
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
