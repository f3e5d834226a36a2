"""What others have on a pair that is made anew goes over to the new one, or `plan` says by its name that it goes."""

from __future__ import annotations

import copy
import ipaddress
import json
import re
import signal
from typing import Any

import pytest

from nkform.apply import transaction
from nkform.kernel import bpf
from nkform.kernel.bpf_programs import prog_info, prog_load
from nkform.kernel.descriptors import Owned
from nkform.problem import fail
from tests.live.helpers.attack import in_child
from tests.live.helpers.bpf_programs import returns
from tests.live.helpers.chain_sites import CLSACT_INGRESS, TCX_INGRESS, Others, inside
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, ip, link, needs, pings, sh

pytestmark = pytest.mark.usefixtures("made_once")

Spec = dict[str, Any]

XDP, XDP_PASS = 6, 2
"""BPF_PROG_TYPE_XDP, and what lets all packets pass (include/uapi/linux/bpf.h)."""
STATIC = "02:00:00:00:07:01"


def exchanged(node: Node) -> tuple[Spec, Spec]:
    """Two pairs whose peers exchange their names: one of them goes first, and comes again. And what comes before it."""
    first: Spec = {"version": 1, "node": "n", "namespaces": {"a": {"create": True}}, "devices": {}}
    for number in (0, 1):
        peer = {"name": f"eth{number}", "namespace": "a", "addresses": [f"10.7.{number}.2/24", f"fd07:{number}::2/64"]}
        addresses = [f"10.7.{number}.1/24", f"fd07:{number}::1/64"]
        first["devices"][f"v{number}"] = {"kind": "veth", "addresses": addresses, "peer": peer}
    node.apply(first)
    second = copy.deepcopy(first)
    for number in (0, 1):
        second["devices"][f"v{number}"]["peer"]["name"] = f"eth{1 - number}"
    return first, second


def beside(node: Node) -> tuple[Spec, Spec]:
    """A pair that is built anew beside the old one."""
    peer = {"name": "eth0", "namespace": "a", "addresses": ["10.7.0.2/24", "fd07:0::2/64"]}
    device = {"kind": "netkit", "mode": "l2", "addresses": ["10.7.0.1/24", "fd07:0::1/64"], "peer": peer}
    first: Spec = {"version": 1, "node": "n", "namespaces": {"a": {"create": True}}, "devices": {"v0": device}}
    node.apply(first)
    second = copy.deepcopy(first)
    second["devices"]["v0"]["scrub"] = "none"
    return first, second


WAYS = [pytest.param(exchanged, id="old first"), pytest.param(beside, id="beside", marks=needs("netkit_scrub"))]


def replaced(node: Node, spec: Spec) -> tuple[str, str]:
    """The device that a spec makes anew, and the name that its peer has before that."""
    (name,) = (change["name"] for change in node.changes(spec) if change["operation"] == "replace")
    return name, {"v0": "eth0", "v1": "eth1"}[name]


def neighbours(device: str, namespace: str = "") -> list[str]:
    """What somebody made, as `ip` shows it."""
    shown: list[str] = []
    for words in (("neigh", "show"), ("neigh", "show", "proxy")):
        for entry in json.loads(ip("-j", *words, "dev", device, namespace=namespace) or "[]"):
            if "proxy" in words:
                shown.append(f"{entry['dst']} proxy")
            elif "PERMANENT" in entry["state"] or entry.keys() & {"managed", "extern_learn"}:
                flags = sorted(entry.keys() & {"managed", "extern_learn"})
                shown.append(" ".join([entry["dst"], *flags, entry.get("lladdr", "")]))
    return sorted(shown)


def made(name: str, *words: str, lower: str = "", namespace: str = "") -> None:
    """Makes a device of a kind that not every kernel has."""
    try:
        ip("link", "add", *(["link", lower] if lower else []), "name", name, *words, namespace=namespace)
    except AssertionError as error:
        if "Unknown device type" not in str(error):
            raise
        pytest.skip(f"this kernel has no such device: {' '.join(words)}")


def queue(*words: str, device: str, namespace: str = "") -> None:
    """Gives a device a qdisc of a kind that not every kernel has."""
    try:
        sh("tc", *(["-n", namespace] if namespace else []), "qdisc", "add", "dev", device, *words)
    except AssertionError as error:
        if "unknown" not in str(error).lower():
            raise
        pytest.skip(f"this kernel has no such qdisc: {' '.join(words)}")


def queues(device: str, namespace: str = "") -> str:
    """The qdiscs of a device, but for the handle, which the kernel gives anew where nobody chose one."""
    return sh("tc", *(["-n", namespace] if namespace else []), "qdisc", "show", "dev", device)


