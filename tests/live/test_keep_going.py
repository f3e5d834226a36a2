"""What is in the way of one object keeps no other from being applied or mended, where that is asked for."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nkform.apply import transaction
from tests.live.helpers.attack import in_child
from tests.live.helpers.capabilities import CAP_NET_BIND_SERVICE, CAP_SYS_PTRACE, give_up
from tests.live.helpers.netstate import differences, netstate_snapshot
from tests.live.helpers.processes import Process, end_all, until
from tests.live.helpers.support import REFUSED, Node, ip, link, links, needs

pytestmark = pytest.mark.usefixtures("made_once")


def pair(name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    return {"kind": "veth", "mtu": 1400, "peer": {"name": f"p-{name}", "namespace": namespace}, **more}


def spec(**devices: dict[str, Any]) -> dict[str, Any]:
    good = {"v0": pair("v0", "a"), "v1": pair("v1", "b")}
    for device in good.values():
        if not device["peer"]["namespace"]:
            del device["peer"]["namespace"]
    namespaces = {"a": {"create": True}, "b": {"create": True}, "gone": {}}
    return {"version": 1, "node": "w", "namespaces": namespaces, "devices": {**good, **devices}}


ABSENT = {
    "a namespace": {"x": pair("x", "gone")},
    "a device": {"absent0": {"kind": "external", "programs": {"ingress": []}}},
    "a process": {"x": {**pair("x"), "peer": {"name": "p-x", "namespace": {"pid": 4194303}}}},
    "a route's gateway": {"x": pair("x", "b", addresses=["10.0.0.1/32"], routes=REFUSED)},
    "room for a device": {"x": {**pair("x", "b"), "kind": "netkit", "headroom": {"for": ["absent0"]}}},
}


def refused(*, route: bool = True) -> dict[str, Any]:
    """A spec with a route that the kernel alone refuses: a device that is there may reach the gateway by what others
    have. Without the route it can be had."""
    device = pair("x", "b", addresses=["10.0.0.1/32"])
    some = spec(x={**device, "routes": [{"to": "192.0.2.0/24", "via": "203.0.113.1"}]} if route else device)
    del some["namespaces"]["gone"]
    return some


def applied(node: Node, *words: str) -> tuple[int, str]:
    outcome = node.run("apply", "-y", *words, str(node.path))
    return outcome.code, outcome.out + outcome.err


@pytest.mark.parametrize(
    "absent", [*list(ABSENT)[:-1], pytest.param("room for a device", marks=needs("netkit", "netkit_room"))]
)
def test_what_can_be_applied_is_applied_and_the_rest_is_named(node: Node, absent: str) -> None:
    some = spec(**ABSENT[absent])
    if absent != "a namespace":
        del some["namespaces"]["gone"]
    node.write(some)
    before = netstate_snapshot()
    code, _ = applied(node)
    assert code == 1
    assert differences(before, netstate_snapshot()) == []
    code, said = applied(node, "--keep-going")
    assert code == 1
    assert {"v0", "v1"} <= links()
    assert link("p-v0", "a")["mtu"] == 1400
    assert "error[" in said
    again, said = applied(node, "--keep-going")
    assert again == 1
    assert "error[" in said
    assert "matches the spec" not in said
    if absent != "a route's gateway":  # which a run alone finds out
        assert "No changes to what can be planned of the spec of w." in said
    assert node.run("rollback", "-y").code == 0
    assert differences(before, netstate_snapshot()) == []


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process with a network of its own, which nkform may not look into: it has rights that nkform lacks."""
    with subprocess.Popen(["unshare", "--net", "sleep", "1000"]) as process:
        until(lambda: Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        yield process.pid
        process.kill()


def with_less_rights() -> None:
    """Gives up the right to look into processes that have more, and another one, so that some have more."""
    give_up(CAP_SYS_PTRACE, CAP_NET_BIND_SERVICE)


@pytest.mark.parametrize("way", ["process", "path", "name", "optional", "to be made"])
def test_a_namespace_that_nkform_may_not_enter_is_in_the_way_of_its_device_alone(
    node: Node, way: str, stranger: int
) -> None:
    path = f"/proc/{stranger}/ns/net"
    keys: dict[str, Any] = {"process": {"pid": stranger}, "path": {"path": path}}
    some = spec(x={**pair("x"), "peer": {"name": "p-x", "namespace": keys.get(way, "gone")}})
    del some["namespaces"]["gone"]
    if way not in keys:
        Path("/run/netns").mkdir(parents=True, exist_ok=True)
        Path("/run/netns/gone").symlink_to(path)
        some["namespaces"]["gone"] = {"optional": {"optional": True}, "to be made": {"create": True}}.get(way, {})
    node.write(some)
    for words in ("plan",), ("apply", "-y"), ("apply", "-y", "--keep-going"):
        run = Process(*words, str(node.path), prepare=with_less_rights)
        assert run.ended() == 1
        assert "NK0417" in run.said
        assert "NK0601" not in run.said
        assert {"v0", "x"} & links() == ({"v0"} if "--keep-going" in words else set())
    some["devices"].pop("x")
    some["namespaces"].pop("gone", None)
    node.write(some)
    run = Process("plan", str(node.path), "--detailed-exitcode", prepare=with_less_rights)
    assert run.ended() == 0, run.said


def test_nothing_in_the_way_is_an_apply_like_any_other(node: Node) -> None:
    some = spec()
    del some["namespaces"]["gone"]
    node.write(some)
    assert applied(node, "--keep-going")[0] == 0
    assert node.changes() == []
    assert applied(node, "--keep-going")[0] == 0
    node.destroy()


def test_it_goes_on_once_nothing_is_in_the_way_any_more(node: Node) -> None:
    node.write(spec(**ABSENT["a namespace"]))
    assert applied(node, "--keep-going")[0] == 1
    ip("netns", "add", "gone")
    assert applied(node, "--keep-going")[0] == 0
    assert node.changes() == []


def test_a_trial_in_parts_goes_back_as_a_whole(node: Node) -> None:
    from tests.live.test_confirm import guardians

    node.apply(refused(route=False))
    before = netstate_snapshot()
    some = refused()
    for name in ("v0", "v1"):
        some["devices"][name]["mtu"] = 1440
    node.write(some)
    outcome = node.run("apply", "-y", "--keep-going", "--confirm", "1s", str(node.path))
    assert outcome.code == 1
    until(lambda: not guardians())
    assert differences(before, netstate_snapshot()) == []


def killed_in_a_later_part(node: Node, *words: str) -> None:
    """A run in parts, the second of which is killed once it has begun to change something."""

    def run() -> None:
        genuine, parts = transaction.apply, 0

        def apply(*given: Any, **named: Any) -> Any:
            nonlocal parts
            live = genuine(*given, **named)
            parts += 1
            if parts == 1:
                transaction._Steps.done = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
            return live

        transaction.apply = apply
        node.run("apply", "-y", "--keep-going", *words, str(node.path))

    assert in_child(run) == -signal.SIGKILL


def before_a_kill(node: Node) -> tuple[Any, Any]:
    """A node that two applies have changed, and a spec for a third one, which is carried out in parts."""
    good = refused(route=False)
    node.apply(good)
    first = netstate_snapshot()
    good["devices"]["v0"]["mtu"] = 1420
    node.apply(good)
    second = netstate_snapshot()
    some = refused()
    for name in ("v0", "v1", "x"):
        some["devices"][name]["mtu"] = 1440
    node.write(some)
    return first, second


def test_a_part_that_is_killed_leaves_the_way_back_of_the_apply_before(node: Node) -> None:
    first, second = before_a_kill(node)
    killed_in_a_later_part(node)
    assert "NK0511" in node.plan().err
    assert node.run("recover", "-y").code == 0
    assert differences(second, netstate_snapshot()) == []
    assert node.run("rollback", "-y").code == 0
    assert differences(first, netstate_snapshot()) == []


def test_an_apply_that_goes_on_from_a_killed_part_goes_back_to_before_all_parts(node: Node) -> None:
    _, second = before_a_kill(node)
    killed_in_a_later_part(node)
    assert applied(node, "--keep-going")[0] == 1
    assert link("v0")["mtu"] == link("v1")["mtu"] == 1440
    assert node.run("rollback", "-y").code == 0
    assert differences(second, netstate_snapshot()) == []


def test_a_trial_that_is_killed_in_a_later_part_goes_back_to_before_all_parts(node: Node) -> None:
    from tests.live.test_confirm import guardians

    first, second = before_a_kill(node)
    killed_in_a_later_part(node, "--confirm", "60s")
    until(lambda: not guardians())
    assert differences(second, netstate_snapshot()) == []
    assert node.run("rollback", "-y").code == 0
    assert differences(first, netstate_snapshot()) == []


def test_a_saved_plan_is_whole_or_not_at_all(node: Node) -> None:
    some = spec()
    del some["namespaces"]["gone"]
    node.write(some)
    kept = node.folder / "plan"
    assert node.run("plan", str(node.path), "-o", str(kept)).code == 0
    assert "NK0602" in node.run("apply", "-y", "--keep-going", str(kept)).err


def test_the_watch_mends_what_can_be_mended(node: Node) -> None:
    some = spec(x=pair("x", "gone"), absent0={"kind": "external", "programs": {"ingress": []}})
    ip("netns", "add", "gone")
    ip("link", "add", "absent0", "type", "veth", "peer", "name", "other0")
    node.apply(some)
    ip("link", "del", "absent0")
    ip("netns", "del", "gone")
    until(lambda: "x" not in links())
    run = Process("watch", "--heal", "--interval", "0.2", str(node.path))
    try:
        run.hears("watching")
        ip("link", "set", "v0", "mtu", "1300")
        until(lambda: link("v0")["mtu"] == 1400)
        ip("netns", "exec", "b", "ip", "link", "set", "p-v1", "mtu", "1300")
        until(lambda: link("p-v1", "b")["mtu"] == 1400)
        ip("netns", "add", "gone")
        until(lambda: "x" in links())
    finally:
        os.kill(run.pid, signal.SIGTERM)
        run.ended()
        end_all()


def test_what_may_be_absent_is_no_error(node: Node) -> None:
    some = spec(x=pair("x", "gone"), absent0={"kind": "external", "optional": True, "programs": {"ingress": []}})
    some["namespaces"]["gone"] = {"optional": True}
    outcome = node.apply(some)
    assert "NK0430" in outcome.err
    assert links() == {"v0", "v1"}
    assert "NK0430" in node.apply(None, "--target", "absent0").err
    ip("netns", "add", "gone")
    ip("link", "add", "absent0", "type", "veth", "peer", "name", "other0")
    outcome = node.apply()
    assert "NK0430" not in outcome.err
    assert "x" in links()
    ip("netns", "del", "gone")
    until(lambda: "x" not in links())
    assert node.changes() == []
    node.destroy()


def test_each_note_names_what_is_left_out_with_it(node: Node) -> None:
    some = spec(x=pair("x", "gone"), absent0={"kind": "external", "optional": True, "programs": {"ingress": []}})
    some["namespaces"]["gone"] = {"optional": True}
    notes = [line for line in node.plan(some).err.splitlines() if "NK0430" in line]
    assert ["left out with it: x" in line for line in notes] == ["gone" in line for line in notes]
    assert len(notes) == 2


def test_another_name_for_a_namespace_keeps_only_its_devices_from_being_applied(node: Node) -> None:
    ip("netns", "add", "gone")
    node.write(spec(x=pair("x", "gone")))
    assert applied(node)[0] == 0
    ip("netns", "del", "gone")
    until(lambda: "x" not in links())
    ip("link", "set", "v0", "mtu", "1300")
    Path("/run/netns/gone").symlink_to("a")
    code, said = applied(node, "--keep-going")
    Path("/run/netns/gone").unlink()
    assert code == 1
    assert "NK0476" in said
    assert link("v0")["mtu"] == 1400
    assert links() == {"v0", "v1"}
    node.destroy()


@pytest.mark.parametrize("made", ["namespace", "device"])
def test_what_nkform_makes_itself_cannot_be_absent(node: Node, made: str) -> None:
    some = spec()
    del some["namespaces"]["gone"]
    if made == "namespace":
        some["namespaces"]["a"]["optional"] = True
    else:
        some["devices"]["v0"]["optional"] = True
    assert "NK0324" in node.refused(some)
