"""A workload that has more in its namespace than nkform notes: neither a run nor the way back is held up by it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from nkform.apply.foreign_before import MOST
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, batch, ip, kinds

Spec = dict[str, Any]
RECORD = Path("/run/nkform/w")
LARGE = 1 << 20
"""More than the journal of a run that noted nothing of it. Bytes."""


def spec(kind: str, number: int) -> Spec:
    peer = {"name": "eth0", "namespace": "web", "addresses": [f"10.7.0.{number}/24"]}
    device = {"kind": kind, "addresses": [f"10.8.0.{number}/32"], "peer": peer}
    return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": {"v0": device}}


def crowd(count: int) -> list[str]:
    """Routes of the workload; returns what each begins with."""
    places = [f"11.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}" for n in range(count)]
    batch([f"route add {place}/32 dev eth0" for place in places], "web")
    return places


@pytest.mark.parametrize("kind", kinds())
def test_a_run_does_not_take_note_of_more_than_it_can(node: Node, kind: str) -> None:
    node.apply(spec(kind, 1))
    crowd(MOST + 1)
    outcome = node.apply(spec(kind, 2))
    assert "warning[NK0524]: what others have in the namespace web was not noted" in outcome.err
    assert (RECORD / "previous").stat().st_size < LARGE
    assert "10.8.0.2" in ip("addr", "show", "v0")
    node.write(spec(kind, 3))
    assert node.run("apply", "-y", "--confirm", "2s", "--detach", str(node.path)).code == 0
    until(lambda: "10.8.0.2" in ip("addr", "show", "v0"))
    until(lambda: not (RECORD / "unconfirmed").exists())
    assert "10.7.0.2" in ip("addr", "show", "eth0", namespace="web")


@pytest.mark.parametrize("kind", kinds())
def test_many_routes_have_all_again(node: Node, kind: str) -> None:
    """As many as are noted."""
    node.apply(spec(kind, 1))
    places = crowd(3_000)
    down = copy.deepcopy(spec(kind, 1))
    down["devices"]["v0"]["peer"]["up"] = False
    node.apply(down)
    assert not ip("route", "show", "root", "11.0.0.0/8", namespace="web").strip()
    assert node.run("rollback", "-y").code == 0
    there = {line.split()[0] for line in ip("route", "show", "root", "11.0.0.0/8", namespace="web").splitlines()}
    assert there == set(places)
