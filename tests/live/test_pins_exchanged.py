"""Somebody renames or exchanges the pins of links: nothing is done to a link that is not the one it is meant for.

The witnesses are the kernel's own list of what each hook runs, and each pin, opened.
"""

from __future__ import annotations

import copy
import itertools
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nkform.dataclass import replace
from nkform.kernel import bpf, bpf_links, bpffs
from nkform.kernel.bpf_links import AttachType, link_info, open_link, query
from nkform.kernel.descriptors import Owned
from tests.live.helpers.bpf_programs import NEXT, program
from tests.live.helpers.chain_sites import TEMPLATES, program_name
from tests.live.helpers.support import Node, ip, needs

pytestmark = [pytest.mark.usefixtures("made_once"), needs("tcx")]

HOOKS = {"peer": AttachType.TCX_INGRESS, "primary": AttachType.TCX_EGRESS}
SPEC: dict[str, Any] = {
    "version": 1,
    "node": "ev",
    "templates": [TEMPLATES],
    "programs": {
        "a": {"template": "counters"},
        "b": {"template": "verdict", "params": {"verdict": "drop"}},
        "c": {"template": "udp_ports", "params": {"ports": [1]}},
    },
    "devices": {
        "w0": {"kind": "veth", "peer": {"name": "w1"}, "programs": {"peer": ["a"], "primary": ["b"]}},
        "x0": {"kind": "veth", "peer": {"name": "x1"}, "programs": {"peer": ["a", "b", "c"]}},
    },
}


def pin(device: str, hook: str, name: str, node: str = "ev") -> Path:
    """The pin of a program, by its name."""
    (found,) = (
        each
        for each in bpffs.pins(node)
        if (each.device, each.hook) == (device, hook) and each.entry.startswith(f"{name}@")
    )
    return Path(found.path())


def turn(*pins: Path) -> None:
    """Each pin gets the name of the next one."""
    spare = pins[0].with_name("spare")
    pins[-1].rename(spare)
    for one, other in reversed(list(itertools.pairwise(pins))):
        one.rename(other)
    spare.rename(pins[0])


def within_a_hook() -> None:
    turn(pin("x0", "peer", "a"), pin("x0", "peer", "b"))


def between_devices() -> None:
    turn(pin("x0", "peer", "b"), pin("w0", "primary", "b"))


def around() -> None:
    turn(pin("x0", "peer", "b"), pin("w0", "primary", "b"), pin("w0", "peer", "a"), pin("x0", "peer", "c"))


def moved() -> None:
    one = pin("x0", "peer", "b")
    one.rename(pin("w0", "primary", "b").with_name(one.name))


def one_lost() -> None:
    between_devices()
    pin("w0", "primary", "b").unlink()


def renamed() -> None:
    one = pin("x0", "peer", "b")
    one.rename(one.with_name("b@0@1@2"))


def over_another() -> None:
    pin("x0", "peer", "b").rename(pin("x0", "peer", "a"))


def twice() -> None:
    one, other = pin("x0", "peer", "a"), pin("w0", "peer", "a")
    other.unlink()
    other.hardlink_to(one)


WAYS = [within_a_hook, between_devices, around, moved, one_lost, renamed, over_another, twice]


def params(spec: dict[str, Any]) -> None:
    spec["programs"]["b"]["params"]["verdict"] = "pass"


def one_leaves(spec: dict[str, Any]) -> None:
    spec["devices"]["x0"]["programs"]["peer"] = ["b", "c"]


def order(spec: dict[str, Any]) -> None:
    spec["devices"]["x0"]["programs"]["peer"] = ["c", "b", "a"]


def device_goes(spec: dict[str, Any]) -> None:
    del spec["devices"]["w0"]


def replacement(spec: dict[str, Any]) -> None:
    spec["devices"]["x0"]["numtxqueues"] = 2


def nothing(spec: dict[str, Any]) -> None:
    del spec


CHANGES = [params, one_leaves, order, device_goes, replacement, nothing]


