"""What others have on devices of their own, and what leads to a pair of ours."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.helpers.support import Node, ip, sh
from tests.live.test_carried import WAYS, replaced


@pytest.mark.parametrize("way", WAYS)
def test_what_leads_packets_there_is_said(node: Node, way: Any) -> None:
    """Filters of others at other devices, which lead nowhere once the old pair has gone."""
    _, second = way(node)
    name, peer = replaced(node, second)
    ip("link", "add", "tap", "type", "veth", "peer", "name", "far")
    sh("tc", "qdisc", "add", "dev", "tap", "clsact")
    words = "filter add dev tap ingress bpf bytecode 1,6~0~0~4294967295, action mirred egress redirect dev"
    made = [word.replace("~", " ") for word in words.split()]
    if "mirred" not in sh("tc", *made, "far", check=False) + sh("tc", "actions", "list", "action", "mirred"):
        pytest.skip("this kernel has no act_mirred")
    assert "mirred" not in node.plan(second).err
    sh("tc", *made, name)
    said = node.plan(second).err
    assert "NK0426" in said
    assert f"tc action mirred 2 to {name}" in said
    assert f"to {peer}" not in said
