"""What was taken over is as it was once that is taken back, whatever it was."""

from __future__ import annotations

import os
from itertools import product
from typing import Any

import pytest

from nkform.apply import transaction
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, ip
from tests.live.test_carried import wrong

STATES = list(product((False, True), repeat=2))


@pytest.mark.parametrize("renamed", [False, True], ids=["", "renamed"])
@pytest.mark.parametrize("moved", [False, True], ids=["", "moved"])
def test_an_adoption_is_taken_back(node: Node, renamed: bool, moved: bool) -> None:
    """A pair whose ends are up or down, addressed or not, that gets another name or place."""
    ip("netns", "add", "web")
    ip("netns", "add", "other")
    before = netstate_snapshot()
    for (host_up, far_up), (wanted, far_wanted) in product(STATES, STATES):
        ip("link", "add", "v0", "type", "veth", "peer", "name", "eth9", "netns", "web")
        if wanted or far_wanted:
            ip("addr", "add", "10.7.0.1/24", "dev", "v0")
            ip("addr", "add", "10.7.0.2/24", "dev", "eth9", namespace="web")
        if host_up:
            ip("link", "set", "v0", "up")
        if far_up:
            ip("link", "set", "eth9", "up", namespace="web")
        there = netstate_snapshot()
        peer: dict[str, Any] = {
            "name": "eth0" if renamed else "eth9",
            "namespace": "other" if moved else "web",
            "up": far_wanted,
        }
        device = {"kind": "veth", "up": wanted, "peer": peer}
        spec = {"version": 1, "node": "w", "namespaces": {"web": {}, "other": {}}, "devices": {"v0": device}}
        node.apply(spec, "--adopt")
        outcome = node.run("rollback", "-y")
        what = (host_up, far_up, wanted, far_wanted)
        assert outcome.code == 0, (what, outcome.err)
        assert differences(there, netstate_snapshot()) == [], what
        ip("link", "del", "v0")
        node.destroy()
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize("peer", ["v0", "zz0"])
def test_the_other_end_of_another_nodes_pair_is_not_taken_over(node: Node, peer: str) -> None:
    """Its mark is at the primary."""
    node.apply({"version": 1, "node": "other", "devices": {"v0": {"kind": "veth", "peer": {"name": "w1"}}}})
    before = netstate_snapshot()
    made = {"version": 1, "node": "w", "devices": {"w1": {"kind": "veth", "peer": {"name": peer}}}}
    for words in ([], ["--adopt"]):
        assert "NK0411" in node.refused(made, "-y", *words, command="apply")
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize("ended", ["rolled back", "undone"])
def test_what_somebody_wrote_where_the_mark_goes_comes_back(
    node: Node, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interface alias of a device, and of a namespace's `lo`; also one that is no text."""
    ip("netns", "add", "web")
    ip("link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", "web")
    ip("link", "set", "v0", "alias", "uplink of corp")
    ip("link", "set", "lo", "alias", os.fsdecode(b"corp \xff"), namespace="web")
    before = netstate_snapshot()
    device = {"kind": "veth", "up": False, "peer": {"name": "eth0", "namespace": "web"}}
    made = {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": {"v0": device}}
    if ended == "undone":
        monkeypatch.setattr(transaction, "_verify", wrong)
        assert "NK0505" in node.refused(made, "--adopt", command="apply")
    else:
        node.apply(made, "--adopt")
        assert differences(before, netstate_snapshot()) != []
        assert node.run("rollback", "-y").code == 0
    assert differences(before, netstate_snapshot()) == []
    assert "uplink of corp" in ip("link", "show", "dev", "v0")


ORDERS = {
    "first": ["10.7.0.5/24", "10.7.0.6/24"],
    "for some time, first": ["10.7.0.5/24 valid_lft 3600 preferred_lft 3600", "10.7.0.6/24"],
    "for some time": ["10.7.0.6/24", "10.7.0.5/24 valid_lft 3600 preferred_lft 3600", "10.7.0.7/24"],
    "with a far end in its subnet": ["10.7.0.5 peer 10.7.0.9/24", "10.7.0.6/24"],
    "with a far end elsewhere": ["10.7.0.5 peer 10.7.1.9/24", "10.7.1.6/24"],
    "behind one for some time": ["10.7.0.4/24 valid_lft 3600 preferred_lft 3600", "10.7.0.5/24"],
    "ipv6": ["fd07::5/64 nodad", "fd07::6/64 nodad valid_lft 3600 preferred_lft 3600"],
}


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
@pytest.mark.parametrize("lines", ORDERS.values(), ids=ORDERS.keys())
@pytest.mark.parametrize("ended", ["rolled back", "undone"])
def test_addresses_that_were_taken_over_have_their_places_again(
    node: Node, lines: list[str], up: bool, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets leave with the first one of a subnet (IPv6: the last)."""
    ip("link", "add", "v0", "type", "veth", "peer", "name", "p0")
    for line in lines:
        ip("addr", "add", *line.split(), "dev", "v0")
    ip("link", "set", "v0", "up")
    ip("link", "set", "p0", "up")

    def order() -> list[str]:
        shown = ip("addr", "show", "dev", "v0").splitlines()
        return [line.strip() for line in shown if "inet" in line and "fe80" not in line]

    before = order()
    taken = ["10.7.0.5/24"] if "." in lines[0] else ["fd07::5/64"]
    device = {"kind": "veth", "up": up or ":" in taken[0], "peer": {"name": "p0"}, "addresses": taken}
    made = {"version": 1, "node": "w", "devices": {"v0": device}}
    if ended == "undone":
        monkeypatch.setattr(transaction, "_verify", wrong)
        assert "NK0505" in node.refused(made, "--adopt", command="apply")
    else:
        node.apply(made, "--adopt")
        assert node.run("rollback", "-y").code == 0
    assert order() == before
