"""What others have on our devices, their addresses and routes, is not lost by a run that fails or is taken back."""

from __future__ import annotations

import copy
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.helpers.attack import in_child, killed_after
from tests.live.helpers.chain_sites import inside
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.netstate import Netstate, differences, netstate_snapshot
from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, ip, kinds, link, links
from tests.live.test_confirm import guardians as alive
from tests.live.test_pairs import veth
from tests.live.test_undo import struck
from tests.sizes import LAB

Spec = dict[str, Any]


def spec(kind: str = "veth") -> Spec:
    made = veth(kind)
    made["devices"]["to-a"]["addresses"] = ["10.7.0.1/24", "10.7.0.2/24", "fd00:7::1/64"]
    return made


def deleted(made: Spec) -> None:
    del made["devices"]["to-a"]


def down(made: Spec) -> None:
    made["devices"]["to-a"]["up"] = False


def small(made: Spec) -> None:
    """Too small a link for IPv6."""
    made["devices"]["to-a"]["mtu"] = 1000
    made["devices"]["to-a"]["addresses"] = ["10.7.0.1/24", "10.7.0.2/24"]


def without_ipv6(made: Spec) -> None:
    made["devices"]["to-a"]["sysctl"] = {"ipv6": {"disable_ipv6": 1}}
    made["devices"]["to-a"]["addresses"] = ["10.7.0.1/24", "10.7.0.2/24"]


def readdressed(made: Spec) -> None:
    made["devices"]["to-a"]["addresses"] = ["10.7.0.3/24"]


def without_addresses(made: Spec) -> None:
    made["devices"]["to-a"]["addresses"] = []


def moved(made: Spec) -> None:
    made["devices"]["to-a"]["peer"] |= {"name": "net0", "namespace": "b", "routes": []}


def moved_and_smaller(made: Spec) -> None:
    """Into a namespace that comes with it."""
    made["namespaces"]["new"] = {"create": True}
    made["devices"]["to-a"] |= {"mtu": 1400}
    made["devices"]["to-a"]["peer"] |= {"name": "net0", "namespace": "new", "routes": []}


WAYS = (deleted, down, small, without_ipv6, readdressed, without_addresses, moved, moved_and_smaller)


@pytest.fixture
def outside() -> None:
    ip("link", "add", "uplink", "type", "veth", "peer", "name", "far")
    for name in ("uplink", "far"):
        ip("link", "set", name, "addrgenmode", "none", "up")


def others() -> None:
    """Addresses and routes of a routing daemon, on a device of ours, at its peer, and where they lean on it."""
    for line in (
        "addr add 192.0.2.1/24 dev to-a",
        "addr add 2001:db8::1/64 dev to-a nodad",
        "route add 198.51.100.0/25 dev to-a proto bird",
        "route add 198.51.100.128/25 via 10.7.0.9 dev to-a proto bird metric 7 mtu 1300",
        "route add 203.0.113.1/32 dev to-a proto bird",
        "route add 198.51.99.0/24 via 203.0.113.1 dev to-a proto bird",
        "route add 198.51.101.0/24 dev to-a proto bird table 77 src 192.0.2.1",
        "route add 198.51.102.0/24 dev uplink proto bird src 10.7.0.1",
        "route add 198.51.103.0/24 dev uplink src 10.7.0.2 metric 9",
        "-6 route add 2001:db8:1::/48 dev to-a proto bird",
        "-6 route add 2001:db8:2::/48 via 2001:db8::2 dev to-a proto bird",
        "-6 route add 2001:db8:3::/48 dev to-a proto bird src fd00:7::1",
    ):
        ip(*line.split())
    ip("route", "add", "198.51.104.0/24", "dev", "eth0", "proto", "bird", namespace="a")
    ip("addr", "add", "192.0.2.2/32", "dev", "eth0", namespace="a")
    for key, value in (("hop_limit", 33), ("accept_ra", 0), ("addr_gen_mode", 1), ("forwarding", 1)):
        Path(f"/proc/sys/net/ipv6/conf/to-a/{key}").write_text(str(value))
    with inside("a"):
        Path("/proc/sys/net/ipv6/conf/eth0/hop_limit").write_text("34")


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", kinds())
def test_undoing_gives_others_what_they_had(node: Node, kind: str, way: Callable[[Spec], None]) -> None:
    changed = spec(kind)
    node.apply(changed)
    others()
    way(changed)
    struck(node, changed, "rename journal")


