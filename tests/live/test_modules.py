"""What a kernel has as modules loads by itself when a spec first needs it. Collected in the emulated lab alone.

Touches: the kernel's modules, some of which it unloads first.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.live.helpers.chain_sites import CLSACT_INGRESS, Packets
from tests.live.helpers.support import Node, sh
from tests.live.test_pairs import veth

pytestmark = pytest.mark.smoke


def loaded() -> set[str]:
    return {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()}


def unload(*names: str) -> None:
    """Unloads modules; the kernel takes down what earlier tests left in its own time."""
    deadline = time.monotonic() + 60
    while names := tuple(name for name in names if name in loaded()):
        assert time.monotonic() < deadline, f"{names} do not go"
        sh("modprobe", "-r", *names, check=False)
        time.sleep(0.1)


def test_the_kind_of_a_device_is_loaded(node: Node) -> None:
    unload("veth")
    node.apply(veth())
    assert "veth" in loaded()


def test_filters_and_their_qdisc_are_loaded(node: Node) -> None:
    unload("cls_bpf", "sch_ingress", "veth")
    node.apply(CLSACT_INGRESS.spec(["guard", "count"]))
    assert {"cls_bpf", "sch_ingress", "veth"} <= loaded()
    with Packets(CLSACT_INGRESS) as packets:
        assert packets.passing()
    assert CLSACT_INGRESS.order() == "guard count"
