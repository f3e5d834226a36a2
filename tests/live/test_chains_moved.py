"""Where a chain stands among programs of others: from each place to each other one, at every kind of hook."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from nkform.kernel import bpf
from nkform.kernel.bpf import Layout
from nkform.kernel.descriptors import Owned
from nkform.kernel.netns import Namespaces
from nkform.observe.node import observe
from tests.live.helpers.bpf_programs import NEXT, program
from tests.live.helpers.chain_sites import CLSACT_INGRESS, DEVICE, SITES, Others, Running, Site, sites
from tests.live.helpers.support import Node, ip, needs, sh
from tests.sizes import CAMPAIGN, EMULATED

pytestmark = [
    pytest.mark.usefixtures("made_once"),
    pytest.mark.skipif(EMULATED, reason="it takes hundreds of runs, and what they show depends on no processor"),
]

PROG_ATTACH_COMMAND = 8
PROG_ATTACH = Layout(
    "bpf_attr",
    ("target_ifindex", "I"),
    ("attach_bpf_fd", "I"),
    ("attach_type", "I"),
    ("attach_flags", "I"),
    ("replace_bpf_fd", "I"),
    ("relative_fd", "I"),
    ("expected_revision", "Q"),
)
"""BPF_PROG_ATTACH, which nkform itself never uses: the older tools attach so (include/uapi/linux/bpf.h)."""

FOREIGN = ("one", "two", "three")
CHAINS = (["guard"], ["guard", "count"], ["count", "guard", "extra"])


def theirs(site: Site) -> list[Running]:
    return [each for each in site.running() if not each.ours]


def spellings(others: Sequence[Running], place: int) -> list[Any]:
    """The ways to say that a chain stands after so many programs of others."""
    found: list[Any] = []
    if place == 0:
        found.append("first")
    if place == len(others):
        found.append("last")
    if place < len(others):
        found.append({"before": others[place].program_id})
    if place:
        found.append({"after": others[place - 1].program_id})
    return found


def walk(places: int) -> Iterator[int]:
    """Places one after the other, so that each is followed by each other one: from all starts to all ends."""
    for start, end in itertools.permutations(range(places), 2):
        yield from (start, end)


def attach(others: Others, site: Site, count: int) -> None:
    for number, name in enumerate(FOREIGN[:count], 1):
        others.attach(site, name, 0x1000 * number)


@pytest.mark.parametrize("site", sites())
@pytest.mark.parametrize("chain", CHAINS, ids=len)
@pytest.mark.parametrize("count", range(1 + len(FOREIGN)))
def test_a_chain_goes_from_each_place_to_each_other(
    node: Node, site: Site, others: Others, chain: list[str], count: int
) -> None:
    node.apply(site.spec(None))
    attach(others, site, count)
    before = theirs(site)
    names = [each.name for each in before]
    spelled = itertools.count()
    for place in (0, 0) if count == 0 else walk(count + 1):
        ways = spellings(before, place)
        for position in ways if CAMPAIGN else [ways[next(spelled) % len(ways)]]:
            node.apply(site.spec({"chain": chain, "position": position}))
            assert site.order() == " ".join([*names[:place], *chain, *names[place:]])
            assert theirs(site) == before
    if count:  # and back: the last run moved it
        was = site.order()
        node.apply(site.spec({"chain": chain, "position": "last" if place == 0 else "first"}))
        assert site.order() != was
        assert node.run("rollback", "-y").code == 0
        assert site.order() == was
        assert theirs(site) == before


@pytest.mark.parametrize("site", sites())
@pytest.mark.parametrize("chain", CHAINS[:2], ids=len)
def test_an_anchor_that_comes_back_elsewhere_takes_the_chain_with_it(
    node: Node, site: Site, others: Others, chain: list[str]
) -> None:
    """And of two that have its name the first one counts."""
    node.apply(site.spec(None))
    attach(others, site, 2)
    (one, two) = theirs(site)
    anchor = shown_name(site, one)
    spec = site.spec({"chain": chain, "position": {"after": anchor}})
    ours = " ".join(chain)
    node.apply(spec)
    assert site.order() == f"one {ours} two"
    others.attach(site, "one", 0x5000)
    assert node.changes() == []
    take_away(others, site, one)
    (change,) = node.changes()
    assert [field["path"][-1] for field in change["fields"]] == ["position"]
    node.apply()
    assert site.order() == f"two one {ours}"
    others.attach(site, "one", 0 if site.direction is None else 0x800)
    node.apply()
    assert site.order() == f"one {ours} two one"
    assert two in theirs(site)
    for gone in theirs(site):
        if gone.name == "one":
            take_away(others, site, gone)
    assert "NK0421" in node.refused(spec)


@pytest.mark.parametrize("site", sites())
@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("chain", CHAINS[:2], ids=len)
def test_without_an_anchor_that_may_be_absent_a_chain_has_no_position(
    node: Node, site: Site, others: Others, side: str, chain: list[str]
) -> None:
    node.apply(site.spec(None))
    attach(others, site, 1)
    others.attach(site, "late", 0x7000)
    anchor = shown_name(site, theirs(site)[1])
    take_away(others, site, theirs(site)[1])
    ours = " ".join(chain)
    beside = site.spec({"chain": chain, "position": {side: anchor, "optional": True}})
    node.apply(beside)
    assert site.order() == f"one {ours}"
    others.attach(site, "late", 0xE000)
    assert site.order() == f"one {ours} late"
    node.apply(beside)
    assert site.order() == (f"one {ours} late" if side == "before" else f"one late {ours}")
    others.attach(site, "two", 0xF000)
    assert node.changes() == []
    take_away(others, site, next(each for each in theirs(site) if each.name == "late"))
    assert node.changes() == []
    assert site.order() == f"one {ours} two"
    beside["devices"][DEVICE]["programs"][site.hook]["position"]["optional"] = False
    assert "NK0421" in node.refused(beside)


def shown_name(site: Site, running: Running) -> str:
    """What a spec calls a program of others: filters have a name of their own."""
    if site.direction is None:
        return running.name
    return next(each.name for each in site.filters() if each.prog_id == running.program_id)


def take_away(others: Others, site: Site, running: Running) -> None:
    if site.direction is None:
        others.detach(running.place)
    else:
        parent = site.direction.name.lower()
        sh("tc", *f"filter del dev {DEVICE} {parent} prio {running.place} bpf".split())


@needs("tcx")
@pytest.mark.parametrize("hook", ["peer", "primary"])
@pytest.mark.parametrize("chain", CHAINS, ids=len)
def test_a_chain_goes_to_each_place_of_the_other_way_of_attachment(
    node: Node, others: Others, hook: str, chain: list[str]
) -> None:
    ways = {site.direction is None: site for site in SITES if site.kind == "veth" and site.hook == hook}
    links, filters = ways[True], ways[False]
    node.apply(links.spec(None, attach="auto"))
    for number, name in enumerate(FOREIGN[:2], 1):
        others.attach(links, f"{name}_l", number)
        others.attach(filters, f"{name}_f", 0x1000 * number)
    before = {site: theirs(site) for site in (links, filters)}
    for place in range(3):
        for there in range(3):
            for site, other, where in ((links, filters, place), (filters, links, there)):
                position = spellings(before[site], where)[0]
                spec = site.spec({"chain": chain, "position": position}, attach="auto" if site is links else "tc")
                node.apply(spec)
                names = [each.name for each in before[site]]
                assert site.order() == " ".join([*names[:where], *chain, *names[where:]])
                assert other.running() == before[other]


def test_filters_that_are_no_programs_are_anchors_too(node: Node) -> None:
    """Classic bytecode, which has no id; it matches nothing."""
    site = CLSACT_INGRESS
    node.apply(site.spec(None))
    sh("tc", "qdisc", "add", "dev", DEVICE, "clsact")
    words = f"filter add dev {DEVICE} ingress prio 100 protocol all bpf bytecode"
    sh("tc", *words.split(), "1,6 0 0 0,", "flowid", "1:1")
    for position, place in (({"before": "bpf"}, 0), ({"after": "bpf"}, 1), ("first", 0)):
        node.apply(site.spec({"chain": ["guard"], "position": position}))
        assert [each.ours for each in site.filters()].index(True) == place


def test_a_place_without_a_free_priority_is_an_error_that_says_so(node: Node, others: Others) -> None:
    """What is there stays as it is, wherever that is."""
    site = CLSACT_INGRESS
    node.apply(site.spec(["guard"]))
    for number, name in ((1, "one"), (2, "two")):
        others.attach(site, name, number)
    before = site.running()
    for position in ("first", {"after": theirs(site)[0].program_id}):
        error = node.refused(site.spec({"chain": ["guard"], "position": position}), command="apply")
        assert "no priority is free" in error
        assert "NK0505" in error
        assert "NK0502" not in error
        assert site.running() == before


@pytest.mark.parametrize("site", [site for site in sites() if "clsact" not in str(site.id)])
def test_a_program_that_was_attached_without_a_link_is_an_anchor_too(node: Node, site: Site) -> None:
    node.apply(site.spec(None))
    with Owned(program(NEXT, "bare")) as fd:
        attr = PROG_ATTACH.fill(socket.if_nametoindex(DEVICE), fd, site.attach_type, 0, 0, 0, 0)
        assert bpf.call(PROG_ATTACH_COMMAND, attr, PROG_ATTACH.size) == 0
    for position, order in (
        ("last", "bare guard"),
        ({"before": "bare"}, "guard bare"),
        ({"after": "bare"}, "bare guard"),
    ):
        node.apply(site.spec({"chain": ["guard"], "position": position}))
        assert site.order() == order


@pytest.mark.parametrize("way", [pytest.param("auto", marks=needs("tcx")), "tc"])
def test_a_program_of_another_node_is_an_anchor_by_its_name(node: Node, way: str) -> None:
    """By the name that the kernel has for it, also where it is a filter, whose own name changes with what it runs."""
    ip("link", "add", "v9", "type", "veth", "peer", "name", "v9p")

    def spec(name: str, position: Any, *programs: str) -> dict[str, Any]:
        chain = {"chain": [*programs], **({"position": position} if position else {})}
        device = {"kind": "external", "attach": way, "programs": {"ingress": chain}}
        known = {
            "count": {"template": "counters"},
            "arp": {"template": "arp_responder", "params": {"addresses": ["10.0.0.1"]}},
        }
        return {"version": 1, "node": name, "programs": known, "devices": {"v9": device}}

    def order() -> list[bool]:
        with Namespaces() as namespaces:
            (hook,) = (h for n, h in observe(namespaces, "second").devices["v9"].hooks.items() if n == "ingress")
        return [entry.ours for entry in (*hook.linked, *hook.filters)]

    node.apply(spec("first", None, "count", "arp"))
    node.apply(spec("second", {"after": "counters"}, "count"))
    assert order() == [False, True, False]
    node.apply(spec("second", {"before": "counters"}, "count"))
    assert order() == [True, False, False]
    assert "arp_responder (id " in node.refused(spec("second", {"after": "absent"}, "count"))
