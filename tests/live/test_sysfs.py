"""Interfaces as files: a link changes its group, and nobody is told."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from nkform.kernel import link_requests, links, sysfs
from nkform.kernel.error import KernelError
from nkform.kernel.netlink import Socket, consistent_dump
from nkform.kernel.netns import Namespaces
from nkform.kernel.sysfs import Interfaces
from tests.live.helpers.support import Node, ip
from tests.live.helpers.support import links as links_present

RTMGRP_LINK = 1
GROUP = 4711


def index_and_group(name: str) -> tuple[int, int]:
    with Socket() as asking:
        return next((link.index, link.group) for link in consistent_dump(links.dump, asking) if link.name == name)


def listener() -> socket.socket:
    """Hears of every change of a link from now on."""
    hearing = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
    hearing.bind((0, RTMGRP_LINK))
    return hearing


def heard(hearing: socket.socket, seconds: float = 0) -> bool:
    """Whether there is anything to hear within so many seconds."""
    ready, _, _ = select.select([hearing], [], [], seconds)
    return bool(ready and hearing.recv(1 << 16))


@pytest.fixture
def pair() -> int:
    """v0, which is up; its ifindex."""
    with listener() as hearing:
        ip("link", "add", "v0", "up", "type", "veth", "peer", "name", "v1")
        while heard(hearing, 0.3):  # the kernel tells of its carrier later
            pass
    return index_and_group("v0")[0]


def test_a_link_that_is_up_changes_its_group_and_nobody_hears_of_it(pair: int) -> None:
    with listener() as hearing, Interfaces() as interfaces, Socket() as asking:
        interfaces.set_group(pair, "v0", GROUP)
        assert index_and_group("v0") == (pair, GROUP)
        assert not heard(hearing)
        asking.ask([link_requests.set_group(pair, "v0", 0)])
        assert heard(hearing), "the witness is deaf"


def test_a_link_with_another_index_or_of_no_name_here_is_left_alone(pair: int) -> None:
    with Interfaces() as interfaces:
        for index, name, number in ((pair + 1, "v0", errno.ENODEV), (pair, "v9", errno.ENOENT)):
            with pytest.raises(KernelError) as caught:
                interfaces.set_group(index, name, GROUP)
            assert caught.value.errno == number
    assert index_and_group("v0") == (pair, 0)


def test_the_interfaces_are_those_of_the_namespace_that_the_thread_was_in(pair: int) -> None:
    ip("netns", "add", "elsewhere")
    ip("link", "add", "v0", "index", str(pair), "type", "veth", "peer", "name", "v1", namespace="elsewhere")
    with Namespaces() as namespaces, namespaces.open("elsewhere") as fd:
        with namespaces.entered(fd, "elsewhere"):
            interfaces = Interfaces()
        with interfaces:
            interfaces.set_group(pair, "v0", GROUP)
        assert index_and_group("v0") == (pair, 0)
        with namespaces.entered(fd, "elsewhere"):
            assert index_and_group("v0") == (pair, GROUP)


@pytest.mark.parametrize("refused", [0, errno.EPERM, errno.ENOSYS])
def test_pairs_go_together_with_a_sysfs_or_without(node: Node, monkeypatch: pytest.MonkeyPatch, refused: int) -> None:
    spec = {
        "version": 1,
        "node": "n",
        "namespaces": {"web": {"create": True}},
        "devices": {
            f"v{number}": {"kind": "veth", "peer": {"name": f"eth{number}", "namespace": "web"}} for number in range(3)
        },
    }
    node.apply(spec)

    def refuse(*_: object) -> int:
        raise KernelError(refused, "mount a sysfs")

    if refused:
        monkeypatch.setattr(sysfs, "mounted", refuse)
    node.destroy()
    assert links_present() == set()
