"""Programs that the device they are for does not suit: `plan` says so before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.chain_sites import CLSACT_INGRESS, NODE, TCX_INGRESS, TEMPLATES
from tests.live.support import Node, features, ip


def spec(programs: dict[str, Any], hook: str = "ingress", device: str = "v9", **more: Any) -> dict[str, Any]:
    """An external device with a chain of these programs."""
    chain = {"chain": list(programs)}
    return {
        "version": 1,
        "node": NODE,
        "templates": [TEMPLATES],
        "programs": programs,
        "devices": {device: {"kind": "external", "programs": {hook: chain}, **more}},
    }


@pytest.fixture(autouse=True)
def _foreign_pair(network: None) -> None:
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")
    ip("link", "set", "v9", "up")


def test_a_parameter_that_would_be_a_fact_nobody_has_is_refused(node: Node) -> None:
    """A guard that accepts nobody is no guard that anybody asked for."""
    error = node.refused(spec({"guard": {"template": "source_guard"}}))
    for words in ("NK0441", "`prefixes` of guard", "peer's addresses", "prefixes: [10.0.0.2/32", "spec.yaml:"):
        assert words in error
    error = node.refused(spec({"large": {"template": "too_large"}}))
    for words in ("NK0441", "`limit` of large", "MTU", "limit: 1500"):
        assert words in error
    node.apply(spec({"guard": {"template": "source_guard", "params": {"prefixes": []}}}))
    node.apply(spec({"large": {"template": "too_large", "params": {"limit": 100}}}))
    node.destroy()


def test_so_it_is_on_a_pair_whose_peer_has_no_addresses(node: Node) -> None:
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS
    for template, parameter, lacking in (("source_guard", "prefixes", "peer"), ("too_large", "limit", "device")):
        wrong = site.spec(["p"], peer={"addresses": []})
        wrong["programs"]["p"] = {"template": template}
        error = node.refused(wrong)
        assert "NK0441" in error
        assert f"`{parameter}` of p" in error
        assert lacking in error
        right = site.spec(["p"], mtu=1500)
        right["programs"]["p"] = {"template": template}
        assert node.plan(right).code == 0