def virtual(below: str, name: str, number: int) -> None:
    """A link upon another one: a VLAN, or a macvlan where this kernel has none."""
    try:
        ip("link", "add", "link", below, "name", name, "type", "vlan", "id", str(number))
    except AssertionError:
        ip("link", "add", "link", below, "name", name, "type", "macvlan", "mode", "bridge")


def bridge(mtu: int = 0) -> None:
    ip("link", "add", "above", "type", "bridge")
    ip("link", "set", "to-a", "master", "above")
    if mtu:
        ip("link", "set", "above", "mtu", str(mtu))


def two() -> None:
    virtual("to-a", "below", 7)
    ip("link", "set", "below", "up")
    virtual("below", "above", 8)


def bridged() -> None:
    virtual("to-a", "below", 7)
    ip("link", "add", "above", "type", "bridge")
    ip("link", "set", "below", "master", "above", "up")


PLACES = ("ipv6 above", "above ipv6", "ipv6 below", "below ipv6")
UPON = {
    "a link": lambda: virtual("to-a", "above", 7),
    "two links": two,
    "a bridge": bridge,
    "a bridge with an MTU of its own": lambda: bridge(1450),
    "a bridge with a link upon the device": bridged,
}


def sizes() -> dict[str, int]:
    """The MTUs of all links."""
    return {name: link(name)["mtu"] for name in links()}


def same(before: Netstate, mtus: dict[str, int]) -> None:
    """All is as before but the timers of a bridge and IPv6 sysctls of links of others, which are not given again."""
    assert sizes() == mtus
    moving = (" attribute info 2 ", *(f"{part}: {place}" for part in ("files", "sysctls") for place in PLACES))
    assert [line for line in differences(before, netstate_snapshot()) if not any(each in line for each in moving)] == []


# Since Linux 7 a VLAN follows later, and may lose its IPv6 addresses after all that nkform can look at.
@pytest.mark.parametrize("mtu", [1400] if LAB else [1400, 1000])
@pytest.mark.parametrize("make", UPON.values(), ids=UPON)
def test_undoing_gives_what_stands_upon_a_device_its_mtu_again(node: Node, make: Callable[[], None], mtu: int) -> None:
    """And its addresses and routes, where that was too small for IPv6."""
    changed = veth()
    changed["devices"]["to-a"] |= {"mtu": 1500, "addresses": []}
    node.apply(changed)
    make()
    ip("link", "set", "above", "addrgenmode", "none", "up")
    ip("addr", "add", "2001:db8:7::1/64", "dev", "above", "nodad")
    ip("addr", "add", "192.0.2.7/24", "dev", "above")
    ip("-6", "route", "add", "2001:db8:8::/48", "dev", "above", "proto", "bird")
    before, mtus = netstate_snapshot(), sizes()
    changed["devices"]["to-a"] |= {"mtu": mtu}
    node.write(changed)
    with injected("rename journal") as injection:
        assert node.run("apply", "-y", str(node.path)).code == 1
    assert injection.hit
    same(before, mtus)
    assert ("NK0521" in node.apply().err) == ("master" not in link("to-a"))  # a bridge has its own
    assert node.run("rollback", "-y").code == 0
    same(before, mtus)


def test_an_mtu_that_somebody_raised_meanwhile_stays(node: Node) -> None:
    """And routes through a link upon the device are not noted where the MTU leaves IPv6 alone: there may be many."""
    changed = veth()
    changed["devices"]["to-a"] |= {"mtu": 2000, "addresses": []}
    node.apply(changed)
    virtual("to-a", "above", 7)
    ip("link", "set", "above", "mtu", "1900", "up")
    ip("addr", "add", "192.0.2.7/24", "dev", "above")
    ip("route", "add", "198.51.100.0/24", "dev", "above", "proto", "bird")
    changed["devices"]["to-a"] |= {"mtu": 1500}
    node.apply(changed)
    noted = Path("/run/nkform/w/previous").read_text()
    assert '"kind":"mtu"' in noted
    assert '"kind":"route"' not in noted
    ip("link", "set", "to-a", "mtu", "3000")
    ip("link", "set", "above", "mtu", "2500")
    ip("link", "set", "to-a", "mtu", "2500")
    assert node.run("rollback", "-y").code == 0
    assert link("to-a")["mtu"] == 2000
    until(lambda: link("above")["mtu"] == 2000)


