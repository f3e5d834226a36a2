"""Gateways of routes, judged without a kernel."""

from __future__ import annotations

import pytest

from nkform import NkformError, loads

SPEC = """
version: 1
node: w
devices:
  v0:
    kind: veth
    addresses: [10.0.0.1/16]
    peer: {name: p0}
    routes:
      - {to: "fd05::/64", via: 10.0.0.2}
      - {to: "fd06::/64", via: 10.0.0.3}
"""


def test_ipv6_routes_through_ipv4_gateways_are_refused() -> None:
    with pytest.raises(NkformError) as refused:
        loads(SPEC)
    assert {problem.code for problem in refused.value.problems} == {"NK0310"}
