"""What others lack after a run that was killed comes back, since the run may have taken it; and that is told."""

from __future__ import annotations

import pytest

from tests.live.helpers.attack import killed_after
from tests.live.helpers.support import Node, ip
from tests.live.test_going_back import changed
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")

THEIRS = ["addr add 10.20.0.1/24 dev to-a", "route add 10.21.0.0/16 via 10.20.0.2 dev to-a"]


def killed(node: Node) -> None:
    """A run that changes an address of ours on an end where others have something, and that is killed."""
    node.apply(veth())
    for line in THEIRS:
        ip(*line.split())
    spec = changed()
    spec["devices"]["to-a"]["addresses"] = ["10.0.0.254/32"]
    node.write(spec)
    killed_after(node, 3)


@pytest.mark.parametrize("command", ["recover", "apply"])
def test_what_others_lack_comes_back_and_is_named(node: Node, command: str) -> None:
    killed(node)
    ip("route", "del", "10.21.0.0/16")
    ip("addr", "del", "10.20.0.1/24", "dev", "to-a")
    outcome = node.run(command, "-y", *([str(node.path)] if command == "apply" else []))
    assert outcome.code == 0, outcome.err
    (told,) = [line for line in outcome.err.splitlines() if "NK0522" in line]
    assert "address 10.20.0.1/24 of to-a" in told
    assert "route 10.21.0.0/16" in told
    assert "10.21.0.0/16" in ip("route")


@pytest.mark.parametrize("command", ["recover", "apply"])
def test_where_others_lack_nothing_nothing_is_told(node: Node, command: str) -> None:
    killed(node)
    outcome = node.run(command, "-y", *([str(node.path)] if command == "apply" else []))
    assert outcome.code == 0, outcome.err
    assert "NK0522" not in outcome.err
    assert "10.21.0.0/16" in ip("route")


def test_what_goes_with_a_device_is_not_named(node: Node) -> None:
    killed(node)
    ip("route", "del", "10.21.0.0/16")
    assert "NK0522" not in node.destroy().err
