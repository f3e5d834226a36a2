"""What is in the way of a namespace or a device is found by `plan`."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nkform.kernel import links
from nkform.kernel.bpf_programs import prog_load
from nkform.kernel.netlink import Request, Socket, nested, u32
from tests.live.helpers.bpf_programs import returns
from tests.live.helpers.support import Node, ip, kinds, link, needs, sh
from tests.live.helpers.support import links as names
from tests.live.test_shared_routes import spec
from tests.live.test_watch import Process

pytestmark = pytest.mark.usefixtures("made_once")

RUN = Path("/run/netns")
XDP, XDP_PASS = 6, 2
"""BPF_PROG_TYPE_XDP, and its verdict for what goes on (include/uapi/linux/bpf.h)."""
IFLA_XDP, IFLA_XDP_FD, IFLA_XDP_FLAGS, XDP_FLAGS_DRV_MODE = 43, 1, 3, 4
"""include/uapi/linux/if_link.h"""

Spec = dict[str, Any]


def pair(name: str = "v0", peer: str = "eth0", namespace: Any = "web", **own: Any) -> Spec:
    """A spec with one pair, whose namespace exists where its name is not `web`."""
    made: Spec = {"version": 1, "node": "w", "devices": {name: device(peer, namespace, **own)}}
    if isinstance(namespace, str) and namespace:
        made["namespaces"] = {namespace: {"create": namespace == "web"}}
    return made


def device(peer: str, namespace: Any = "", **own: Any) -> Spec:
    end = {"name": peer, **({"namespace": namespace} if namespace else {})}
    return {"kind": "veth", **own, "peer": end}


def plain() -> None:
    (RUN / "web").touch()


def folder() -> None:
    (RUN / "web").mkdir()


def dangling() -> None:
    (RUN / "web").symlink_to("/nowhere/at/all")


def loop() -> None:
    (RUN / "web").symlink_to(RUN / "web")


@pytest.mark.parametrize("make", [plain, folder, dangling, loop])
def test_a_name_below_run_netns_that_leads_to_no_namespace_is_named(node: Node, make: Callable[[], None]) -> None:
    RUN.mkdir(parents=True, exist_ok=True)
    make()
    error = node.refused(spec("8"))
    assert "NK0457" in error
    assert "/run/netns/web" in error
    path = RUN / "web"
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    node.apply(spec("8"))
    assert "web" in ip("netns")


def test_ipv6_on_a_device_that_somebody_made_too_small_is_named(node: Node) -> None:
    made = spec("8")
    made["devices"]["v0"]["addresses"] = ["10.7.0.1/24"]
    made["devices"]["v0"]["routes"] = []
    made["devices"]["v0"]["peer"].update(addresses=["10.7.0.2/24"], routes=[])
    node.apply(made)
    ip("link", "set", "v0", "mtu", "1000")
    made["devices"]["v0"]["addresses"].append("fd07::1/64")
    error = node.refused(made)
    assert "NK0458" in error
    assert "its MTU is 1000" in error
    made["devices"]["v0"]["mtu"] = 1280
    node.apply(made)


@pytest.mark.parametrize(
    "more", [{"routes": [{"to": "fd09::/64"}]}, {"sysctl": {"ipv6": {"accept_ra": 0}}}], ids=["route", "sysctl"]
)
def test_all_else_of_ipv6_is_named_there_too(node: Node, more: dict[str, Any]) -> None:
    """The kernel has no IPv6 on such a device, nor its sysctls."""
    made = pair()
    node.apply(made)
    ip("link", "set", "v0", "mtu", "1000")
    made["devices"]["v0"].update(more)
    assert "NK0458" in node.refused(made)
    made["devices"]["v0"]["mtu"] = 1280
    node.apply(made)


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize(("name", "peer", "space"), [("taken", "eth0", ""), ("v0", "taken", "web")])
def test_a_name_that_another_link_has_besides_its_own_is_named(
    node: Node, kind: str, name: str, peer: str, space: str
) -> None:
    ip("netns", "add", "web")
    ip("link", "add", "other", "type", "veth", "peer", "name", "far", namespace=space)
    ip("link", "property", "add", "dev", "other", "altname", "taken", namespace=space)
    made = pair(name, peer, kind=kind)
    made["namespaces"]["web"] = {}
    error = node.refused(made)
    assert "NK0475" in error
    assert "taken" in error
    assert "other" in error
    ip("link", "property", "del", "dev", "other", "altname", "taken", namespace=space)
    node.apply(made)


def test_a_further_name_of_a_pair_that_goes_first_is_in_nobodys_way(node: Node) -> None:
    node.apply(pair("old"))
    ip("link", "property", "add", "dev", "old", "altname", "v0")
    node.apply(pair("v0"))
    assert names() == {"v0"}


def test_a_further_name_is_none_of_the_things_in_a_namespace(node: Node) -> None:
    node.apply(pair())
    ip("link", "property", "add", "dev", "eth0", "altname", "more", namespace="web")
    assert node.changes() == []
    node.destroy()
    assert "web" not in ip("netns")


def test_an_external_device_by_a_further_name_is_told_its_name(node: Node) -> None:
    ip("link", "add", "uplink", "type", "veth", "peer", "name", "far")
    ip("link", "property", "add", "dev", "uplink", "altname", "enp1s0")
    error = node.refused({"version": 1, "node": "w", "devices": {"enp1s0": {"kind": "external"}}})
    assert "NK0413" in error
    assert "uplink" in error


def test_one_namespace_under_two_keys_is_named(node: Node) -> None:
    node.apply(pair())
    for namespace in ({"path": "/run/netns/web"}, {"path": "/run/../run/netns/web"}):
        made = pair()
        made["devices"]["v1"] = device("eth1", namespace)
        error = node.refused(made)
        assert "NK0476" in error
        assert "write `namespace: web`" in error


def test_one_namespace_by_name_and_process_is_named(node: Node) -> None:
    node.apply(pair())
    with subprocess.Popen(["ip", "netns", "exec", "web", "sleep", "1000"]) as process:
        try:
            made = pair()
            made["devices"]["v1"] = device("eth0", {"pid": process.pid})
            while not Path(f"/proc/{process.pid}/ns/net").samefile(RUN / "web"):
                pass
            assert "NK0476" in node.refused(made)
            outcome = node.run("apply", "-y", "--keep-going", str(node.path))
            assert outcome.code == 1
            assert "NK0476" in outcome.err
        finally:
            process.kill()
    assert names() == {"v0"}
    assert names("web") == {"eth0"}


def test_two_names_of_one_namespace_are_named(node: Node) -> None:
    ip("netns", "add", "web")
    (RUN / "too").touch()
    sh("mount", "--bind", str(RUN / "web"), str(RUN / "too"))
    made = pair(namespace="too")
    made["devices"]["v1"] = device("eth0", "web")
    made["namespaces"]["web"] = {}
    error = node.refused(made)
    assert "NK0476" in error
    del made["devices"]["v1"], made["namespaces"]["web"]
    node.apply(made)


def test_a_namespace_that_is_to_go_is_not_used_by_its_path(node: Node) -> None:
    node.apply(pair())
    error = node.refused(pair(namespace={"path": "/run/netns/web"}))
    assert "NK0476" in error
    assert names("web") == {"eth0"}


def test_a_name_that_somebody_gave_to_a_namespace_of_ours_stays(node: Node) -> None:
    node.apply(pair())
    (RUN / "alias").touch()
    sh("mount", "--bind", str(RUN / "web"), str(RUN / "alias"))
    assert node.changes() == []
    assert "alias" not in node.run("show").out
    node.destroy()
    assert {path.name for path in RUN.iterdir()} == {"alias"}


@pytest.mark.parametrize("kind", kinds())
@pytest.mark.parametrize("way", ["name", "pid", "path", "self", "thread"])
def test_the_own_namespace_by_whatever_key_is_the_own_namespace(node: Node, way: str, kind: str) -> None:
    ip("netns", "add", "another")  # what is looked at in between
    if way == "name":
        (RUN / "home").touch()
        sh("mount", "--bind", "/proc/self/ns/net", str(RUN / "home"))
    own = {
        "name": "home",
        "pid": {"pid": os.getpid()},
        "path": {"path": f"/proc/{os.getpid()}/ns/net"},
        "self": {"path": "/proc/self/ns/net"},
        "thread": {"path": "/proc/thread-self/ns/net"},
    }[way]
    made = pair(peer="v0p", namespace=own, kind=kind)
    routes = [{"to": "192.0.2.0/24", "via": "10.7.0.2"}]
    made["devices"]["v0"].update(addresses=["10.7.0.1/24"], routes=routes)
    made["devices"]["v0"]["peer"].update(addresses=["10.8.0.2/24"], sysctl={"ipv4": {"rp_filter": 2}})
    saved = str(node.folder / "plan.json")
    assert node.plan(made, "-o", saved).code == 0
    assert node.run("apply", saved).code == 0
    node.apply(made)
    assert "drift" not in node.run("status").out
    assert node.run("rollback", "-y").code == 0
    assert names() == set()
    node.apply(made)
    assert names() == {"v0", "v0p"}
    assert sh("cat", "/proc/sys/net/ipv4/conf/v0p/rp_filter").strip() == "2"
    del made["devices"]["v0"]["peer"]["namespace"]
    made.pop("namespaces", None)
    assert node.changes(made) == []
    made["devices"]["v0"]["peer"]["namespace"] = own
    if way == "name":
        made["namespaces"] = {"home": {}}
    made["devices"]["v0"]["peer"]["sysctl"] = {"ipv4": {"rp_filter": 1}}
    node.apply(made)
    made["devices"]["v1"] = {**device("v0", own), "kind": kind}
    error = node.refused(made)
    assert "NK0304" in error
    assert "namespace that nkform runs in" in error
    node.destroy()
    assert names() == set()


def test_a_watch_heals_what_is_in_the_own_namespace_by_its_path(node: Node) -> None:
    ip("netns", "add", "another")
    node.apply(pair(peer="v0p", namespace={"path": "/proc/self/ns/net"}, mtu=1500))
    watch = Process(node, "--heal")
    try:
        ip("link", "set", "v0p", "mtu", "1300")
        watch.drift("peer.mtu", "v0")
        watch.settled("peer.mtu", "v0")
        assert link("v0p")["mtu"] == 1500
        assert watch.stop() == 0
    finally:
        watch.end()


def test_the_own_namespace_cannot_be_made(node: Node) -> None:
    RUN.mkdir(parents=True, exist_ok=True)
    (RUN / "web").touch()
    sh("mount", "--bind", "/proc/self/ns/net", str(RUN / "web"))
    error = node.refused(pair())
    assert "NK0477" in error
    assert "web" in error
    outcome = node.run("apply", "-y", "--keep-going", str(node.path))
    assert outcome.code == 1
    assert "NK0477" in outcome.err
    assert names() == set()
    made = pair()
    made["namespaces"]["web"] = {"optional": True}
    made["devices"]["v0"]["peer"]["name"] = "v0p"
    node.apply(made)
    assert names() == {"v0", "v0p"}


def attach_xdp(name: str, fd: int) -> None:
    """Attaches an XDP program in the driver; -1 takes it away."""
    body = links.IFINFOMSG.pack(0, 0, socket.if_nametoindex(name), 0, 0)
    body += nested(IFLA_XDP, u32(IFLA_XDP_FD, fd & 0xFFFFFFFF), u32(IFLA_XDP_FLAGS, XDP_FLAGS_DRV_MODE))
    with Socket() as netlink:
        assert netlink.ask([Request(links.RTM_NEWLINK, 0, body, "attach an XDP program")])[0] == [None]


def test_an_mtu_that_an_xdp_program_does_not_allow_is_named(node: Node) -> None:
    made = pair(mtu=1500)
    node.apply(made)
    fd = prog_load(returns(XDP_PASS), "xdp", XDP)
    attach_xdp("v0", fd)
    most = link("eth0", "web")["max_mtu"]
    assert 1500 < most < 9000
    made["devices"]["v0"]["mtu"] = 9000
    error = node.refused(made)
    assert "NK0478" in error
    assert str(most) in error
    assert "eth0 in web" in error
    made["devices"]["v0"]["mtu"] = most
    node.apply(made)
    made["devices"]["v0"]["mtu"] = 9000
    attach_xdp("v0", -1)
    os.close(fd)
    node.apply(made)


@pytest.mark.parametrize("kind", ["veth", "external"])
def test_legacy_filters_beside_a_foreign_ingress_qdisc_are_refused(node: Node, kind: str) -> None:
    made = pair(attach="tc")
    if kind == "veth":
        node.apply(made)
        hook = "peer"
    else:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "far")
        made = {"version": 1, "node": "w", "devices": {"v0": {"kind": "external", "attach": "tc"}}}
        hook = "egress"
    sh("tc", "qdisc", "add", "dev", "v0", "ingress")
    assert node.changes(made) == []
    made["programs"] = {"count": {"template": "counters"}}
    made["devices"]["v0"]["programs"] = {hook: ["count"]}
    error = node.refused(made)
    assert "NK0479" in error
    assert "ingress" in error
    assert "tc qdisc del dev v0 ingress" in error
    sh("tc", "qdisc", "del", "dev", "v0", "ingress")
    node.apply(made)


@pytest.mark.parametrize("side", ["ingress", "egress"])
@pytest.mark.parametrize("kind", ["veth", "external"])
def test_legacy_filters_in_a_shared_block_are_refused(node: Node, kind: str, side: str) -> None:
    """Nor is anything wrong with the other side, which has filters of its own."""
    made = pair(attach="tc")
    hooks = {"ingress": "peer", "egress": "primary"}
    if kind == "veth":
        node.apply(made)
    else:
        ip("link", "add", "v0", "type", "veth", "peer", "name", "far")
        made = {"version": 1, "node": "w", "devices": {"v0": {"kind": "external", "attach": "tc"}}}
        hooks = {"ingress": "ingress", "egress": "egress"}
    sh("tc", "qdisc", "add", "dev", "v0", f"{side}_block", "22", "clsact")
    made["programs"] = {"count": {"template": "counters"}}
    made["devices"]["v0"]["programs"] = {hooks[side]: ["count"]}
    error = node.refused(made)
    assert "NK0479" in error
    assert f"the clsact of v0 shares its filters at {side}" in error
    (other,) = hooks.keys() - {side}
    made["devices"]["v0"]["programs"] = {hooks[other]: ["count"]}
    node.apply(made)
    node.destroy()


@needs("tcx")
def test_links_beside_a_foreign_ingress_qdisc_are_fine(node: Node) -> None:
    made = pair()
    node.apply(made)
    sh("tc", "qdisc", "add", "dev", "v0", "ingress")
    made["programs"] = {"count": {"template": "counters"}}
    made["devices"]["v0"]["programs"] = {"peer": ["count"]}
    node.apply(made)
    assert "ingress" in sh("tc", "qdisc", "show", "dev", "v0")


@pytest.mark.parametrize("namespace", [{}, {"create": True}], ids=["there", "to come"])
def test_a_source_that_nobody_has_is_told(node: Node, namespace: dict[str, bool]) -> None:
    route: dict[str, str] = {"to": "10.9.0.0/16", "src": "10.7.0.2"}
    peer = {"name": "eth0", "namespace": "web", "addresses": ["10.7.0.1/24"], "routes": [route]}
    devices = {"v0": {"kind": "veth", "peer": peer}}
    made = {"version": 1, "node": "w", "namespaces": {"web": namespace}, "devices": devices}
    if not namespace:
        ip("netns", "add", "web")
    assert "NK0459" in node.refused(made)
    for src in ("10.7.0.1", "127.0.0.1"):  # which `lo` has once it is up
        if src == "127.0.0.1":
            if namespace:
                continue
            ip("link", "set", "lo", "up", namespace="web")
        route["src"] = src
        node.apply(made)
        node.destroy()


@pytest.mark.parametrize("peer", [False, True], ids=["primary", "peer"])
@pytest.mark.parametrize(
    ("via", "rest"),
    [
        ("10.9.0.1", {"addresses": ["10.7.0.1/24", "fd07::1/64"]}),
        ("fd09::1", {"addresses": ["10.7.0.1/24", "fd07::1/64"]}),
        ("fd09::1", {"addresses": ["10.7.0.1/24"], "routes": [{"to": "10.9.0.0/16"}]}),
        ("10.9.0.1", {"routes": [{"to": "10.9.0.0/16", "via": "10.7.0.2", "onlink": True}]}),
    ],
)
def test_a_gateway_out_of_the_reach_of_a_device_to_come_is_told(
    node: Node, via: str, rest: dict[str, Any], peer: bool
) -> None:
    """On one that is there others may have what leads to it."""
    other: dict[str, Any] = {"name": "eth0", "namespace": "web"}
    device: dict[str, Any] = {"kind": "veth", "peer": other}
    (other if peer else device).update({"addresses": [], **rest})
    made = {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": {"v0": device}}
    node.apply(made)
    (other if peer else device).update(routes=[*rest.get("routes", []), {"to": "default", "via": via}])
    assert "NK0313" in node.plan(made).err
    assert node.run("apply", "-y", str(node.path)).code == 1
    network, line = ("fd09::/64", "-6 route add") if ":" in via else ("10.9.0.0/24", "route add")
    ip(*line.split(), network, "dev", "eth0" if peer else "v0", namespace="web" if peer else "")
    node.apply(made)
    node.destroy()
    for command in "plan", "apply":
        error = node.refused(made, command=command)
        assert "NK0462" in error
        assert f"leads to the gateway {via}" in error
        assert "spec.yaml:" in error
    assert "web" not in ip("netns")


@pytest.mark.parametrize("routed", [False, True], ids=["to come", "there"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
@pytest.mark.parametrize("whose", ["own", "other", "going"])
@pytest.mark.parametrize("peer", [False, True], ids=["primary", "peer"])
def test_a_source_that_ours_have_no_more_is_told(node: Node, peer: bool, whose: str, family: str, routed: bool) -> None:
    """A route that is there would go with it."""
    near, source, to, via = (
        ("10.0.0.1/24", "10.5.0.1", "10.9.0.0/16", "10.0.0.9")
        if family == "IPv4"
        else ("fd00::1/64", "fd05::1", "fd09::/64", "fd00::9")
    )
    host = f"{source}/{32 if family == 'IPv4' else 128}"
    sourced = {"to": to, "via": via, "src": source}

    def made(own: dict[str, Any], other: dict[str, Any] | None) -> dict[str, Any]:
        ends = {name: end for name, end in (("v0", own), ("v1", other)) if end is not None}
        devices = {
            name: {"kind": "veth", "peer": {"name": f"{name}p", "namespace": "web", **(end if peer else {})}}
            | ({} if peer else end)
            for name, end in ends.items()
        }
        return {"version": 1, "node": "w", "namespaces": {"web": {"create": True}}, "devices": devices}

    routes = [sourced] if routed else []
    if whose == "own":
        before = made({"addresses": [near, host], "routes": routes}, None)
    else:
        before = made({"addresses": [near], "routes": routes}, {"addresses": [host]})
    after = made({"addresses": [near], "routes": [sourced]}, {} if whose == "other" else None)
    node.apply(before)
    if whose == "going":  # where it stays, the source does
        assert node.plan(after, "--target", "v0").code == 0
    for command in "plan", "apply":
        error = node.refused(after, command=command)
        assert "NK0459" in error
        assert "any more" in error
        assert "spec.yaml:" in error
    assert node.changes(before) == []
    ip("addr", "add", host, "dev", "lo", *(["nodad"] if family == "IPv6" else []), namespace="web" if peer else "")
    ip("link", "set", "lo", "up", namespace="web" if peer else "")
    assert node.plan(after).code == 0


def two(**changes: Spec) -> Spec:
    devices: Spec = {"v0": device("e0"), "v1": device("e1")}
    return {"version": 1, "node": "w", "devices": devices | changes}


@pytest.mark.parametrize("words", [(), ("--adopt",)])
def test_a_peer_of_a_pair_of_ours_is_not_taken_over(node: Node, words: tuple[str, ...]) -> None:
    node.apply(two())
    said = node.refused({"version": 1, "node": "w", "devices": {"e0": device("v0")}}, *words)
    assert "it is the peer of v0, which is nkform's" in said
    node.apply({"version": 1, "node": "w", "devices": {}})
    node.apply({"version": 1, "node": "w", "devices": {"e0": device("v0")}})
