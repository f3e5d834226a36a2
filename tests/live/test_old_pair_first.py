"""Where a route cannot be added beside what an old pair alone has, that pair goes before its new one comes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.support import Node, kinds

Ends = dict[str, dict[str, Any]]

FIRST = "the old pair goes first"


def made(kind: str, ends: Ends, *, peers: bool) -> dict[str, Any]:
    """A spec of pairs whose primaries, or peers, are the ends given."""
    devices: dict[str, Any] = {}
    for name, end in ends.items():
        peer = {"name": f"{name}p", "namespace": "web"}
        devices[name] = {"kind": kind, "peer": peer}
        (peer if peers else devices[name]).update(end)
    return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": devices}


def anew(spec: dict[str, Any], kind: str) -> dict[str, Any]:
    """The spec with something in it that only a new pair can have."""
    spec["devices"]["v0"].update({"numtxqueues": 2} if kind == "veth" else {"mode": "l2"})
    return spec


FAR4, FAR6 = "10.9.0.0/16", "fd09::/64"
CASES: dict[str, tuple[Ends, Ends, str]] = {
    "the kernel's route": (
        {"v0": {"addresses": ["10.1.0.1/8"]}},
        {"v0": {"addresses": ["10.2.0.1/32"], "routes": [{"to": "10.0.0.0/8"}]}},
        "its address 10.1.0.1/8 has the place of its new route to 10.0.0.0/8",
    ),
    "the kernel's route, of another": (
        {"v0": {"addresses": ["10.1.0.1/24"]}, "v1": {}},
        {"v0": {"addresses": ["10.2.0.1/24"]}, "v1": {"routes": [{"to": "10.1.0.0/24"}]}},
        "its address 10.1.0.1/24 has the place of the route of v1 to 10.1.0.0/24",
    ),
    "the kernel's local route": (
        {"v0": {"addresses": ["10.1.0.1/24"]}},
        {"v0": {"addresses": ["10.2.0.1/24"], "routes": [{"to": "10.1.0.255/32", "table": 255}]}},
        "its address 10.1.0.1/24 has the place of its new route to 10.1.0.255/32",
    ),
    "its own gateway": (
        {"v0": {"addresses": ["10.0.0.1/24"]}},
        {"v0": {"addresses": ["10.0.0.2/24"], "routes": [{"to": FAR4, "via": "10.0.0.1", "onlink": True}]}},
        "its address 10.0.0.1/24 rules out the gateway of its new route to 10.9.0.0/16",
    ),
    "its own gateway of IPv6": (
        {"v0": {"addresses": ["fd00::1/64"]}},
        {"v0": {"addresses": ["fd00::2/64"], "routes": [{"to": FAR6, "via": "fd00::1"}]}},
        "its address fd00::1/64 rules out the gateway of its new route to fd09::/64",
    ),
    "another's gateway": (
        {"v0": {"addresses": ["10.0.0.1/24"]}, "v1": {"addresses": ["10.0.1.1/24"]}},
        {
            "v0": {"addresses": ["10.0.5.1/24"]},
            "v1": {"addresses": ["10.0.1.1/24"], "routes": [{"to": FAR4, "via": "10.0.0.255", "onlink": True}]},
        },
        "its address 10.0.0.1/24 rules out the gateway of the route of v1 to 10.9.0.0/16",
    ),
    "a network": (
        {"v0": {"addresses": ["fd00::1/96"]}},
        {"v0": {"addresses": ["fd00::2/64"], "routes": [{"to": FAR6, "via": "fd00::9", "onlink": True}]}},
        "its address fd00::1/96 rules out the gateway of its new route to fd09::/64",
    ),
    "a route to a network": (
        {"v0": {"addresses": ["fd00::2/64"], "routes": [{"to": "fd00::/96"}]}},
        {"v0": {"addresses": ["fd00::2/64"], "routes": [{"to": FAR6, "via": "fd00::9", "onlink": True}]}},
        "its route to fd00::/96 rules out the gateway of its new route to fd09::/64",
    ),
    "not: the same network": (
        {"v0": {"addresses": ["fd00::1/64", "10.0.0.1/24"]}},
        {
            "v0": {
                "addresses": ["fd00::2/64", "10.0.0.1/24"],
                "routes": [
                    {"to": FAR6, "via": "fd00::9", "onlink": True},
                    {"to": FAR4, "via": "10.0.0.9", "onlink": True},
                ],
            }
        },
        "",
    ),
    "not: routes in any order": (
        {"v0": {"addresses": ["10.0.0.5/24"]}},
        {
            "v0": {
                "addresses": ["10.0.0.5/24"],
                "routes": [
                    {"to": "default", "via": "169.254.1.1"},
                    {"to": "169.254.1.1/32"},
                    {"to": "::/0", "via": "fd01::1"},
                    {"to": "fd01::1/128"},
                ],
            }
        },
        "",
    ),
    "not: a route that is there": (
        {"v0": {}, "v1": {"addresses": ["10.0.1.1/24"], "routes": [{"to": FAR4, "via": "10.0.0.1", "onlink": True}]}},
        {"v0": {}, "v1": {"addresses": ["10.0.1.1/24"], "routes": [{"to": FAR4, "via": "10.0.0.1", "onlink": True}]}},
        "",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("peers", [False, True], ids=["primary", "peer"])
@pytest.mark.parametrize("kind", kinds())
def test_a_route_that_cannot_be_added_beside_the_old_pair_comes_after_it(
    node: Node, kind: str, peers: bool, case: str
) -> None:
    before, after, why = CASES[case]
    first, second = made(kind, before, peers=peers), anew(made(kind, after, peers=peers), kind)
    node.apply(first)
    reasons = {change["name"]: change["reason"] for change in node.changes(second)}
    assert reasons["v0"].endswith(f"{FIRST}: {why}" if why else "built beside the old one")
    node.apply(second)
    assert node.run("rollback", "-y").code == 0
    assert node.changes(first) == []
