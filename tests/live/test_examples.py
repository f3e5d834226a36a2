"""Every example is applied for real."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.live.helpers.support import Node, features

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
NEEDS = {"two-workloads": ("netkit",), "big-tcp": ("netkit", "netkit_room", "netkit_scrub")}


@pytest.mark.smoke
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_applies_shows_and_goes(node: Node, path: Path) -> None:
    missing = set(NEEDS.get(path.stem, ())) - features()
    if missing:
        assert "NK0401" in node.refused(path.read_text())
        pytest.skip(f"this kernel has no {', '.join(sorted(missing))}; plan said so")
    node.apply(path.read_text())
    assert node.changes(node.run("show").out) == []
    node.destroy()
