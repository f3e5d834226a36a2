"""A VLAN of others upon an end of ours goes down with it: what others have there comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds
from tests.live.test_carried import made as make

Spec = dict[str, Any]


def spec(kind: str, *, up: bool) -> Spec:
    device: Spec = {"kind": kind, "up": up, "addresses": ["10.7.0.1/24"], "peer": {"name": "eth0", "namespace": "web"}}
    device |= {"mode": "l2"} if kind == "netkit" else {}
    return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": {"v0": device}}


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("way", ["trial", "rollback"])
def test_what_others_have_on_a_vlan_comes_back(node: Node, kind: str, way: str) -> None:
    node.apply(spec(kind, up=True))
    make("v0.5", "type", "vlan", "id", "5", lower="v0")
    for line in (
        "link set v0.5 up",
        "addr add 10.8.0.1/24 dev v0.5",
        "addr add fd08::1/64 dev v0.5 nodad",
        "route add default via 10.8.0.2 dev v0.5",
        "-6 route add fd09::/64 via fd08::2 dev v0.5",
        "neigh add 10.8.0.2 lladdr 02:00:00:00:00:09 dev v0.5 nud permanent",
    ):
        ip(*line.split())
    until(lambda: "tentative" not in ip("addr", "show", "v0.5"))
    before = netstate_snapshot()
    node.write(spec(kind, up=False))
    words = ("--confirm", "2s", "--detach") if way == "trial" else ()
    outcome = node.run("apply", "-y", str(node.path), *words)
    assert outcome.code == 0, outcome.err
    if way == "trial":
        until(lambda: "default via 10.8.0.2" in ip("route"))
        until(lambda: not Path("/run/nkform/w/unconfirmed").exists())
    else:
        assert node.run("rollback", "-y").code == 0
    assert differences(before, netstate_snapshot()) == []
    assert "10.8.0.2" in ip("neigh", "show", "nud", "permanent")