def prog_id(path: str) -> int:
    with Owned(bpf.get(path)) as fd:
        return prog_info(fd).id


def acquaint(device: str, number: str, namespace: str = "") -> list[str]:
    """Static neighbours, and addresses that are answered for."""
    for line in (
        f"neigh add 10.7.{number}.77 lladdr {STATIC} dev {device} nud permanent",
        f"neigh add fd07:{number}::77 lladdr {STATIC} dev {device} nud permanent",
        f"neigh add 10.7.{number}.79 lladdr {STATIC} dev {device} nud reachable extern_learn",
        f"neigh add 10.7.{number}.80 dev {device} managed",
        f"neigh add proxy 10.7.{number}.78 dev {device}",
        f"neigh add proxy fd07:{number}::78 dev {device}",
    ):
        ip(*line.split(), namespace=namespace)
    entered = neighbours(device, namespace)
    assert len(entered) == 6
    return entered


@pytest.mark.parametrize("way", WAYS)
def test_neighbours_go_over(node: Node, way: Any) -> None:
    first, second = way(node)
    name, peer = replaced(node, second)
    near, far = acquaint(name, name[1:]), acquaint(peer, name[1:], "a")
    node.apply(second)
    peer = second["devices"][name]["peer"]["name"]
    assert (neighbours(name), neighbours(peer, "a")) == (near, far)
    node.apply(first)
    assert neighbours(name) == near


@pytest.mark.parametrize("way", WAYS)
def test_a_pair_stays_in_its_bridge(node: Node, way: Any) -> None:
    first, second = way(node)
    name, peer = replaced(node, second)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "br0", "up")
    ip("link", "set", name, "master", "br0")
    ip("link", "set", name, "type", "bridge_slave", "isolated", "on", "learning", "off", "cost", "77")
    ip("link", "add", "br1", "type", "bridge", namespace="a")
    ip("link", "set", peer, "master", "br1", namespace="a")
    outcome = node.apply(second)
    assert link(name)["master"] == "br0"
    port = link(name)["linkinfo"]["info_slave_data"]
    assert (port["isolated"], port["learning"], port["cost"]) == (True, False, 77)
    assert link(second["devices"][name]["peer"]["name"], "a")["master"] == "br1"
    assert "br0" in outcome.err  # its VLANs, say, are not carried
    node.apply(first)
    assert link(name)["master"] == "br0"


@pytest.mark.parametrize("way", WAYS)
def test_a_pair_stays_in_its_vrf(node: Node, way: Any) -> None:
    _, second = way(node)
    name, _ = replaced(node, second)
    made("red", "type", "vrf", "table", "77")
    ip("link", "set", "red", "up")
    ip("link", "set", name, "master", "red")
    node.apply(second)
    assert link(name)["master"] == "red"
    number = name[1:]
    assert f"10.7.{number}.0/24 dev {name}" in ip("route", "show", "table", "77")
    assert f"{ipaddress.ip_network(f'fd07:{number}::/64')} dev {name}" in ip("-6", "route", "show", "table", "77")


def test_what_is_in_a_bridge_goes_on(node: Node) -> None:
    """The workload's packets find their way through the bridge afterwards."""
    _, second = exchanged(node)
    name, _ = replaced(node, second)
    for line in ("link add br0 type bridge", "link set br0 up", f"link set {name} master br0"):
        ip(*line.split())
    number = name[1:]
    ip("addr", "add", f"10.7.{number}.9/24", "dev", "br0")
    ip("addr", "del", f"10.7.{number}.1/24", "dev", name)
    second["devices"][name]["addresses"] = []
    node.apply(second)
    assert any(pings("a", f"10.7.{number}.9") for _ in range(5))


@pytest.mark.parametrize("way", WAYS)
def test_going_back_brings_them_back(node: Node, way: Any) -> None:
    """After a run that failed, one that was killed, and one that was regretted."""
    _, second = way(node)
    name, peer = replaced(node, second)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", name, "master", "br0")
    near, far = acquaint(name, name[1:]), acquaint(peer, name[1:], "a")
    before = netstate_snapshot()
    node.write(second)

    def same() -> None:
        assert link(name)["master"] == "br0"
        assert (neighbours(name), neighbours(peer, "a")) == (near, far)
        assert differences(before, netstate_snapshot()) == []

    with injected("rename journal"):
        assert node.run("apply", "-y", str(node.path)).code == 1
    same()

    def work() -> None:
        with injected("rename journal", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    assert node.run("recover", "-y").code == 0
    same()
    node.apply(second)
    assert node.run("rollback", "-y").code == 0
    same()


def test_a_deleted_pair_comes_back_with_what_it_had(node: Node) -> None:
    first, _ = exchanged(node)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "v0", "master", "br0")
    ip("link", "set", "v0", "type", "bridge_slave", "isolated", "on")
    near, far = acquaint("v0", "0"), acquaint("eth0", "0", "a")
    del first["devices"]["v0"]
    node.apply(first)
    assert node.run("rollback", "-y").code == 0
    assert (neighbours("v0"), neighbours("eth0", "a")) == (near, far)
    assert link("v0")["linkinfo"]["info_slave_data"]["isolated"] is True


