"""Any spec A, then any spec B: the kernel ends where B says, the next plan is empty, and destroying leaves nothing."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.live.isolation import fresh_network
from tests.live.support import Node, features, kinds, links
from tests.specs import specs

EXAMPLES = {"veth": 200, "netkit": 200}
IN_THE_LAB = {"veth": 4, "netkit": 20}
"""Emulated kernels are ten times slower."""


@pytest.mark.parametrize("kind", kinds())
def test_any_change_converges(kind: str) -> None:
    counted = 0
    examples = (IN_THE_LAB if os.environ.get("NKFORM_LAB") else EXAMPLES)[kind]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.data())
    def converges(data: st.DataObject) -> None:
        nonlocal counted
        counted += 1
        first = data.draw(specs(kind, features()), "first")
        second = data.draw(specs(kind, features()), "second")
        fresh_network()
        with tempfile.TemporaryDirectory() as folder:
            node = Node(Path(folder))
            node.apply(first)
            node.apply(second)
            shown = node.run("show")
            if shown.code == 0:
                assert node.changes(shown.out) == []
            node.apply(second)
            node.destroy()
            assert links() == set()

    converges()
    print(f"{counted} random pairs of {kind} specs converged")
    assert counted >= examples
