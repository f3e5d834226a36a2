"""When an action fails, the node is as before; when the kernel keeps something else, that is an error."""

from __future__ import annotations

import errno

import pytest

from nkform.apply.executor import Executor
from nkform.kernel.error import KernelError
from nkform.plan.actions import Action
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.support import Node, dump, ip, links
from tests.live.test_pairs import veth

pytestmark = pytest.mark.usefixtures("made_once")


def ip_state() -> str:
    """The node and both workloads, as far as they are there; the order of creation aside."""
    there = [name.split()[0] for name in ip("netns").splitlines()]
    return "\n".join([*sorted(there), *(_unnumbered(dump(name)) for name in ("", *sorted(there)))])


def _unnumbered(text: str) -> str:
    """Without ifindexes and what follows from them: a link that was deleted and made again gets a new number."""
    import re

    text = re.sub(r"^\d+: ", "", text, flags=re.M)
    text = re.sub(r"@if\d+", "@", text)
    text = re.sub(r"link-netnsid \d+", "", text)
    text = re.sub(r"NO-CARRIER,|,LOWER_UP|,M-DOWN|state \w+", "", text)  # follows some time after the fact
    text = re.sub(r"link/ether [0-9a-f:]+", "link/ether", text)
    # The kernel gives a link its own link-local address and the routes of it some time after the link came up.
    moving = re.compile(r"fe80::[0-9a-f]+:|fe80::/64 .*proto kernel|ff00::|^anycast|valid_lft")
    return "\n".join(sorted(line.strip() for line in text.splitlines() if not moving.search(line)))


def changed() -> dict[str, object]:
    """A spec that differs from `veth` in every way that an action knows."""
    spec = veth()
    first, second = spec["devices"]["to-a"], spec["devices"].pop("to-b")
    first.update(mtu=1400, addresses=["10.7.0.1/24", "fd00::1/64"], routes=[{"to": "10.0.0.1/32", "mtu": 1300}])
    first["peer"].update(name="net0", addresses=["10.0.0.1/32", "10.7.0.2/24"])
    first["sysctl"]["ipv4"]["rp_filter"] = 2
    spec["devices"]["to-c"] = {**second, "peer": {**second["peer"], "namespace": "c"}}
    del spec["namespaces"]["b"]
    spec["namespaces"]["c"] = {"create": True}
    return spec


def test_a_failure_at_any_action_leaves_the_node_as_it_was(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    node.apply(veth())
    before = ip_state()
    total = len(node.plan(changed(), "--json").json()["actions"])
    assert total >= 20
    genuine = Executor.run
    for place in range(total):

        def failing(self: Executor, actions: list[Action], place: int = place) -> None:
            if len(actions) != total:  # the undoing
                genuine(self, actions)
                return
            genuine(self, actions[:place])
            raise KernelError(errno.ENOMEM, f"carry out action {place}")

        monkeypatch.setattr(Executor, "run", failing)
        error = node.refused(changed(), command="apply")
        assert "NK0501" in error
        assert "NK0503" not in error, error
        assert "NK0504" not in error, error
        assert ip_state().splitlines() == before.splitlines(), f"after action {place}"
    monkeypatch.setattr(Executor, "run", genuine)
    node.apply(changed())


def test_a_name_that_is_taken_between_plan_and_apply(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Executor.run
    spoilt = False

    def late(self: Executor, actions: list[Action]) -> None:
        nonlocal spoilt
        if not spoilt:
            spoilt = True
            ip("link", "add", "to-b", "type", "veth", "peer", "name", "thief")
        genuine(self, actions)

    monkeypatch.setattr(Executor, "run", late)
    error = node.refused(veth(), command="apply")
    assert "create veth to-b" in error
    assert "EEXIST" in error
    assert links() == {"to-b", "thief"}
    assert "nkform" not in dump()
    assert ip("netns").strip() == ""


def test_a_route_that_the_kernel_refuses(node: Node) -> None:
    spec = veth()
    node.apply(spec)  # nobody else has a route through a device to come: plan would refuse it (NK0462)
    spec["devices"]["to-a"]["peer"]["routes"] = [{"to": "default", "via": "203.0.113.1"}]
    before = ip_state()
    error = node.refused(spec, command="apply")
    assert "NK0501" in error
    assert "0.0.0.0/0" in error
    assert "onlink" in error
    assert ip_state() == before


def test_a_foreign_route_like_ours_stops_the_apply(node: Node) -> None:
    ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    ip("link", "set", "other0", "up")
    ip("route", "add", "10.0.0.1/32", "dev", "other0")
    before = ip_state()
    error = node.refused(veth(), command="apply")
    assert "10.0.0.1/32" in error
    assert ip_state() == before


def test_what_the_kernel_ignored_is_an_error(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that acknowledges a change and does not make it: here, one that never hears of an MTU."""
    from nkform.kernel import link_requests as room

    genuine = room.change
    node.apply(veth())
    spec = veth()
    spec["devices"]["to-a"]["mtu"] = 1400
    before = ip_state()
    monkeypatch.setattr(
        room,
        "change",
        lambda name, values, index: genuine(name, {k: v for k, v in values.items() if k != "mtu"}, index),
    )
    error = node.refused(spec, command="apply")
    assert "NK0502" in error
    assert "mtu" in error
    assert "spec.yaml" in error
    assert ip_state() == before


def test_sysctls_of_an_end_that_was_renamed_come_back(node: Node) -> None:
    """The spec names them under the new name, which nothing had when the plan was made."""
    spec = veth()
    peer = spec["devices"]["to-a"]["peer"]
    peer["sysctl"] = {"ipv4": {"rp_filter": 2}}
    node.apply(spec)
    before = netstate_snapshot()
    peer.update(name="net0", sysctl={"ipv4": {"rp_filter": 1}}, routes=[{"to": "default", "via": "203.0.113.1"}])
    assert "NK0505" in node.refused(spec, command="apply")
    assert differences(before, netstate_snapshot()) == []
