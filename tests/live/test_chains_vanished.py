"""Devices with programs of ours that go, or get another name, without nkform: nothing of ours is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nkform.kernel import bpf, bpffs
from nkform.kernel.bpf_links import AttachType, link_detach, link_info, open_link, query
from nkform.kernel.bpf_programs import prog_load
from nkform.kernel.descriptors import Owned
from tests.live.helpers.bpf_programs import returns
from tests.live.helpers.chain_sites import CLSACT_INGRESS, NODE, TEMPLATES, Site, pins, sites
from tests.live.helpers.support import Node, ip, link, links, needs

pytestmark = pytest.mark.usefixtures("made_once")

LINKED = [site for site in sites() if "clsact" not in str(site.id)]


def external(*devices: str, attach: str = "auto") -> dict[str, Any]:
    return {
        "version": 1,
        "node": NODE,
        "templates": [TEMPLATES],
        "programs": {"count": {"template": "counters"}},
        "devices": {
            name: {"kind": "external", "attach": attach, "programs": {"ingress": ["count"]}} for name in devices
        },
    }


def folders() -> list[str]:
    """What is left below the folders of pins."""
    return [name for top in (bpffs.FOLDER, bpffs.HELD) for name in bpffs.nodes() if bpffs.has_node(name, top=top)]


@pytest.mark.parametrize("site", LINKED)
@pytest.mark.parametrize("command", ["destroy", "apply", "rollback"])
def test_pins_of_a_vanished_pair_go_with_the_next_run(node: Node, site: Site, command: str) -> None:
    node.apply(site.spec(None))
    node.apply(site.spec(["count", "guard"]))
    assert len(pins()) == 2
    ip("link", "del", "x")
    if command == "destroy":
        node.run("destroy", "-y", "--node", NODE)
    elif command == "rollback":
        assert node.run("rollback", "-y").code == 0
        assert pins() == []
        return
    else:
        spec = site.spec(None)
        del spec["devices"]["x"]
        del spec["namespaces"]
        node.write(spec)
        assert node.run("apply", "-y", str(node.path)).code == 0
        node.run("destroy", "-y", "--node", NODE)
    assert (pins(), folders()) == ([], [])


@needs("tcx")
def test_pins_of_a_vanished_external_device_go_too(node: Node) -> None:
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    node.apply(external("v9"))
    ip("link", "del", "v9")
    assert node.run("destroy", "-y", "--node", NODE).code == 0
    assert (pins(), folders()) == ([], [])


@needs("tcx")
def test_a_link_that_somebody_detached_leaves_no_pin(node: Node) -> None:
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    node.apply(external("v9"))
    (pin,) = bpffs.pins(NODE)
    with Owned(open_link(pin.path())) as opened:
        link_detach(opened)
    assert node.run("destroy", "-y", "--node", NODE).code == 0
    assert (pins(), folders()) == ([], [])


@needs("tcx")
def test_what_others_put_among_our_pins_stays_and_is_in_nobodys_way(node: Node) -> None:
    """No link, or no pin at all."""
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    node.apply(external("v9"))
    (pin,) = bpffs.pins(NODE)
    folder = Path(pin.path()).parent
    folder.joinpath("folder").mkdir()
    with Owned(prog_load(returns(-1), "theirs")) as fd:
        bpf.pin(fd, folder / "theirs")
        bpf.pin(fd, folder / f"count@{'a' * 16}@1@1")
    changed = external("v9")
    changed["devices"]["v9"]["programs"]["egress"] = ["count"]
    node.apply(changed)
    destroyed = node.run("destroy", "-y", "--node", NODE)
    assert destroyed.code == 0, destroyed.err
    assert query(link("v9")["ifindex"], AttachType.TCX_INGRESS).entries == ()
    assert {entry.name for entry in folder.iterdir()} == {"folder", "theirs", f"count@{'a' * 16}@1@1"}


@needs("tcx")
@pytest.mark.parametrize("another", [False, True], ids=["alone", "beside another"])
def test_programs_go_from_a_device_that_is_in_another_namespace_by_now(node: Node, another: bool) -> None:
    """Also where a device here has the number that it has there."""
    ip("netns", "add", "b")
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    ip("link", "add", "v7", "type", "veth", "peer", "name", "v7p")
    node.apply(external("v9", *(["v7"] if another else [])))
    (pin,) = (pin for pin in bpffs.pins(NODE) if pin.device == "v9")
    opened = open_link(pin.path())
    ip("link", "set", "v9", "netns", "b")
    ip("link", "add", "v5", "index", str(link_info(opened).ifindex), "type", "veth", "peer", "name", "v5p")
    destroyed = node.run("destroy", "-y", "--node", NODE)
    with Owned(opened):
        assert link_info(opened).ifindex == 0
    assert (destroyed.code, pins(), folders()) == (0, [], [])
    assert destroyed.err.count("NK0429") == 1


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
@pytest.mark.parametrize("way", [pytest.param("auto", marks=needs("tcx")), "tc"])
def test_programs_stay_known_when_their_device_gets_another_name(node: Node, way: str, taken: bool) -> None:
    """Also where another device has the old name by now."""
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    node.apply(external("v9", attach=way))
    ip("link", "set", "v9", "down")
    ip("link", "set", "v9", "name", "v8")
    if taken:
        ip("link", "add", "v9", "type", "veth", "peer", "name", "v9q")
    (before,) = running("v8", way)
    assert (len(node.changes(external("v8", attach=way))), running("v8", way)) == (0, [before])
    node.apply(external("v8", attach=way))
    node.apply(external("v8", *(["v9"] if taken else []), attach=way))
    assert running("v8", way) == [before]
    destroyed = node.run("destroy", "-y", "--node", NODE)
    assert destroyed.code == 0, destroyed.err
    assert (running("v8", way), pins(), folders()) == ([], [], [])
    assert "v8" in links()


def running(device: str, way: str) -> list[int]:
    site = CLSACT_INGRESS if way == "tc" else TCX
    return [each.program_id for each in site.running(device, "ingress")]


TCX = Site("tcx-ingress", "external", "ingress", "", AttachType.TCX_INGRESS)


@pytest.mark.parametrize("site", LINKED)
def test_a_pair_of_ours_that_got_another_name_leaves_nothing(node: Node, site: Site) -> None:
    node.apply(site.spec(["count"]))
    ip("link", "set", "x", "down")
    ip("link", "set", "x", "name", "y")
    node.apply(site.spec(["count"]))
    assert "y" not in links()
    assert len(pins()) == 1
    node.destroy()
    assert (pins(), folders()) == ([], [])
