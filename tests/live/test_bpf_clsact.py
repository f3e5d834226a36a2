"""Legacy tc: chains of direct-action filters, on every kernel, with `tc` as a witness."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from nkform.kernel import bpf
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_links import After, Before, Position
from nkform.kernel.bpf_maps import MapType, map_create, map_lookup
from nkform.kernel.bpf_programs import prog_info
from nkform.kernel.clsact import PREFIX, PRIORITY_START, PRIORITY_STEP, Direction, Tc
from nkform.kernel.descriptors import Owned
from nkform.model import First
from tests.live.helpers.bpf_pairs import LAST, PEER, PRIMARY, Pair, churn, passes
from tests.live.helpers.bpf_programs import DROP, NEXT, PASS, counter, program
from tests.live.helpers.support import sh

UPDATES = 100
LONG = 20
SENDERS = {Direction.INGRESS: PEER, Direction.EGRESS: PRIMARY}


class Hook:
    """One direction of a veth with a clsact, and what a test attaches there."""

    def __init__(self, tc: Tc, pair: Pair, direction: Direction) -> None:
        self.tc, self.pair, self.direction = tc, pair, direction
        self.index = pair.index
        tc.ensure(self.index)

    def attach(self, name: str, position: Position = LAST, verdict: int = NEXT) -> int:
        with Owned(program(verdict, name)) as fd:
            return self.tc.filter_create(fd, self.index, self.direction, position, name=name)

    def update(self, priority: int, name: str, verdict: int = NEXT) -> None:
        with Owned(program(verdict, name)) as fd:
            self.tc.filter_update(self.index, self.direction, priority, fd, name=name)

    def detach(self, priority: int) -> None:
        self.tc.filter_detach(self.index, self.direction, priority)

    def names(self) -> str:
        return " ".join(each.name.removeprefix(PREFIX) for each in self.tc.filters(self.index, self.direction))

    def witness(self) -> str:
        return sh("tc", "filter", "show", "dev", "near", self.direction.name.lower())

    def foreign(self, priority: int, name: str = "theirs") -> None:
        """A filter as another program would make one."""
        with Owned(program(NEXT, "theirs")) as fd:
            bpf.pin(fd, path := f"/sys/fs/bpf/foreign-{priority}")
        parent = self.direction.name.lower()
        words = f"filter add dev near {parent} prio {priority} bpf da object-pinned {path}"
        sh("tc", *words.split())
        sh("rm", path)


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair("veth")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def tc(pair: Pair) -> Iterator[Tc]:
    with Tc() as made:
        yield made


@pytest.fixture(params=Direction, ids=lambda direction: direction.name.lower())
def hook(request: pytest.FixtureRequest, tc: Tc, pair: Pair) -> Hook:
    return Hook(tc, pair, request.param)


# --- the qdisc --------------------------------------------------------------------------


@pytest.mark.smoke
def test_the_qdisc_is_made_once_and_marked(tc: Tc, pair: Pair) -> None:
    assert (tc.qdisc(pair.index), tc.is_ours(pair.index)) == ("", False)
    assert tc.ensure(pair.index)
    assert not tc.ensure(pair.index)
    assert (tc.qdisc(pair.index), tc.is_ours(pair.index)) == ("clsact", True)
    assert "clsact" in sh("tc", "qdisc", "show", "dev", "near")
    assert tc.release(pair.index)
    assert "clsact" not in sh("tc", "qdisc", "show", "dev", "near")
    assert not tc.release(pair.index)


def test_the_qdisc_of_another_stays(tc: Tc, pair: Pair) -> None:
    sh("tc", "qdisc", "add", "dev", "near", "clsact")
    assert not tc.ensure(pair.index)
    assert not tc.is_ours(pair.index)
    assert not tc.release(pair.index)
    assert tc.qdisc(pair.index) == "clsact"


def test_the_qdisc_stays_while_somebody_has_a_filter_there(hook: Hook) -> None:
    ours = hook.attach("ours")
    assert not hook.tc.release(hook.index)
    hook.foreign(7)
    hook.detach(ours)
    assert not hook.tc.release(hook.index)
    sh("tc", "filter", "del", "dev", "near", hook.direction.name.lower())
    assert hook.tc.release(hook.index)


def test_an_ingress_qdisc_is_in_the_way(tc: Tc, pair: Pair) -> None:
    sh("tc", "qdisc", "add", "dev", "near", "ingress")
    with pytest.raises(
        BpfError, match=r"make the clsact qdisc of near .*its ingress qdisc takes clsact's place"
    ) as caught:
        tc.ensure(pair.index)
    assert caught.value.errno == errno.EBUSY


# --- the chain --------------------------------------------------------------------------


def test_an_unused_hook_is_empty(hook: Hook) -> None:
    chain = hook.tc.query(hook.index, hook.direction)
    assert (chain.revision, chain.entries) == (1, ())


def test_a_filter_says_what_it_is(hook: Hook) -> None:
    with Owned(program(name="guard")) as fd:
        info = prog_info(fd)
        priority = hook.tc.filter_create(fd, hook.index, hook.direction, name="node/guard.1f2e")
    (found,) = hook.tc.filters(hook.index, hook.direction)
    assert (found.name, found.priority, found.prog_id, found.tag) == (
        "nkform:node/guard.1f2e",
        priority,
        info.id,
        info.tag,
    )
    assert found.ours
    (entry,) = hook.tc.query(hook.index, hook.direction).entries
    assert (entry.prog_id, entry.link_id) == (info.id, priority)
    said = hook.witness()
    for part in ("nkform:node/guard.1f2e", "direct-action", f"id {info.id} ", f"tag {info.tag}", f"pref {priority} "):
        assert part in said


def test_positions_make_the_order(hook: Hook) -> None:
    b = hook.attach("b")
    hook.attach("d")
    hook.attach("a", First())
    hook.attach("e")
    hook.attach("c", After(link_id=b))
    assert hook.names() == "a b c d e"
    chain = hook.tc.query(hook.index, hook.direction)
    hook.attach("c2", Before(prog_id=chain.entries[3].prog_id))
    assert hook.names() == "a b c c2 d e"


def test_the_filters_of_others_are_told_apart_and_passed_by(hook: Hook) -> None:
    hook.foreign(PRIORITY_START)
    a = hook.attach("a", First())
    z = hook.attach("z")
    assert a < PRIORITY_START < z
    middle = hook.tc.filters(hook.index, hook.direction)[1]
    assert (middle.ours, middle.kind, middle.priority) == (False, "bpf", PRIORITY_START)
    assert middle.prog_id > 0
    hook.detach(PRIORITY_START)
    assert hook.tc.filters(hook.index, hook.direction)[1] == middle, "it is not ours to detach"
    with pytest.raises(BpfError, match="nkform has no filter there") as caught:
        hook.update(PRIORITY_START, "x")
    assert caught.value.errno == errno.ENOENT
    assert hook.tc.filters(hook.index, hook.direction)[1] == middle


def test_there_is_a_first_place_that_cannot_be_overtaken(hook: Hook) -> None:
    hook.foreign(1)
    with pytest.raises(BpfError, match="no priority is free between 0 and 1") as caught:
        hook.attach("a", First())
    assert caught.value.errno == errno.ENOSPC


def test_an_update_keeps_the_place(hook: Hook) -> None:
    hook.attach("a")
    b = hook.attach("b")
    hook.attach("c")
    before = hook.tc.query(hook.index, hook.direction)
    hook.update(b, "new")
    assert hook.names() == "a new c"
    after = hook.tc.query(hook.index, hook.direction)
    assert [entry.link_id for entry in after.entries] == [entry.link_id for entry in before.entries]
    assert after.revision != before.revision


def test_a_stale_revision_is_refused(hook: Hook) -> None:
    a = hook.attach("a")
    seen = hook.tc.query(hook.index, hook.direction).revision
    hook.update(a, "a2")
    with Owned(program(name="late")) as fd:
        with pytest.raises(
            BpfError, match=r"attach program \d+ \(late\) at clsact .*: the chain was changed"
        ) as caught:
            hook.tc.filter_create(fd, hook.index, hook.direction, name="late", revision=seen)
        assert caught.value.errno == errno.ESTALE
        seen = hook.tc.query(hook.index, hook.direction).revision
        hook.tc.filter_create(fd, hook.index, hook.direction, name="late", revision=seen)
    assert hook.names() == "a2 late"


def test_a_chain_takes_a_program_once(hook: Hook) -> None:
    b = hook.attach("b")
    with Owned(program(name="a")) as fd:
        hook.tc.filter_create(fd, hook.index, hook.direction, name="a")
        for again in (
            lambda: hook.tc.filter_create(fd, hook.index, hook.direction, name="a2"),
            lambda: hook.tc.filter_update(hook.index, hook.direction, b, fd, name="a2"),
        ):
            with pytest.raises(BpfError, match=r"program \d+ \(a\) is in this chain already") as caught:
                again()
            assert caught.value.errno == errno.EEXIST
    assert hook.names() == "b a"


def test_an_anchor_must_be_in_the_chain(hook: Hook) -> None:
    hook.attach("a")
    for anchor, said in ((Before(link_id=9), "filter 9"), (After(prog_id=0x7FFFFFF0), "program 2147483632")):
        with pytest.raises(BpfError, match=f"{said} is not in this chain") as caught:
            hook.attach("b", anchor)
        assert caught.value.errno == errno.ENOENT


def test_detaching_twice_does_nothing(hook: Hook) -> None:
    a = hook.attach("a")
    hook.attach("b")
    hook.detach(a)
    hook.detach(a)
    assert hook.names() == "b"


def test_a_long_chain_keeps_its_order(hook: Hook) -> None:
    names = [f"p{number}" for number in range(LONG)]
    for name in names:
        hook.attach(name)
    assert hook.names() == " ".join(names)
    priorities = [each.priority for each in hook.tc.filters(hook.index, hook.direction)]
    assert priorities == [PRIORITY_START + PRIORITY_STEP * number for number in range(LONG)]


def test_errors_say_what_is_wrong(tc: Tc, pair: Pair) -> None:
    with Owned(program(name="a")) as fd:
        with pytest.raises(
            BpfError, match=r"attach program .* \(a\) at clsact ingress of near .*: Parent Qdisc"
        ) as caught:
            tc.filter_create(fd, pair.index, Direction.INGRESS, name="a")
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(BpfError, match=r"clsact egress of ifindex 99.*: there is no such device") as caught:
            tc.filter_create(fd, 99999, Direction.EGRESS, name="a")
        assert caught.value.errno == errno.ENODEV
        with pytest.raises(ValueError, match="at most 248 bytes"):
            tc.filter_create(fd, pair.index, Direction.INGRESS, name="x" * 249)
    with pytest.raises(BpfError, match=r"make the clsact qdisc of ifindex 99999: No such device \(ENODEV\)"):
        tc.ensure(99999)


# --- packets ----------------------------------------------------------------------------


def test_packets_run_through_the_chain(hook: Hook) -> None:
    with hook.pair.sockets(SENDERS[hook.direction]) as (out, back):
        first = hook.attach("a")
        last = hook.attach("b", verdict=DROP)
        assert not passes(out, back), "b drops"
        hook.update(first, "a", PASS)
        assert passes(out, back), "a decides first"
        hook.update(first, "a", NEXT)
        assert not passes(out, back), "a leaves it to b"
        hook.detach(last)
        assert passes(out, back), "nobody decides"


@pytest.mark.smoke
def test_an_update_lets_no_packet_by(hook: Hook) -> None:
    """The program behind the one that is replaced, again and again, meets no packet."""
    with (
        Owned(map_create(MapType.ARRAY, 4, 8, 1, "behind")) as behind,
        Owned(counter(behind, DROP)) as count,
        hook.pair.sockets(SENDERS[hook.direction]) as (out, _),
    ):
        a = hook.attach("a", verdict=PASS)
        hook.tc.filter_create(count, hook.index, hook.direction, name="behind")
        churn(out, lambda turn: hook.update(a, f"a{turn}", PASS), UPDATES)
        assert map_lookup(behind, bytes(4)) == bytes(8)
        hook.detach(a)
        out.send(b"nkform")
        assert map_lookup(behind, bytes(4)) != bytes(8), "it would have been met"
