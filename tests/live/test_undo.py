"""What a run that failed, or was killed, must not leave: each of these once did. Nor do others stand in the way."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nkform.kernel.netns import Namespaces
from tests.live.helpers.attack import in_child, killed_after
from tests.live.helpers.chain_sites import DEVICE, TCX_INGRESS, Others
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, ip, needs
from tests.live.test_pairs import veth
from tests.live.test_runs import changed

pytestmark = pytest.mark.usefixtures("made_once")


def subnet(*hosts: int) -> dict[str, Any]:
    """Addresses of one subnet, the first of which is the one that the kernel sends from."""
    spec = veth()
    spec["devices"]["to-a"]["addresses"] = [f"10.7.0.{host}/24" for host in hosts]
    return spec


def struck(node: Node, spec: dict[str, Any], call: str) -> str:
    """What is said of a run one of whose calls failed. All is as before, and nothing waits to be recovered."""
    before = netstate_snapshot()
    node.write(spec)
    with injected(call) as injection:
        outcome = node.run("apply", "-y", str(node.path))
    assert injection.hit, injection.made
    assert outcome.code == 1, outcome.err
    assert differences(before, netstate_snapshot()) == []
    assert "NK0505" in outcome.err
    assert "Nothing to recover" in node.run("recover").out
    return outcome.err


def test_what_cannot_be_given_back_at_once_is_when_the_run_is_undone(node: Node) -> None:
    node.apply(subnet(1, 2))
    Path("/proc/sys/net/ipv4/conf/to-a/promote_secondaries").write_text("0")
    struck(node, subnet(2), "set sysctl ipv4.promote_secondaries of to-a to 0")


def test_what_was_lent_is_given_back_under_the_name_that_it_was_lent_under(node: Node) -> None:
    """The peer has got another name by then, and has its old one again after the undoing."""
    spec = veth()
    spec["devices"]["to-a"]["peer"]["addresses"] = ["10.7.0.1/24", "10.7.0.2/24"]
    node.apply(spec)
    ip("netns", "exec", "a", "sysctl", "-qw", "net.ipv4.conf.eth0.promote_secondaries=0")
    spec["devices"]["to-a"]["peer"] |= {"name": "new0", "addresses": ["10.7.0.2/24"]}
    struck(node, spec, "set sysctl ipv4.promote_secondaries of new0 to 0")


def test_a_run_that_is_done_and_not_on_record_is_undone(node: Node) -> None:
    """Undoing changes a sysctl for a moment in its turn, which goes into the journal too."""
    node.apply(subnet(1, 2))
    Path("/proc/sys/net/ipv4/conf/to-a/promote_secondaries").write_text("0")
    spec = subnet(2)
    spec["devices"]["to-a"]["addresses"].append("10.7.0.3/24")
    struck(node, spec, "rename journal")


def test_links_of_others_come_and_go_and_going_back_is_none_the_worse(node: Node) -> None:
    """On a node with pods they do so all the time."""
    node.apply(veth())
    before = netstate_snapshot()
    ip("link", "add", "pod0", "type", "veth", "peer", "name", "pod0-p")
    spec = changed()
    spec["devices"]["to-a"]["peer"]["routes"] = [{"to": "default", "via": "203.0.113.1"}]
    assert "NK0505" in node.refused(spec, command="apply")
    node.write(changed())
    killed_after(node, 3)
    ip("link", "delete", "pod0")
    ip("link", "add", "pod1", "netns", "a", "type", "veth", "peer", "name", "pod1-p")
    outcome = node.run("recover", "-y")
    assert outcome.code == 0, outcome.err
    ip("link", "delete", "pod1-p")
    assert differences(before, netstate_snapshot()) == []
    node.apply(changed())
    ip("link", "add", "pod2", "type", "veth", "peer", "name", "pod2-p")
    outcome = node.run("rollback", "-y")
    assert outcome.code == 0, outcome.err
    ip("link", "delete", "pod2")
    assert differences(before, netstate_snapshot()) == []


def test_devices_that_never_got_their_mark_go_again(node: Node) -> None:
    node.apply({"version": 1, "node": "w", "devices": {}})
    struck(node, veth(), "set alias nkform:w on to-a")


def test_plan_knows_what_a_killed_run_made_and_did_not_mark(node: Node) -> None:
    """And does not take it for somebody else's, as `apply` and `recover` do not."""
    node.write(veth())

    def work() -> None:
        with injected("set alias nkform:w on to-a", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    outcome = node.plan()
    assert outcome.code == 0, outcome.err
    assert "NK0511" in outcome.err
    assert "nkform recover" in outcome.err
    node.apply()


@pytest.mark.parametrize("call", ["umount2", "unlink /run/netns/b"])
def test_a_namespace_that_cannot_be_deleted_is_there_and_whole(node: Node, call: str) -> None:
    node.apply(veth())
    struck(node, {"version": 1, "node": "w", "namespaces": {"a": {"create": True}}, "devices": {}}, call)
    assert node.changes(veth()) == []


def test_a_namespace_of_others_has_taken_a_name_meanwhile(node: Node) -> None:
    """It is theirs, and no reason to say that the node is not as before."""
    node.apply(veth())
    spec = changed()
    spec["namespaces"] |= {"new1": {"create": True}, "new2": {"create": True}}
    genuine = Namespaces.create

    def create(self: Namespaces, name: str, inside: Callable[[], None]) -> None:
        if name == "new2":
            ip("netns", "add", "new2")
        genuine(self, name, inside)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Namespaces, "create", create)
        error = node.refused(spec, command="apply")
    assert "create namespace new2" in error
    assert "NK0505" in error
    assert sorted(path.name for path in Path("/run/netns").iterdir()) == ["a", "b", "new2"]
    assert "Nothing to recover" in node.run("recover").out