def test_a_bridge_that_has_gone_keeps_nothing_from_going_back(node: Node) -> None:
    first, _ = exchanged(node)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "v0", "master", "br0")
    del first["devices"]["v0"]
    node.apply(first)
    ip("link", "del", "br0")
    assert node.run("rollback", "-y").code == 0
    assert "master" not in link("v0")


def test_a_link_that_is_down_for_a_moment_keeps_its_neighbours(node: Node) -> None:
    first, _ = exchanged(node)
    near = acquaint("v0", "0")
    first["devices"]["v0"]["up"] = False
    node.write(first)
    with injected("rename journal"):
        assert node.run("apply", "-y", str(node.path)).code == 1
    assert neighbours("v0") == near


@pytest.mark.parametrize("way", WAYS)
def test_what_goes_is_said_by_name(node: Node, way: Any) -> None:
    _, second = way(node)
    name, peer = replaced(node, second)
    ip("netns", "add", "c")
    made("tagged", "type", "vlan", "id", "5", lower=name)
    made("inner", "type", "vlan", "id", "6", lower=peer, namespace="a")
    ip("link", "add", "link", name, "name", "far0", "netns", "c", "type", "vlan", "id", "7")
    said = node.plan(second).err
    assert "NK0426" in said
    for word in ("vlan tagged", "vlan far0 in c", "vlan inner in a"):
        assert word in said


@needs("tcx")
@pytest.mark.parametrize("way", WAYS)
def test_programs_and_queues_are_said_where_no_chain_is(node: Node, way: Any, others: Others) -> None:
    _, second = way(node)
    name, peer = replaced(node, second)
    others.attach(TCX_INGRESS, "tracer", 0, name)
    with inside("a"):
        others.attach(TCX_INGRESS, "inspector", 0, peer)
    said = node.plan(second).err
    for word in (
        "NK0426",
        f"program tracer at tcx_ingress of {name}",
        f"program inspector at tcx_ingress of {peer} in a",
    ):
        assert word in said
    assert "qdisc" not in said


@pytest.mark.parametrize("way", WAYS)
def test_an_xdp_program_is_said(node: Node, way: Any) -> None:
    _, second = way(node)
    name, peer = replaced(node, second)
    with Owned(prog_load(returns(XDP_PASS), "watcher", XDP)) as fd:
        bpf.pin(fd, "/sys/fs/bpf/watcher")
    number = prog_id("/sys/fs/bpf/watcher")
    ip("link", "set", "dev", name, "xdpgeneric", "pinned", "/sys/fs/bpf/watcher")
    said = node.plan(second).err
    assert f"XDP program {number} of {name}" in said
    assert f"of {peer}" not in said


@pytest.mark.parametrize("way", WAYS)
def test_further_names_are_said(node: Node, way: Any) -> None:
    _, second = way(node)
    name, peer = replaced(node, second)
    ip("link", "property", "add", "dev", name, "altname", "primary-by-another-name")
    ip("link", "property", "add", "dev", peer, "altname", "peer-by-another-name", namespace="a")
    said = node.plan(second).err
    assert f"name primary-by-another-name of {name}" in said
    assert f"name peer-by-another-name of {peer} in a" in said
    node.apply(second)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "words", ["pfifo limit 77", "tbf rate 1mbit burst 10k latency 10ms", "fq_codel limit 77 noecn", "fq limit 77"]
)
def test_queues_go_over(node: Node, way: Any, words: str) -> None:
    _, second = way(node)
    name, peer = replaced(node, second)
    queue("root", "handle", "7:", *words.split(), device=name)
    queue("root", *words.split(), device=peer, namespace="a")
    before = queues(name), queues(peer, "a")
    outcome = node.apply(second)
    assert "NK0426" not in outcome.err
    assert (queues(name), queues(second["devices"][name]["peer"]["name"], "a")) == before
    del second["devices"][name]
    node.apply(second)
    assert node.run("rollback", "-y").code == 0
    assert queues(name) == before[0]


