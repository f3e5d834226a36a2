"""Random specs that are right by construction, for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = ("p0", "p1", "p.2", "p3")
NAMESPACES = ("a", "b", "c")
PEERS = ("eth0", "net0", "net1")
GATEWAY = "169.254.1.1"

Spec = dict[str, Any]


def _sizes(netkit: bool, features: frozenset[str]) -> dict[str, st.SearchStrategy[Any]]:
    size = st.sampled_from((40_000, 65_536, 100_000, 196_608))
    found: dict[str, st.SearchStrategy[Any]] = {
        "mtu": st.sampled_from((1280, 1400, 1500, 9000)),
        "txqlen": st.sampled_from((100, 1000)),
        "gso_max_size": size,
        "gso_max_segs": st.sampled_from((64, 65_535)),
        "up": st.sampled_from((True, True, True, False)),
        "promisc": st.booleans(),
        "allmulticast": st.booleans(),
    }
    if "gro_max_size" in features:
        found["gro_max_size"] = size
    if "gso_ipv4" in features:
        found |= {"gso_ipv4_max_size": size, "gro_ipv4_max_size": size}
    if not netkit:
        found["numtxqueues"] = st.sampled_from((1, 1, 3))
    if netkit:
        found |= {"mode": st.sampled_from(("l2", "l3")), "policy": st.sampled_from(("forward", "blackhole"))}
    if netkit and "netkit_scrub" in features:
        found["scrub"] = st.sampled_from(("default", "none"))
    if netkit and "netkit_room" in features:
        found |= {"headroom": st.sampled_from((0, 64)), "tailroom": st.sampled_from((0, 32))}
    return found


@st.composite
def ends(draw: st.DrawFn, number: int, outside: bool) -> Spec:
    """Addresses, routes and sysctls of an end; the numbers keep ends of different devices apart."""
    base = 10 * number + (0 if outside else 5)
    addresses = [f"10.{base}.0.{host}/{length}" for host, length in ((1, 32), (2, 24), (3, 24))]
    addresses += [f"fd00:{base:x}::{host}/{length}" for host, length in ((1, 128), (2, 64))]
    routes: list[Spec] = [
        {"to": f"10.{base + 1}.0.0/16"},
        {"to": f"10.{base + 2}.0.0/16", "via": GATEWAY, "onlink": True},
        {"to": f"10.{base + 3}.0.0/16", "metric": 50 + base, "mtu": 1300},
        {"to": f"fd01:{base:x}::/48"},
        {"to": f"fd02:{base:x}::/48", "via": "fe80::1", "metric": 77},
        {"to": f"10.{base + 4}.0.0/16", "table": 1000 + base},
    ]
    end: Spec = {
        "addresses": draw(st.lists(st.sampled_from(addresses), unique=True, max_size=4)),
        "routes": draw(st.lists(st.sampled_from(routes), unique_by=str, max_size=4)),
    }
    if draw(st.booleans()):
        end["sysctl"] = {
            "ipv4": {"rp_filter": draw(st.sampled_from((0, 1, 2))), "forwarding": draw(st.sampled_from((0, 1)))}
        }
    return end


@st.composite
def dummies(draw: st.DrawFn, number: int) -> Spec:
    """A device without a peer."""
    sizes = {key: size for key, size in _sizes(False, frozenset()).items() if key in ("mtu", "txqlen", "up", "promisc")}
    chosen = draw(st.lists(st.sampled_from(sorted(sizes)), unique=True))
    device = {"kind": "dummy", **{key: draw(sizes[key]) for key in chosen}, **draw(ends(number, True))}
    return {**device, "mac": f"02:00:00:00:0{number}:01"} if draw(st.booleans()) else device


@st.composite
def specs(draw: st.DrawFn, kind: str, features: frozenset[str]) -> Spec:
    """A spec of a few pairs of one kind, and of dummies where the kernel has them."""
    devices: Spec = {}
    taken: set[tuple[str | None, str]] = set()
    used: set[str] = set()
    sizes = _sizes(kind == "netkit", features)
    for number, name in enumerate(NAMES):
        place = draw(st.sampled_from((None, *NAMESPACES))), draw(st.sampled_from(PEERS))
        if not draw(st.booleans()) or place in taken:
            continue
        if "dummy" in features and draw(st.sampled_from((False, False, True))):
            devices[name] = draw(dummies(number))
            continue
        taken.add(place)
        chosen = draw(st.lists(st.sampled_from(sorted(sizes)), unique=True, max_size=6))
        device = {"kind": kind, **{key: draw(sizes[key]) for key in chosen}, **draw(ends(number, True))}
        device["peer"] = {"name": place[1], **draw(ends(number, False))}
        for key in ("policy", "scrub", "up", "promisc"):
            if key in chosen and draw(st.booleans()):
                device["peer"][key] = draw(sizes[key])
        if (kind == "veth" or device.get("mode") == "l2") and draw(st.booleans()):
            device["mac"], device["peer"]["mac"] = f"02:00:00:00:0{number}:01", f"02:00:00:00:0{number}:02"
        if place[0]:
            device["peer"]["namespace"] = place[0]
            used.add(place[0])
        devices[name] = device
    spare = set(draw(st.lists(st.sampled_from(NAMESPACES), unique=True)))
    return {
        "version": 1,
        "node": "random",
        "namespaces": {name: {"create": True} for name in sorted(used | spare)},
        "devices": devices,
    }
