"""A workload that has thousands of things does not fill the terminal: some are named, the others are counted."""

from __future__ import annotations

import pytest

from tests.live.helpers.support import Node, batch
from tests.live.test_moved_peers import pair

MANY = 300
"""Of each thing."""
SHORT = 4000
"""Characters that any message stays below."""


def crowd() -> None:
    """A namespace full of what somebody made there."""
    numbers = range(MANY)
    batch(
        [
            *(f"link add m{n} type veth peer name n{n}" for n in numbers),
            *(f"link add link eth0 name u{n} type vlan id {n + 1}" for n in numbers),  # where the kernel has it
            *(f"link add link eth0 name u{n} type macvlan mode bridge" for n in numbers),
            *(f"link property add dev eth0 altname another{n}" for n in numbers),
            *(f"addr add fd08::{n:x}/64 dev eth0 nodad" for n in numbers),
            *(f"route add 10.9.{n % 256}.{n // 256}/32 dev eth0 proto 99" for n in numbers),
            *(f"nexthop add id {n + 1} dev eth0" for n in numbers),
            *(f"neigh add 10.7.{n // 256}.{n % 256} lladdr 02:00:00:00:00:09 dev eth0 nud permanent" for n in numbers),
        ],
        "web",
    )


@pytest.mark.parametrize(
    ("second", "code"),
    [
        (pair("web", numtxqueues=2), "NK0426"),
        (pair("web2"), "NK0426"),
        (pair("web", mtu=1000), "NK0426"),
        ({**pair("web"), "devices": {}, "namespaces": {}}, "NK0416"),
    ],
    ids=["made anew", "moved", "small", "left in place"],
)
def test_what_a_crowd_loses_is_said_in_short(node: Node, second: dict[str, object], code: str) -> None:
    node.apply(pair("web"))
    crowd()
    planned = node.plan(second)
    assert planned.code == 0
    assert code in planned.err
    assert "more like it" in planned.err
    assert len(planned.err) < SHORT
    applied = node.run("apply", "-y", str(node.path))
    assert applied.code == 0
    assert len(applied.err) < 2 * SHORT