def test_a_queue_with_classes_is_said(node: Node) -> None:
    _, second = exchanged(node)
    _, peer = replaced(node, second)
    queue("root", "htb", device=peer, namespace="a")
    assert f"qdisc htb of {peer} in a" in node.plan(second).err
    assert f"qdisc htb of {peer} in a" in node.apply(second).err


def test_filters_are_said_and_an_empty_clsact_is_not(node: Node, others: Others) -> None:
    _, second = exchanged(node)
    name, _ = replaced(node, second)
    sh("tc", "qdisc", "add", "dev", name, "clsact")
    assert "NK0426" not in node.plan(second).err
    others.attach(CLSACT_INGRESS, "tracer", 1, name)
    assert f"qdisc clsact of {name}" in node.plan(second).err


@pytest.mark.parametrize("way", WAYS)
def test_a_tunnel_that_goes_with_the_link_below_is_said(node: Node, way: Any) -> None:
    """The kernel deletes it (drivers/net/vxlan/vxlan_core.c, vxlan_handle_lowerdev_unregister)."""
    _, second = way(node)
    name, _ = replaced(node, second)
    ip("link", "add", "vx5", "type", "vxlan", "id", "5", "dev", name, "dstport", "4789")
    ip("link", "add", "vx6", "type", "vxlan", "id", "6", "dstport", "4790")
    said = node.plan(second).err
    assert "vxlan vx5" in said
    assert "vx6" not in said


def test_nothing_is_said_of_pairs_that_stay(node: Node) -> None:
    first, _ = exchanged(node)
    ip("link", "add", "br0", "type", "bridge")
    ip("link", "set", "v1", "master", "br0")
    first["devices"]["v0"]["mtu"] = 1400
    assert "NK0426" not in node.plan(first).err


def test_a_bond_is_said(node: Node) -> None:
    _, second = exchanged(node)
    name, _ = replaced(node, second)
    ip("link", "set", name, "down")
    made("bond0", "type", "bond")
    ip("link", "set", name, "master", "bond0")
    assert "bond0" in node.plan(second).err


ADDRESSES = {
    "point to point": "192.0.4.9 peer 192.0.4.10/32",
    "two with one local address": "192.0.5.9 peer 192.0.5.10/32;192.0.5.9 peer 192.0.5.11/32",
    "ipv6 point to point": "2001:db8:4::1 peer 2001:db8:4::2/128 nodad",
    "ipv6 point to point, metric": "2001:db8:5::1 peer 2001:db8:6::2/128 nodad metric 70",
    "two ipv6 with one far end": "2001:db8:4::1 peer 2001:db8:4::2 nodad;2001:db8:4::3 peer 2001:db8:4::2 nodad",
    "metric": "192.0.7.1/24 brd + metric 77",
    "scope": "192.0.8.1/24 brd 192.0.8.77 scope link",
    "label": "192.0.9.1/24 label v0:vip",
    "ipv6 metric": "2001:db8:7::1/64 nodad noprefixroute metric 50",
    "ipv6 home": "2001:db8:8::1/64 nodad home",
    "deprecated": "2001:db8:a::1/64 nodad preferred_lft 0",
    "for some time": "192.0.10.1/24 valid_lft 3600 preferred_lft 3600",
}


def another_queue(node: Node) -> tuple[Spec, Spec]:
    """A veth that is built anew beside the old one, for it is to have another number of queues."""
    peer = {"name": "eth0", "namespace": "web", "addresses": ["10.0.0.2/24"]}
    device = {"kind": "veth", "addresses": ["10.0.0.1/24"], "peer": peer}
    first: Spec = {"version": 1, "node": "n", "namespaces": {"web": {"create": True}}, "devices": {"v0": device}}
    node.apply(first)
    second = copy.deepcopy(first)
    second["devices"]["v0"]["numtxqueues"] = 3
    return first, second


def wrong(_: object) -> None:
    raise fail("NK0502", "not all is as declared")


def seen(digits: str) -> list[str]:
    """Addresses, their attributes and the routes that come with them; without seconds, and without the numbers that the
    kernel puts behind a name that changed."""
    lines = ip("addr", "show", "dev", "v0").splitlines()[2:] + ip("route").splitlines()
    lines += [line for line in ip("-6", "route").splitlines() if "fe80::" not in line]
    pairs = [(line, lines[place + 1] if place + 1 < len(lines) else "") for place, line in enumerate(lines)]
    kept = [re.sub(rf"v0:{digits}+$", "v0", line.strip()) for line, _ in pairs if "valid_lft" not in line]
    return sorted(line for line in kept if "fe80::" not in line) + [
        f"{line.split()[1]} {after.split()[-1]}" for line, after in pairs if "preferred_lft 0sec" in after
    ]


