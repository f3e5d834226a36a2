"""What is acted upon is what was looked at, and not what has taken over its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import journal, transaction
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Asked, until
from tests.live.helpers.support import Node, ip, link, links
from tests.live.test_pairs import veth


def changed(**device: Any) -> dict[str, Any]:
    spec = veth()
    spec["devices"]["to-a"].update(device)
    return spec


def another_device() -> None:
    ip("link", "del", "to-a")
    ip("link", "add", "to-a", "type", "veth", "peer", "name", "foreign1")


def another_marked_device() -> None:
    another_device()
    ip("link", "set", "to-a", "alias", "nkform:w")


def another_namespace() -> None:
    ip("netns", "del", "a")
    until(lambda: "to-a" not in links())
    ip("netns", "add", "a")
    ip("link", "add", "eth0", "netns", "a", "type", "veth", "peer", "name", "other")


def another_peer() -> None:
    ip("link", "set", "eth0", "down", namespace="a")
    ip("link", "set", "eth0", "name", "moved", namespace="a")
    ip("link", "add", "eth0", "type", "veth", "peer", "name", "other", namespace="a")


SWAPS = [another_device, another_marked_device, another_namespace, another_peer]


@pytest.mark.parametrize("swap", SWAPS)
@pytest.mark.parametrize("command", ["apply", "destroy"])
def test_at_the_prompt(node: Node, swap: Callable[[], None], command: str) -> None:
    node.apply(veth())
    asked = Asked(command, str(node.write(changed(mtu=1400))))
    swap()
    before = netstate_snapshot()
    assert asked.answer("yes\n") == 1
    assert differences(before, netstate_snapshot()) == []


@pytest.mark.parametrize("swap", [another_device, another_namespace, another_peer])
@pytest.mark.parametrize("command", ["apply", "destroy"])
def test_between_the_last_look_and_the_first_action(
    node: Node, swap: Callable[[], None], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.apply(veth())
    node.write(changed(mtu=1400))
    genuine = journal.begin
    seen: list[list[Any]] = []
    ours = {(where, link(name, where)["ifindex"]) for name, where in (("to-a", ""), ("eth0", "a"), ("eth0", "b"))}

    def begin(*words: Any, **named: Any) -> Any:
        if not seen:
            swap()
            seen.append(foreign(ours))
        return genuine(*words, **named)

    monkeypatch.setattr(transaction, "begin", begin)  # what it does is done after the look, before the first action
    outcome = node.run(command, "-y", str(node.path))
    assert seen
    if (swap, command) == (another_peer, "destroy"):  # the pair goes, and the namespace stays for the sake of the other
        assert outcome.code == 0, outcome.err
        assert "NK0416" in outcome.err
        assert "to-a" not in links()
    else:
        assert outcome.code == 1, outcome.out
    assert [each for each in seen[0] if each not in foreign(ours)] == []


@pytest.mark.parametrize("key", ["web", {"path": "/run/netns/web"}], ids=["name", "path"])
def test_a_new_pair_is_not_put_into_another_namespace(
    node: Node, key: str | dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is done in the peer's namespace but to put it there: no address, no `up`."""
    ip("netns", "add", "web")
    peer = {"name": "eth0", "namespace": key, "up": False}
    genuine = journal.begin

    def begin(*words: Any, **named: Any) -> Any:
        ip("netns", "del", "web")
        ip("netns", "add", "web")
        return genuine(*words, **named)

    monkeypatch.setattr(transaction, "begin", begin)
    spec = {"version": 1, "node": "w", "devices": {"v0": {"kind": "veth", "peer": peer}}}
    if isinstance(key, str):
        spec["namespaces"] = {"web": {}}
    error = node.refused(spec, command="apply")
    assert "leads to another namespace now" in error
    assert "NK0505" in error
    assert links() == set()


def foreign(ours: set[tuple[str, int]]) -> list[Any]:
    """What others have: devices, with their MTUs and addresses, by ifindex."""
    found: list[Any] = []
    for namespace in ("", *(path.name for path in Path("/run/netns").iterdir())):
        for each in json.loads(ip("-j", "addr", namespace=namespace)):
            if each["ifname"] in ("foreign1", "other", "eth0", "to-a") and (namespace, each["ifindex"]) not in ours:
                addresses = sorted(address["local"] for address in each["addr_info"] if address["scope"] == "global")
                found.append((namespace, each["ifindex"], each["ifname"], each["mtu"], addresses))
    return found


def nic(*hooks: str) -> dict[str, Any]:
    device = {"kind": "external", "programs": {hook: ["count"] for hook in hooks}}
    return {"version": 1, "node": "w", "programs": {"count": {"template": "counters"}}, "devices": {"nic0": device}}


def renamed_nic() -> None:
    ip("link", "set", "nic0", "down")
    ip("link", "set", "nic0", "name", "nic1")
    ip("link", "add", "nic0", "type", "veth", "peer", "name", "far0")


def test_a_rollback_goes_by_more_than_the_name_of_a_device_of_others(node: Node) -> None:
    ip("link", "add", "nic0", "type", "veth", "peer", "name", "far")
    node.apply(nic("ingress"))
    node.apply(nic("egress"))
    renamed_nic()
    outcome = node.run("rollback", "-y")
    assert outcome.code == 1
    assert "NK0506" in outcome.err
    assert "nic0" in outcome.err
    assert "ingress" not in node.run("status", "--node", "w").out


def test_a_program_goes_to_the_device_that_was_looked_at(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    ip("link", "add", "nic0", "type", "veth", "peer", "name", "far")
    genuine = journal.begin

    def begin(*words: Any, **named: Any) -> Any:
        renamed_nic()
        return genuine(*words, **named)

    monkeypatch.setattr(transaction, "begin", begin)
    assert "another device has that name now" in node.refused(nic("ingress"), command="apply")
