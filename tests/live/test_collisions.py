"""What is in the way of a namespace is found by `plan`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.support import Node, ip
from tests.live.test_shared_routes import spec

RUN = Path("/run/netns")


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