@pytest.mark.parametrize("lines", ADDRESSES.values(), ids=ADDRESSES.keys())
@pytest.mark.parametrize("ended", ["applied", "undone", "rolled back"])
def test_an_address_of_others_goes_over_as_it_is(
    node: Node, lines: str, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, second = another_queue(node)
    for line in lines.split(";"):
        ip("addr", "add", *line.split(), "dev", "v0")
    label = r"\w" if ended == "undone" else r"\d"  # a label may go when the name changes for a moment
    before = seen(label)
    if ended == "undone":
        with monkeypatch.context() as patch:
            patch.setattr(transaction, "_verify", wrong)
            assert "NK0505" in node.refused(second, command="apply")
    else:
        assert "NK0521" not in node.apply(second).err
        if ended == "rolled back":
            assert node.run("rollback", "-y").code == 0
    assert seen(label) == before


@pytest.mark.parametrize("anew", [True, False], ids=["made anew", "changed in place"])
def test_what_others_cannot_have_again_is_told_after_the_run(node: Node, anew: bool) -> None:
    """An MTU that is too small for IPv6, which plan cannot know to matter to anybody else."""
    first, second = another_queue(node)
    spec = second if anew else first
    spec["devices"]["v0"]["mtu"] = 1000
    spec["devices"]["v0"]["addresses"].append("10.9.0.1/24")
    for line in "addr add 10.9.0.1/24 dev v0", "addr add 10.8.0.1/24 dev v0", "route add 198.18.0.0/15 via 10.8.0.9":
        ip(*line.split())
    ip("addr", "add", "2001:db8:9::1/64", "dev", "v0", "nodad")
    ip("-6", "route", "add", "2001:db8:a::/64", "via", "2001:db8:9::9")
    outcome = node.apply(spec, "--adopt")
    (told,) = [line for line in outcome.err.splitlines() if "NK0521" in line]
    assert "address 2001:db8:9::1/64 of v0" in told
    assert "route 2001:db8:a::/64 via 2001:db8:9::9 through v0" in told
    assert "10.8.0" not in told
    assert "10.9.0" not in told
    assert node.run("rollback", "-y").code == 0
    assert "2001:db8:a::/64 via 2001:db8:9::9" in ip("-6", "route")


ROUTES = {
    "behind a lease": ["addr add 192.168.1.5/24 dev eth0 valid_lft 3600 preferred_lft 3600",
                       "route add default via 192.168.1.1 proto dhcp"],
    "a gateway with a route": ["route add 192.168.3.1/32 dev eth0", "route add default via 192.168.3.1"],
    "a longer route to the gateway": ["route add 192.0.2.0/24 dev eth0", "route add 100.64.0.0/10 via 192.0.2.1"],
    "two stages of IPv6": ["-6 route add 2001:db8:1::/64 dev eth0",
                           "-6 route add 2001:db8:2::/64 via 2001:db8:1::1"],
    "behind a lease of IPv6": ["addr add 2001:db8:3::5/64 dev eth0 nodad valid_lft 3600 preferred_lft 3600",
                               "-6 route add default via 2001:db8:3::1"],
    "a gateway that is reached no more": ["addr add 192.168.4.5/24 dev eth0", "route add 198.18.0.0/15 via 192.168.4.1",
                                          "addr add 192.168.4.5/32 dev eth0", "addr del 192.168.4.5/24 dev eth0"],
    "through a point to point address": ["addr add 192.0.6.9 peer 192.0.6.10/32 dev eth0",
                                         "route add 198.18.0.0/16 via 192.0.6.10"],
}  # fmt: skip


@pytest.mark.parametrize("lines", ROUTES.values(), ids=ROUTES.keys())
def test_a_route_of_others_goes_over_with_what_it_stands_on(node: Node, lines: list[str]) -> None:
    """A workload must not be able to keep a pair from being made anew, nor a trial from going back."""
    _, second = another_queue(node)
    for line in lines:
        ip(*line.split(), namespace="web")

    def routes() -> list[str]:
        shown = ip("route", namespace="web") + ip("-6", "route", namespace="web")
        kept = [line.strip() for line in shown.splitlines() if "fe80::" not in line]
        return sorted(line.partition(" expires")[0].replace(" onlink", "") for line in kept)

    before = routes()
    assert any("via" in line for line in before)
    assert "NK0521" not in node.apply(second).err
    assert routes() == before
    assert node.run("rollback", "-y").code == 0
    assert routes() == before
