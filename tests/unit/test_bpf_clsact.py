"""Priorities of legacy tc's filters: where a program goes between those that are there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkform.kernel.bpf_links import After, Before, Entry, Position
from nkform.kernel.clsact import PRIORITY_END, PRIORITY_START, PRIORITY_STEP, Filter, chain_of, free_priority
from nkform.model import First, Last


def entries(*priorities: int) -> list[Entry]:
    return [Entry(1000 + priority, priority) for priority in priorities]


@pytest.mark.parametrize(
    ("taken", "position", "priority"),
    [
        ((), Last(), PRIORITY_START),
        ((), First(), PRIORITY_START),
        ((PRIORITY_START,), Last(), PRIORITY_START + PRIORITY_STEP),
        ((PRIORITY_START,), First(), PRIORITY_START - PRIORITY_STEP),
        ((49152,), Last(), 49152 + PRIORITY_STEP),
        ((10,), First(), 5),
        ((65533,), Last(), 65534),
        ((100, 200), Before(link_id=200), 150),
        ((100, 200), After(prog_id=1100), 150),
        ((100, 200), After(link_id=200), 200 + PRIORITY_STEP),
    ],
)
def test_where_a_filter_goes(taken: tuple[int, ...], position: Position, priority: int) -> None:
    assert free_priority(entries(*taken), position) == priority


@pytest.mark.parametrize(
    ("taken", "position", "said"),
    [
        ((1,), First(), "no priority is free between 0 and 1"),
        ((65535,), Last(), "no priority is free after 65535"),
        ((7, 8), After(link_id=7), "no priority is free between 7 and 8"),
    ],
)
def test_where_none_is_free(taken: tuple[int, ...], position: Position, said: str) -> None:
    with pytest.raises(IndexError, match=said):
        free_priority(entries(*taken), position)


def test_an_anchor_must_be_there() -> None:
    with pytest.raises(KeyError, match="filter 9 is not in this chain"):
        free_priority(entries(1), Before(link_id=9))
    with pytest.raises(KeyError, match="program 9 is not in this chain"):
        free_priority(entries(1), After(prog_id=9))


@given(st.sets(st.integers(1, PRIORITY_END - 1), max_size=80), st.data())
def test_a_filter_is_put_where_it_was_asked_for(taken: set[int], data: st.DataObject) -> None:
    order = sorted(taken)
    kinds: list[type[Position]] = [First, Last, Before, After] if order else [First, Last]
    kind = data.draw(st.sampled_from(kinds))
    place = data.draw(st.integers(0, max(0, len(order) - 1)))
    position = kind(link_id=order[place]) if kind in {Before, After} else kind()
    try:
        priority = free_priority(entries(*order), position)
    except IndexError:
        return
    assert 0 < priority < PRIORITY_END
    assert priority not in taken
    expected = {First: 0, Last: len(order), Before: place, After: place + 1}[kind]
    assert sorted([*order, priority]).index(priority) == expected


def test_a_hundred_programs_fit_in_a_row() -> None:
    """A chain that grows at its end never runs out of priorities before it is longer than any chain of links."""
    order: list[int] = []
    for _ in range(100):
        order.append(free_priority(entries(*order), Last()))
    assert order == sorted(set(order))


def bpf_filter(priority: int, prog_id: int, chain: int = 0) -> Filter:
    return Filter("bpf", "nkform:a", priority, 3, 1, chain, prog_id, "")


def test_the_revision_tells_chains_apart() -> None:
    a, b = bpf_filter(1, 10), bpf_filter(2, 20)
    revisions = [chain_of(chain).revision for chain in ((), (a,), (b,), (a, b), (bpf_filter(1, 11),))]
    assert len(set(revisions)) == len(revisions)
    assert revisions[0] == 1
    assert 0 not in revisions
    assert chain_of((a, bpf_filter(5, 50, chain=3))) == chain_of((a,)), "other chains are not met"
