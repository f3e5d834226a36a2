"""What makes many devices cheap: namespaces that go side by side, sysctls that are one object for all who have them."""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from nkform.kernel import devconf, netns
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from tests.live.helpers.fault_injection import injected
from tests.live.helpers.support import Node, ip

MANY = 3 * netns.HELPERS


def present() -> list[str]:
    return sorted(path.name for path in Path("/run/netns").iterdir())


@pytest.fixture
def names() -> list[str]:
    """Namespaces that exist."""
    some = [f"n{number:02}" for number in range(MANY)]
    for name in some:
        ip("netns", "add", name)
    return some


def test_namespaces_go_side_by_side_and_one_that_is_not_there_keeps_none_of_them(names: list[str]) -> None:
    with Namespaces() as namespaces:
        outcomes = namespaces.delete_all([*names[:5], "missing", *names[5:-1]])
    failed = [(place, outcome.errno) for place, outcome in enumerate(outcomes) if outcome]
    assert failed == [(5, errno.ENOENT)]
    assert present() == names[-1:]


@pytest.mark.parametrize("threads", [0, 2])
def test_namespaces_go_where_threads_are_not_to_be_had(
    names: list[str], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[threading.Thread] = []
    genuine = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if len(started) == threads:
            raise RuntimeError("can't start new thread")
        started.append(self)
        genuine(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with Namespaces() as namespaces:
        assert namespaces.delete_all(names) == [None] * MANY
    assert present() == []
    assert not any(thread.is_alive() for thread in started)


def test_namespaces_that_went_come_back_when_one_of_them_cannot_go(node: Node) -> None:
    spaces = {f"n{number:02}": {"create": True} for number in range(MANY)}
    node.apply({"version": 1, "node": "n", "namespaces": spaces})
    node.write({"version": 1, "node": "n"})
    with injected("umount2"):
        outcome = node.run("apply", "-y", str(node.path))
    assert outcome.code == 1
    assert "NK0505" in outcome.err  # all was undone
    assert present() == sorted(spaces)
    assert node.changes({"version": 1, "node": "n", "namespaces": spaces}) == []


def test_interfaces_with_the_same_sysctls_share_them() -> None:
    ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
    ip("link", "add", "v2", "type", "veth", "peer", "name", "v3")
    conf("v1", "ipv4/rp_filter").write_text("2")
    with Socket() as socket:
        dump = partial(devconf.dump, names={"v0", "v1", "v2"}, shared=devconf.Shared())
        values = {name: sysctls for _, name, sysctls, _ in consistent_dump(dump, socket)}
    assert values["v0"] is values["v2"]
    assert values["v1"] == {**values["v0"], "ipv4.rp_filter": "2"}
    assert len(values["v0"]) > devconf.FILES_AT_MOST
    assert values["lo"] == values["v3"] == {}


def test_an_end_that_comes_back_has_the_sysctls_that_it_had(node: Node) -> None:
    changed = {"ipv4/rp_filter": "2", "ipv6/hop_limit": "77", "ipv6/accept_ra": "0"}
    devices = {"v0": {"kind": "veth", "peer": {"name": "v1"}}}
    node.apply({"version": 1, "node": "n", "devices": devices})
    for key, value in changed.items():
        conf("v0", key).write_text(value)
    before = every("v0"), every("v1")
    node.write({"version": 1, "node": "n"})
    with injected("rename journal"):
        outcome = node.run("apply", "-y", str(node.path))
    assert outcome.code == 1
    assert "NK0505" in outcome.err
    assert (every("v0"), every("v1")) == before
    assert {key: conf("v0", key).read_text().strip() for key in changed} == changed


def conf(name: str, key: str) -> Path:
    family, key = key.split("/")
    return Path(f"/proc/sys/net/{family}/conf/{name}/{key}")


def every(name: str) -> dict[str, str]:
    """All sysctls of an interface that have a value."""
    values = {}
    for family in ("ipv4", "ipv6"):
        for path in Path(f"/proc/sys/net/{family}/conf/{name}").iterdir():
            with suppress(OSError):  # one that was never set, or can only be written
                values[f"{family}/{path.name}"] = path.read_text()
    return values
