"""Maps that a spec fills have their entries again after what fails, is killed, or is regretted."""

from __future__ import annotations

import copy
import errno
import signal
from typing import Any

import pytest

from nkform.apply import chains as carried_out_chains
from nkform.apply import maps as carried_out
from nkform.kernel.error import KernelError
from tests.live.helpers.attack import die, in_child
from tests.live.helpers.chain_sites import DEVICE, OPEN, OTHER, SHUT, Packets, Site, everywhere
from tests.live.helpers.support import Node, link
from tests.live.test_chains_maps import PORT, failing_late, meddle, ports, ports_spec, undone

pytestmark = pytest.mark.usefixtures("made_once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere(metafunc)


def test_a_failure_restores_the_entries(node: Node, site: Site, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a map that was changed in place, of a program that was replaced, of one that moved."""
    node.apply(ports_spec(site, engine, [SHUT], ["count", "set", "extra"]))
    before = [(each.name, each.digest, each.program_id) for each in site.running()]
    changed = (
        ports_spec(site, engine, [OTHER], ["count", "set", "extra"]),
        ports_spec(site, engine, [OTHER], ["count", "set", "extra"], inverted=True),
        ports_spec(site, engine, [OTHER], ["set", "count", "extra"]),
        ports_spec(site, engine, [OTHER], []),
    )
    with Packets(site) as packets:
        assert packets.passing() == {OPEN}
        for spec in changed:
            with failing_late(monkeypatch):
                undone(node.refused(spec, command="apply"))
            assert [(each.name, each.digest, each.program_id) for each in site.running()] == before
            assert ports(site) == {SHUT}
            assert packets.passing() == {OPEN}


@pytest.mark.parametrize("step", ["map_update_many", "map_delete_many"])
def test_a_failure_within_a_change_restores_the_entries(
    node: Node, site: Site, engine: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(ports_spec(site, engine, [1, 2, SHUT]))
    genuine = getattr(carried_out, step)

    def failing(fd: int, some: Any, info: Any = None) -> None:
        if some:
            monkeypatch.setattr(carried_out, step, genuine)
            first = next(iter(some))
            genuine(fd, {first: some[first]} if isinstance(some, dict) else [first], info)
            raise KernelError(errno.ENOMEM, "change a map")

    monkeypatch.setattr(carried_out, step, failing)
    undone(node.refused(ports_spec(site, engine, [3, 4, SHUT]), command="apply"))
    assert ports(site) == {1, 2, SHUT}


def test_a_pair_that_is_made_anew_has_its_entries(
    node: Node, site: Site, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when something fails after that, the old pair is back with those that it had, whoever had put them there."""
    spec = ports_spec(site, engine, [SHUT])
    spec["devices"] = {"z0": {"kind": "veth", "peer": {"name": "eth1", "namespace": "a"}}, **spec["devices"]}
    node.apply(spec)
    index = link(DEVICE)["ifindex"]
    meddle(site, "set", "ports", [PORT.pack(7)])
    anew = copy.deepcopy(spec)
    anew["devices"]["z0"]["peer"]["name"], anew["devices"][DEVICE]["peer"]["name"] = "eth0", "eth1"
    anew["devices"] = dict(reversed(anew["devices"].items()))
    anew["programs"]["set"]["params"] = {"ports": [OTHER]}
    if site.kind == "netkit":
        anew["devices"][DEVICE]["mode"] = "l3" if site.mode == "l2" else "l2"
        for end in (anew["devices"][DEVICE], anew["devices"][DEVICE]["peer"]):
            end.pop("mac", None)
    with failing_late(monkeypatch):
        undone(node.refused(anew, command="apply"))
    assert ports(site) == {SHUT, 7}
    del spec["devices"][DEVICE]
    with failing_late(monkeypatch):
        undone(node.refused(spec, command="apply"))
    assert ports(site) == {SHUT, 7}
    node.apply(anew)
    assert link(DEVICE)["ifindex"] != index
    assert ports(site) == {OTHER}


@pytest.mark.parametrize("twice", [False, True], ids=["one", "two"])
def test_going_back_restores_the_entries(node: Node, site: Site, engine: str, twice: bool) -> None:
    """After a run that was killed anywhere, and after one that is regretted: of one list, and of two at once."""

    def spec(first: list[int], second: list[int]) -> dict[str, Any]:
        made = ports_spec(site, engine, first, ["count", "set", "set2"])
        made["programs"]["set2"]["params"] = {"ports": second}
        return made

    node.apply(spec([SHUT, 1], [OTHER]))
    meddle(site, "set", "ports", [PORT.pack(7)])
    counted, changed = site.counted(), spec([2, 3], [4] if twice else [OTHER])
    for way in ("recover", "rollback"):
        node.write(changed)
        if way == "recover":
            assert in_child(lambda: killed_within(node)) == -signal.SIGKILL
            assert twice or ports(site) != {SHUT, 1, 7}
        else:
            node.apply()
        outcome = node.run(way, "-y")
        assert outcome.code == 0, outcome.err
        assert (ports(site), ports(site, "set2")) == ({SHUT, 1, 7}, {OTHER})
        assert site.order() == "count set set2"
        assert site.counted() >= counted
    with Packets(site) as packets:
        assert packets.passing() == {OPEN}


def killed_within(node: Node) -> None:
    """The process dies where a list is about to lose its old entries, or a program to go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carried_out, "map_delete_many", lambda _, some, __: die() if some else None)
        for way in (carried_out_chains.Links, carried_out_chains.Filters):
            patch.setattr(way, "detach", lambda *_: die())
        node.run("apply", "-y", str(node.path))