@pytest.mark.parametrize("line", ["addr add 2001:db8::1/64 dev to-a nodad", "addr add 192.0.2.1/32 dev to-a"])
def test_undoing_what_came_up_gives_others_what_they_had(node: Node, line: str) -> None:
    changed = veth()
    changed["devices"]["to-a"] |= {"up": False, "addresses": []}
    changed["devices"]["to-a"]["peer"]["routes"] = []
    node.apply(changed)
    ip(*line.split())
    changed["devices"]["to-a"] |= {"up": True, "addresses": ["10.7.0.1/24", "fd00:7::1/64"]}
    struck(node, changed, "rename journal")


def test_undoing_the_first_address_gives_others_what_they_had(node: Node) -> None:
    changed = veth()
    changed["devices"]["to-a"]["addresses"] = []
    node.apply(changed)
    ip("route", "add", "198.51.100.0/25", "dev", "to-a", "proto", "bird")
    ip("-6", "route", "add", "2001:db8:1::/48", "dev", "to-a", "proto", "bird")
    changed["devices"]["to-a"]["addresses"] = ["10.7.0.1/24"]
    struck(node, changed, "rename journal")


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("way", WAYS)
def test_going_back_gives_others_what_they_had(node: Node, way: Callable[[Spec], None]) -> None:
    """After a run that was killed, and after one that was regretted."""
    changed = spec()
    node.apply(changed)
    others()
    way(changed)
    before = netstate_snapshot()
    node.write(changed)

    def work() -> None:
        with injected("rename journal", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    outcome = node.run("recover", "-y")
    assert (outcome.code, "NK0521" in outcome.err) == (0, False), outcome.err
    assert differences(before, netstate_snapshot()) == []
    node.apply(changed)
    outcome = node.run("rollback", "-y")
    assert (outcome.code, "NK0521" in outcome.err) == (0, False), outcome.err
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("change", [deleted, moved, small])
def test_going_back_past_a_killed_run_gives_what_the_next_one_took(node: Node, change: Callable[[Spec], None]) -> None:
    """The first run would only have raised an MTU, so it noted no sysctls."""
    first = spec()
    first["devices"]["to-a"]["sysctl"] = {"ipv4": {"rp_filter": 1}}
    node.apply(first)
    others()
    before = netstate_snapshot()
    second = copy.deepcopy(first)
    second["devices"]["to-a"]["mtu"] = 2000
    node.write(second)

    def work() -> None:
        with injected("rename journal", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    third = copy.deepcopy(first)
    change(third)
    node.apply(third)
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("killed", [True, False], ids=["recover", "rollback"])
def test_going_back_names_what_others_have_no_more(node: Node, killed: bool) -> None:
    """A route of theirs went with our address, and the device that it leads through has been taken down since."""
    changed = spec()
    node.apply(changed)
    ip("route", "add", "198.51.102.0/24", "dev", "uplink", "proto", "bird", "src", "10.7.0.1")
    readdressed(changed)
    node.write(changed)

    def work() -> None:
        with injected("rename journal" if killed else "no call", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == (-signal.SIGKILL if killed else 0)
    assert "198.51.102.0" not in ip("route", "show")
    ip("link", "set", "uplink", "down")
    outcome = node.run("recover" if killed else "rollback", "-y")
    assert outcome.code == 0, outcome.err
    assert "warning[NK0521]: what others had could not be had again: a route of others through uplink" in outcome.err
    ip("link", "set", "uplink", "up")
    ip("route", "add", "198.51.102.0/24", "dev", "uplink", "proto", "bird", "src", "10.7.0.1")


@pytest.mark.usefixtures("outside")
def test_the_way_back_leads_past_what_others_did_since(node: Node) -> None:
    """A routing daemon has found another way meanwhile: its old one does not come back beside it."""
    changed = spec()
    node.apply(changed)
    others()
    deleted(changed)
    node.apply(changed)
    ip("route", "add", "198.51.100.0/25", "dev", "uplink", "proto", "bird")
    assert node.run("rollback", "-y").code == 0
    found = [line.split() for line in ip("route", "show").splitlines() if line.startswith("198.51.100.")]
    assert sorted((words[0], words[words.index("dev") + 1]) for words in found) == [
        ("198.51.100.0/25", "uplink"),
        ("198.51.100.128/25", "to-a"),
    ]


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize("kind", kinds())
def test_a_run_that_is_done_takes_no_more_than_it_must(node: Node, kind: str) -> None:
    """Addresses that change their places are never gone for those who name them; nor is a device that is made anew."""
    first = spec(kind)
    node.apply(first)
    others()
    before = netstate_snapshot()
    second = spec(kind)
    second["devices"]["to-a"]["addresses"] = ["10.7.0.2/24", "10.7.0.1/24", "fd00:7::1/64"]
    node.apply(second)
    node.apply(first)
    assert differences(before, netstate_snapshot()) == []
    second["devices"]["to-a"]["up"] = False
    node.apply(second)
    node.apply(first)
    there = [line for line in netstate_snapshot()["root: addresses"] if line.startswith("to-a")]
    assert there == [line for line in before["root: addresses"] if line.startswith("to-a")]


@pytest.mark.parametrize("way", ["rollback", "nobody"])
def test_what_its_owner_took_away_since_is_not_given_again(node: Node, way: str) -> None:
    """What the run itself has taken away is."""
    made = spec()
    made["devices"]["to-a"]["peer"]["up"] = True
    node.apply(made)
    for line in (
        "addr add 192.0.2.1/24 dev to-a",
        "addr add 192.0.2.99/32 dev to-a",
        "addr add 2001:db8::1/64 dev to-a nodad",
        "addr add 2001:db8::99/64 dev to-a nodad",
        "route add 198.51.100.0/24 via 10.7.0.9 dev to-a proto bird",
        "route add 198.51.101.0/24 via 10.7.0.9 dev to-a proto bird",
        "neigh add 10.7.0.9 lladdr 02:00:00:00:00:09 dev to-a nud permanent",
        "neigh add 10.7.0.8 lladdr 02:00:00:00:00:08 dev to-a nud permanent",
    ):
        ip(*line.split())
    small(made)
    made["devices"]["to-a"]["numtxqueues"] = 2
    node.write(made)
    trial = ["--confirm", "3s", "--detach"] if way == "nobody" else []
    outcome = node.run("apply", "-y", *trial, str(node.path))
    assert outcome.code == 0, outcome.err
    assert "2001:db8" not in ip("addr", "show", "dev", "to-a")  # the link is too small for it
    ip("addr", "del", "192.0.2.99/32", "dev", "to-a")
    ip("route", "del", "198.51.101.0/24")
    ip("neigh", "del", "10.7.0.8", "dev", "to-a")
    if way == "rollback":
        assert node.run("rollback", "-y").code == 0
    else:
        until(lambda: not alive() and link("to-a")["mtu"] == 1500)  # the link is another one in between
    addresses, routes = ip("addr", "show", "dev", "to-a"), ip("route")
    assert "192.0.2.1/24" in addresses
    assert "192.0.2.99" not in addresses
    assert "2001:db8::1/64" in addresses
    assert "198.51.100.0/24" in routes
    assert "198.51.101.0/24" not in routes
    assert "10.7.0.9" in ip("neigh", "show", "nud", "permanent", "dev", "to-a")
    assert "10.7.0.8" not in ip("neigh", "show", "nud", "permanent", "dev", "to-a")


def test_what_others_had_is_not_given_to_a_stranger_of_the_same_name(node: Node) -> None:
    node.apply(spec())
    ip("addr", "add", "192.0.2.1/24", "dev", "to-a")
    ip("route", "add", "198.51.100.0/24", "dev", "to-a")
    made = spec()
    deleted(made)
    node.write(made)
    killed_after(node, 1)
    ip("link", "add", "to-a", "type", "veth", "peer", "name", "foreign1")
    ip("link", "set", "to-a", "up")
    outcome = node.run("recover", "-y")
    assert outcome.code == 1
    assert "NK0412" in outcome.err
    assert "192.0.2.1" not in ip("addr", "show", "dev", "to-a")
    assert "198.51.100.0" not in ip("route")


def test_a_namespace_goes_whatever_routes_a_workload_has_there(node: Node) -> None:
    """One through its own `lo` that names our address as its source: it is gone with the namespace."""
    node.apply(spec())
    ip("link", "set", "lo", "up", namespace="a")
    (source,) = (each for each in ip("-4", "-br", "addr", "show", "dev", "eth0", namespace="a").split() if "/" in each)
    ip("route", "add", "198.51.100.0/24", "dev", "lo", "src", source.partition("/")[0], namespace="a")
    made = spec()
    deleted(made)
    del made["namespaces"]["a"]
    node.apply(made)
    assert "a" not in ip("netns", "list").split()
