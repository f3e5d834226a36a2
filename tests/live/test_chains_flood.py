"""While a node is flooded its chains change: no packet that may pass is lost, and none that may not comes through."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.live.helpers.chain_sites import (
    CLSACT_EGRESS,
    CLSACT_INGRESS,
    OPEN,
    OTHER,
    SHUT,
    TCX_EGRESS,
    TCX_INGRESS,
    Others,
    Site,
    everywhere,
    pins,
)
from tests.live.helpers.flood import Flood, Tally
from tests.live.helpers.support import Node, needs
from tests.sizes import CAMPAIGN, SIZES

SECONDS = 1200 if CAMPAIGN else 300
"""A flood that takes longer has a reason that this test does not know."""


pytestmark = pytest.mark.usefixtures("made_once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere(metafunc)


def enough(tally: Tally) -> bool:
    wanted = SIZES.flood_packets
    return tally.sent + tally.forbidden >= wanted and min(tally.sent, tally.forbidden) >= wanted // 10


def flooded(
    node: Node, site: Site, change: Callable[[int], dict[str, Any]], cycle: int, tell: Callable[[str], None]
) -> None:
    """Applies one spec after the other while packets run, until it was enough of both; all of a cycle at least once.

    After the changes that must be, packets get as much time as changes: on one processor they would have next to none.
    """
    flood = Flood(site)
    turn, started = 0, time.monotonic()
    try:
        with flood:
            while turn < (must := max(SIZES.flood_changes, cycle)) or not enough(flood.tally()):
                begun = time.monotonic()
                node.write(change(turn))
                outcome = node.run("apply", "-y", str(node.path))
                assert outcome.code == 0, f"change {turn}: {outcome.err}"
                assert "Apply complete" in outcome.out, f"change {turn} is none"
                turn += 1
                if turn > must:
                    time.sleep(time.monotonic() - begun)
                assert time.monotonic() < started + SECONDS, f"{turn} changes, {flood.tally()}"
        tally = flood.tally()
    finally:
        flood.close()
    tell(
        f"{site}: {turn} changes in {time.monotonic() - started:.0f} s; may pass: {tally.sent} sent,"
        f" {tally.sent - tally.arrived} lost; may not: {tally.forbidden} sent, {tally.through} through"
    )
    assert (tally.sent - tally.arrived, tally.through) == (0, 0)
    assert node.changes() == []


@pytest.mark.long
@pytest.mark.smoke
def test_a_chain_changes_under_a_flood(
    node: Node, site: Site, engine: str, others: Others, tell: Callable[[str], None]
) -> None:
    """Values, programs, order, length, the end of the chain, and its place among programs of others."""
    node.apply(site.spec(["guard", "count"], engine))
    for name, place in (("one", 20000), ("two", 30000)):
        others.attach(site, name, place)
    two = next(each.program_id for each in site.running() if each.name == "two")
    guard = {"ports": [SHUT]}
    cycle: list[tuple[Any, dict[str, Any]]] = [
        (["guard", "count"], {"guard": {"ports": [SHUT, 7000]}}),
        (["guard", "count"], {"guard": guard}),
        (["guard", "count"], {"guard": {**guard, "arp": True}}),
        (["count", "guard"], {"guard": guard}),
        (["extra", "guard", "count"], {"guard": guard}),
        ({"chain": ["guard", "count"], "position": {"before": two}}, {"guard": guard}),
        ({"chain": ["count", "guard"], "position": "first"}, {"guard": guard}),
        ({"chain": ["extra", "guard"], "position": "last"}, {"guard": guard}),
        ({"chain": ["extra", "guard"], "position": "last"}, {"extra": guard, "guard": {"ports": [OTHER]}}),
        ({"chain": ["extra", "guard"], "position": "last"}, {"extra": {"ports": [OTHER]}, "guard": guard}),
        ({"default": "drop", "chain": ["accept"]}, {}),
        ({"default": "drop", "chain": ["guard", "accept"]}, {"guard": guard}),
    ]

    def change(turn: int) -> dict[str, Any]:
        chain, params = cycle[turn % len(cycle)]
        spec = site.spec(chain, engine)
        for name, given in params.items():
            spec["programs"][name]["params"] = given
        return spec

    flooded(node, site, change, len(cycle), tell)
    assert [each.name for each in site.running() if not each.ours] == ["one", "two"]


@pytest.mark.long
def test_maps_change_under_a_flood(node: Node, site: Site, engine: str, tell: Callable[[str], None]) -> None:
    """Lists of what is dropped and of what is not, one of them or two at once, alone and with the rest of the chain."""
    block: dict[str, Any] = {"match": "source", "listed": "next", "others": "drop"}
    here, wider = f"{site.sender}/32", "10.0.0.0/8"

    def spec(chain: list[str], **params: dict[str, Any]) -> dict[str, Any]:
        made = site.spec(chain, engine)
        for name, given in params.items():
            made["programs"][name]["params"] = given
        return made

    cycle = [
        spec(["block", "set"], set={"ports": [SHUT]}, block={**block, "prefixes": [here]}),
        spec(["block", "set"], set={"ports": [SHUT]}, block={**block, "prefixes": [wider]}),
        spec(["block", "set"], set={"ports": [SHUT]}, block={**block, "prefixes": ["10.0.0.0/30", "fd00::/8"]}),
        spec(["block", "set"], set={"ports": [1, 2, 3, SHUT]}, block={**block, "prefixes": ["10.0.0.0/30"]}),
        spec(["block", "set"], set={"ports": [SHUT, 4, 5, 6]}, block={**block, "prefixes": ["10.0.0.0/30"]}),
        spec(["set"], set={"ports": [OPEN, OTHER], "inverted": True}),
        spec(["set"], set={"ports": [1, 2, OPEN], "inverted": True}),
        spec(["set"], set={"ports": [SHUT]}),
        spec(["set"], set={"ports": [OTHER], "more": [SHUT]}),
        spec(["set", "set2"], set={"ports": [SHUT]}, set2={"ports": [OTHER]}),
        spec(["set", "set2"], set={"ports": [OTHER]}, set2={"ports": [SHUT]}),
        spec(["set2", "set"], set={"ports": [SHUT]}, set2={"ports": [OTHER]}),
    ]
    node.apply(cycle[-1])
    flooded(node, site, lambda turn: cycle[turn % len(cycle)], len(cycle), tell)


@pytest.mark.long
@needs("tcx")
@pytest.mark.parametrize(
    ("links", "filters"),
    [
        pytest.param(TCX_INGRESS, CLSACT_INGRESS, id="ingress"),
        pytest.param(TCX_EGRESS, CLSACT_EGRESS, id="egress"),
    ],
)
def test_a_chain_moves_between_links_and_filters_under_a_flood(
    node: Node, links: Site, filters: Site, engine: str, tell: Callable[[str], None]
) -> None:
    """And never are both left, nor neither.

    The clsact qdisc is there before the flood: the kernel stops a device for a moment while it makes one.
    """
    chains: list[Any] = [
        ["guard", "count"],
        ["guard", "count"],
        ["count", "guard"],
        {"default": "drop", "chain": ["accept"]},
        {"default": "drop", "chain": ["guard", "accept"]},
    ]

    def change(turn: int) -> dict[str, Any]:
        return (filters, links)[turn % 2].spec(chains[turn % len(chains)], engine)

    node.apply(filters.spec(["guard", "count"], engine))
    node.apply(links.spec(["guard", "count"], engine))
    flooded(node, links, change, 2 * len(chains), tell)
    for site, other in ((links, filters), (filters, links)):
        node.apply(site.spec(["count", "guard"], engine))
        assert (site.order(), other.order()) == ("count guard", "")
        assert len(pins()) == (2 if site is links else 0)