def test_a_name_of_a_namespace_that_a_killed_run_left_goes(node: Node) -> None:
    """It has been unmounted, and is a plain file."""
    node.apply(veth())
    nothing = {"version": 1, "node": "w", "devices": {}}
    node.write(nothing)

    def work() -> None:
        with injected("unlink /run/netns/", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    node.apply(nothing)
    assert list(Path("/run/netns").iterdir()) == []


def order(device: str) -> list[str]:
    """The IPv4 addresses of a device as `ip` lists them: the first of a subnet is what is sent from."""
    lines = ip("-4", "-o", "address", "show", "dev", device).splitlines()
    return [line.split()[3] for line in lines]


def test_addresses_come_back_in_their_order(node: Node) -> None:
    """Also when nobody is there any more to undo the very steps, and with a route that names one as its source."""
    spec = subnet(1, 2, 3)
    spec["devices"]["to-a"]["routes"] = [{"to": "10.8.0.0/16", "src": "10.7.0.3"}]
    node.apply(spec)
    before, there = netstate_snapshot(), order("to-a")
    spec["devices"]["to-a"]["addresses"] = ["10.7.0.3/24"]
    node.write(spec)

    def work() -> None:
        with injected("rename journal", kill=True):
            node.run("apply", "-y", str(node.path))

    assert in_child(work) == -signal.SIGKILL
    assert order("to-a") == ["10.7.0.3/24"]
    assert node.run("recover", "-y").code == 0
    assert order("to-a") == there
    assert differences(before, netstate_snapshot()) == []
    node.apply(spec)
    assert node.run("rollback", "-y").code == 0
    assert order("to-a") == there
    assert differences(before, netstate_snapshot()) == []


@needs("tcx")
def test_what_others_put_on_our_devices_is_no_obstacle_to_going_back(node: Node) -> None:
    """A tracer's program and somebody's address have come since the apply, and one that was there has gone."""
    node.apply(TCX_INGRESS.spec(["count"]))
    ip("address", "add", "192.0.2.1/32", "dev", DEVICE)
    before = netstate_snapshot()
    node.apply(TCX_INGRESS.spec(["guard", "count"]))
    others = Others()
    try:
        others.attach(TCX_INGRESS, "tracer", 20000)
        ip("address", "add", "192.0.2.2/32", "dev", DEVICE)
        ip("address", "delete", "192.0.2.1/32", "dev", DEVICE)
        outcome = node.run("rollback", "-y")
        assert outcome.code == 0, outcome.err
        assert [each.name for each in TCX_INGRESS.running() if not each.ours] == ["tracer"]
    finally:
        others.close()
    ip("address", "delete", "192.0.2.2/32", "dev", DEVICE)
    ip("address", "add", "192.0.2.1/32", "dev", DEVICE)
    assert differences(before, netstate_snapshot()) == []
