"""A device goes while nkform looks, at whichever call: it is left out, and no command fails because of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from nkform.kernel import bpf, hardware, sysctl
from nkform.kernel.clsact import Tc
from nkform.kernel.descriptors import Owned
from nkform.kernel.netlink import Socket
from tests.live.helpers.chain_sites import PROGRAMS, TEMPLATES
from tests.live.helpers.support import Node, ip, links, needs, sh
from tests.sizes import CAMPAIGN

pytestmark = [pytest.mark.usefixtures("made_once"), needs("tcx")]

SPEC: dict[str, Any] = {
    "version": 1,
    "node": "ev",
    "templates": [TEMPLATES],
    "namespaces": {"a": {"create": True}},
    "programs": {name: dict(PROGRAMS[name]) for name in ("count", "set")},
    "devices": {
        "v0": {
            "kind": "veth",
            "addresses": ["10.0.0.1/24"],
            "sysctl": {"ipv4": {"rp_filter": 0}},
            "peer": {"name": "eth0", "namespace": "a", "addresses": ["10.0.0.2/24"]},
            "programs": {"peer": ["count", "set"], "primary": ["count"]},
        },
        "t0": {"kind": "veth", "attach": "tc", "peer": {"name": "t1"}, "programs": {"peer": ["count", "set"]}},
        "ext": {"kind": "external", "optional": True, "programs": {"ingress": ["count"]}},
        "w0": {"kind": "veth", "peer": {"name": "w1"}, "programs": {"peer": ["set"]}},
    },
}
CALLS = [(bpf, "call"), (Socket, "ask"), (Socket, "dump"), (Tc, "filters"), (hardware, "framing"), (sysctl, "read")]

Goes = Callable[..., str]

SPACING = 1 if CAMPAIGN else 5
"""Of so many places one is struck in each test; all of them make it several minutes."""


@contextmanager
def at(place: int, act: Callable[[], None]) -> Iterator[list[str]]:
    """Within the block something happens right before the call of that number; what was called."""
    made: list[str] = []

    def counted(name: str, genuine: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any, **named: Any) -> Any:
            made.append(name)
            if len(made) == place + 1:
                act()
            return genuine(*words, **named)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in CALLS:
            patch.setattr(owner, name, counted(name, getattr(owner, name)))
        yield made


@pytest.fixture
def goes() -> Iterator[Goes]:
    """Runs ip in the namespace of the test, whichever nkform is in at the moment."""
    with Owned(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)) as home:
        yield lambda *words: sh("nsenter", f"--net=/proc/{os.getpid()}/fd/{home}", "ip", *words)


WAYS = {
    "pair": ["link", "del", "dev", "v0"],
    "filtered pair": ["link", "del", "dev", "t0"],
    "external": ["link", "del", "dev", "ext"],
    "namespace": ["netns", "del", "a"],
}


@pytest.mark.parametrize("command", ["show", "status", "plan"])
@pytest.mark.parametrize("way", WAYS)
def test_a_device_that_goes_while_nkform_looks(node: Node, goes: Goes, way: str, command: str) -> None:
    node.write(SPEC)
    words = [command, "--node", "ev"] if command != "plan" else [command, str(node.path)]
    place = list(WAYS).index(way) + len(command) % SPACING
    while True:
        if "ext" not in links():
            ip("link", "add", "ext", "type", "veth", "peer", "name", "far")
        node.apply()
        with at(place, lambda: goes(*WAYS[way])) as made:
            outcome = node.run(*words)
        assert outcome.code == 0, (place, made[place], outcome.err)
        if len(made) <= place:
            break
        assert "w0" in outcome.out or command == "plan"
        place += SPACING


def test_devices_that_go_at_each_look(node: Node, goes: Goes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node whose devices come and go all the time is shown all the same."""
    names = [f"v{number}" for number in range(7)]
    node.apply({**SPEC, "devices": {name: SPEC["devices"]["w0"] | {"peer": {"name": f"{name}p"}} for name in names}})
    genuine, going = bpf.call, [*reversed(names)]

    def call(command: int, attr: Any, size: int) -> int:
        if command == bpf.Command.PROG_QUERY and len(going) > 1:
            goes("link", "del", "dev", going.pop(0))
        return genuine(command, attr, size)

    monkeypatch.setattr(bpf, "call", call)
    outcome = node.run("show")
    assert outcome.code == 0, outcome.err
    assert "v0:" in outcome.out