def as_declared(spec: dict[str, Any]) -> None:
    """Each hook runs as many programs as its chain has, of the templates that it names, in its order."""
    for name, device in spec["devices"].items():
        index = socket.if_nametoindex(name)
        for hook, attach_type in HOOKS.items():
            runs = [program_name(entry.prog_id) for entry in query(index, attach_type).entries]
            chain = [spec["programs"][each]["template"] for each in device["programs"].get(hook, [])]
            assert runs == chain, (name, hook)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_a_change_meets_the_links_that_it_is_meant_for(
    node: Node, way: Callable[[], None], change: Callable[[dict[str, Any]], None]
) -> None:
    node.apply(SPEC)
    way()
    spec = copy.deepcopy(SPEC)
    change(spec)
    node.apply(spec)
    as_declared(spec)
    node.apply(SPEC)
    as_declared(SPEC)
    node.destroy()
    assert not bpffs.has_node("ev")


@pytest.mark.parametrize("way", WAYS[:4])
def test_pins_that_were_only_exchanged_are_no_change(node: Node, way: Callable[[], None]) -> None:
    node.apply(SPEC)
    way()
    assert node.changes() == []
    told = node.run("status", "--node", "ev")
    assert (told.code, "not nkform" in told.out) == (0, False)


@pytest.mark.parametrize("way", WAYS)
def test_destroying_leaves_nothing(node: Node, way: Callable[[], None]) -> None:
    node.apply(SPEC)
    way()
    node.destroy()
    assert not bpffs.has_node("ev")


def test_pins_of_two_nodes_that_were_exchanged(node: Node) -> None:
    node.apply(SPEC)
    other = {**SPEC, "node": "other", "devices": {"y0": {**SPEC["devices"]["w0"], "peer": {"name": "y1"}}}}
    node.apply(other)
    turn(pin("x0", "peer", "b"), pin("y0", "primary", "b", "other"))
    changed = copy.deepcopy(other)
    params(changed)
    node.apply(changed)
    as_declared(changed)
    as_declared(SPEC)
    node.apply(SPEC)
    as_declared(SPEC)
    for name in ("ev", "other"):
        assert node.run("destroy", "-y", "--node", name).code == 0
        assert not bpffs.has_node(name)


def test_a_pin_that_holds_something_of_others_is_not_acted_by(node: Node) -> None:
    """Pinned anew under the name of ours, which no time of a file tells; the two links stay as they are."""
    node.apply(SPEC)
    path = pin("x0", "peer", "b")
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    with Owned(program(NEXT, "theirs")) as fd:
        theirs = bpf_links.link_create(fd, socket.if_nametoindex("v9"), AttachType.TCX_INGRESS)
    with Owned(open_link(path)) as ours, Owned(theirs):
        path.unlink()
        bpf.pin(theirs, path)
        before = [link_info(fd) for fd in (ours, theirs)]
        spec = copy.deepcopy(SPEC)
        params(spec)
        said = node.refused(spec, command="apply")
        assert ("ESTALE" in said, f"holds link {before[1].id}" in said, "NK0503" in said) == (True, True, False)
        assert [link_info(fd) for fd in (ours, theirs)] == before
        path.unlink()
        bpf.pin(ours, path)
    node.apply(spec)
    as_declared(spec)


def test_a_held_program_that_was_exchanged_is_not_taken_for_another(node: Node) -> None:
    node.apply(SPEC)
    spec = copy.deepcopy(SPEC)
    spec["devices"]["x0"]["programs"]["peer"] = ["c"]
    node.apply(spec)
    held = {each.entry.partition("@")[0]: each for each in bpffs.pins("ev", top=bpffs.HELD) if each.device == "x0"}
    turn(Path(held["a"].path()), Path(held["b"].path()))
    assert node.run("rollback", "-y").code == 0
    as_declared(SPEC)
    assert node.changes(SPEC) == []


def test_names_of_any_length_are_no_error(node: Node) -> None:
    node.apply(SPEC)
    one = next(each for each in bpffs.pins("ev") if each.entry.startswith("c@"))
    for name in ("n" * 240 + "@@9", "\xff" * 40 + "@@9"):
        new = replace(one, entry=name)
        Path(one.path()).rename(new.path())
        one = new
        assert node.run("plan", str(node.path)).code == 0
    node.apply(SPEC)
    as_declared(SPEC)
    node.destroy()
