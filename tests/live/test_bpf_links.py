"""Links at every hook there is: one contract, and what each hook has of its own."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nkform.kernel import bpf, bpf_links
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_links import (
    After,
    AttachType,
    Before,
    Entry,
    Position,
    link_create,
    link_detach,
    link_info,
    link_update,
    query,
    supported,
)
from nkform.kernel.bpf_maps import MapType, map_create, map_lookup
from nkform.kernel.bpf_programs import prog_info, prog_load
from nkform.kernel.descriptors import Owned
from nkform.model import MAX_PROGRAMS, First, Last
from tests.live.helpers.bpf_pairs import HOOKS, PATIENCE, Hook, Pair, Site, churn, needs_hook, passes
from tests.live.helpers.bpf_programs import DROP, NEXT, PASS, counter, program, returns
from tests.live.helpers.support import ip

BPFFS = Path("/sys/fs/bpf")
NOBODY = 0x7FFFFFF0
"""An id and an ifindex that nothing has."""

SOCKET_FILTER = 1
UPDATES = 300


@pytest.fixture(params=HOOKS, ids=str)
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    hook: Hook = request.param
    needs_hook(hook.attach_type)
    made = Site(hook)
    try:
        yield made
    finally:
        made.close()


def id_of(link_fd: int) -> int:
    return link_info(link_fd).id


# --- the contract -----------------------------------------------------------------------


def test_an_unused_hook_is_empty(site: Site) -> None:
    assert (site.chain().revision, site.chain().entries) == (1, ())


def test_a_link_says_what_it_is(site: Site) -> None:
    prog = site.program("guard")
    fd = site.attach(prog)
    link = link_info(fd)
    kind = bpf_links.LINK_TYPE_NETKIT if site.hook.kind == "netkit" else bpf_links.LINK_TYPE_TCX
    assert (link.type, link.ifindex, link.attach_type) == (kind, site.link_index(), site.hook.attach_type)
    assert link.prog_id == prog_info(prog).id
    assert not os.get_inheritable(fd)
    assert site.chain() == bpf_links.Chain(2, (Entry(link.prog_id, link.id),))
    assert link.id in set(bpf.link_ids())
    with Owned(bpf.link_fd(link.id)) as again:
        assert link_info(again) == link


def test_positions_make_the_order(site: Site) -> None:
    b = site.attach_new("b")
    site.attach_new("d")
    site.attach_new("a", First())
    site.attach_new("e", Last())
    site.attach_new("c", After(link_id=id_of(b)))
    assert site.names() == "a b c d e"
    d, e = site.chain().entries[3:]
    site.attach_new("c2", Before(link_id=d.link_id))
    site.attach_new("d2", Before(prog_id=e.prog_id))
    site.attach_new("b2", After(prog_id=link_info(b).prog_id))
    assert site.names() == "a b b2 c c2 d d2 e"
    assert site.chain().revision == 9


@pytest.mark.parametrize("position", [First(), Last()], ids=["first", "last"])
def test_any_position_will_do_in_an_empty_chain(site: Site, position: Position) -> None:
    site.attach_new("a", position)
    assert site.names() == "a"


def test_an_update_keeps_place_and_id(site: Site) -> None:
    fds = [site.attach_new(name) for name in "abc"]
    before = site.chain()
    new = site.program("new")
    link_update(fds[1], new)
    assert site.names() == "a new c"
    after = site.chain()
    assert after.revision == before.revision + 1
    assert [entry.link_id for entry in after.entries] == [entry.link_id for entry in before.entries]
    assert link_info(fds[1]).prog_id == prog_info(new).id
    link_update(fds[1], new)
    assert site.chain() == after, "the same program again is no change"


def test_an_update_can_insist_on_the_old_program(site: Site) -> None:
    old, other, new = site.program("old"), site.program("other"), site.program("new")
    link = site.attach(old)
    with pytest.raises(BpfError, match="another program than the expected") as caught:
        link_update(link, new, other)
    assert caught.value.errno == errno.EPERM
    assert site.names() == "old"
    link_update(link, new, old)
    assert site.names() == "new"


def test_a_stale_revision_is_refused(site: Site) -> None:
    a = site.attach_new("a")
    seen = site.chain().revision
    link_update(a, site.program("a2"))
    late = site.program("late")
    with pytest.raises(BpfError, match=f"program .* \\(late\\) last at .* not at revision {seen} any more") as caught:
        site.attach(late, revision=seen)
    assert caught.value.errno == errno.ESTALE
    assert site.names() == "a2"
    site.attach(late, revision=seen + 1)
    assert site.names() == "a2 late"


def test_a_chain_takes_a_program_once(site: Site) -> None:
    a, b = site.program("a"), site.program("b")
    site.attach(a)
    second = site.attach(b)
    with pytest.raises(BpfError, match=r"attach program \d+ \(a\) first .* in this chain already") as caught:
        site.attach(a, First())
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(BpfError, match=r"replace the program of link \d+ by program \d+ \(a\)") as caught:
        link_update(second, a)
    assert caught.value.errno == errno.EEXIST
    assert site.names() == "a b"


@pytest.mark.parametrize("position", [Before, After])
def test_an_anchor_must_be_in_the_chain(site: Site, position: type[Before | After]) -> None:
    site.attach_new("a")
    elsewhere = site.program("elsewhere")
    detached = site.attach_new("detached")
    link_detach(detached)
    new = site.program("new")
    absent = (
        position(link_id=NOBODY),
        position(prog_id=NOBODY),
        position(prog_id=prog_info(elsewhere).id),
        position(link_id=id_of(detached)),
    )
    for anchor in absent:
        said = f"link {anchor.link_id}" if anchor.link_id else f"program {anchor.prog_id}"
        with pytest.raises(
            BpfError, match=f"{position.__name__.lower()} {said} at .*: {said} is not in this"
        ) as caught:
            site.attach(new, anchor)
        assert caught.value.errno == errno.ENOENT
    assert site.names() == "a"


def test_a_hook_takes_63_programs(site: Site) -> None:
    names = [f"p{number}" for number in range(MAX_PROGRAMS)]
    fds = [site.attach_new(name) for name in names]
    assert site.names() == " ".join(names)
    assert site.chain().revision == MAX_PROGRAMS + 1
    one_more = site.program("more")
    for position in (Last(), First(), Before(link_id=id_of(fds[3]))):
        with pytest.raises(BpfError, match="the chain is full: the kernel takes 63 programs") as caught:
            site.attach(one_more, position)
        assert caught.value.errno == errno.ERANGE
    link_update(fds[7], one_more)
    names[7] = "more"
    assert site.names() == " ".join(names), "replacing needs no room"


def test_a_detached_link_is_out_for_good(site: Site) -> None:
    fds = [site.attach_new(name) for name in "abc"]
    revision = site.chain().revision
    link_detach(fds[1])
    assert site.names() == "a c"
    assert site.chain().revision == revision + 1
    assert link_info(fds[1]).ifindex == 0
    link_detach(fds[1])
    assert site.chain().revision == revision + 1, "doing it again does nothing"
    with pytest.raises(BpfError, match="the link is detached") as caught:
        link_update(fds[1], site.program("new"))
    assert caught.value.errno == errno.ENOLINK


def test_a_link_that_nobody_holds_is_detached(site: Site) -> None:
    with Owned(program(name="a")) as prog:
        os.close(link_create(prog, site.index, site.hook.attach_type))
    assert site.names() == ""


def test_a_pin_holds_a_link(site: Site) -> None:
    path = BPFFS / f"pin-{os.getpid()}"
    with Owned(program(name="a")) as prog, Owned(link_create(prog, site.index, site.hook.attach_type)) as link:
        number = id_of(link)
        bpf.pin(link, path)
    assert site.names() == "a"
    with Owned(bpf_links.open_link(path)) as link:
        assert id_of(link) == number
        link_update(link, site.program("b"))
    assert site.names() == "b"
    path.unlink()
    deadline = time.monotonic() + PATIENCE
    while site.names():  # the kernel takes its time: who needs a program to be out detaches the link first
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_link_outlives_its_device(site: Site) -> None:
    link = site.attach_new("a")
    site.pair.delete()
    assert link_info(link).ifindex == 0
    with pytest.raises(BpfError, match="its device was deleted") as caught:
        link_update(link, site.program("b"))
    assert caught.value.errno == errno.ENOLINK
    link_detach(link)
    with pytest.raises(BpfError, match=f"read the chain at .* of ifindex {site.index}: .* no such device") as caught:
        site.chain()
    assert caught.value.errno == errno.ENODEV


def test_a_device_takes_its_chain_along_to_another_namespace(site: Site) -> None:
    for name in "ab":
        site.attach_new(name)
    before = site.chain()
    ip("netns", "add", "third")
    ip("link", "set", "near", "netns", "third")
    with site.pair.inside("third"):
        index = int(ip("-o", "link", "show", "dev", "near").partition(":")[0])
        assert query(index, site.hook.attach_type) == before


def test_a_device_must_be_there(site: Site) -> None:
    with pytest.raises(BpfError, match=f"last at {site.hook.attach_type.words} of ifindex .* no such device") as caught:
        link_create(site.program("a"), NOBODY, site.hook.attach_type)
    assert caught.value.errno == errno.ENODEV


def test_only_programs_for_packets_fit(site: Site) -> None:
    other = site.keep(prog_load(returns(0), "filter", SOCKET_FILTER))
    link = site.attach_new("a")
    with pytest.raises(BpfError, match=r"program \d+ \(filter\) is of another type than SCHED_CLS") as caught:
        site.attach(other)
    assert (caught.value.errno, caught.value.feature) == (errno.EINVAL, "")
    with pytest.raises(BpfError, match=r"program \d+ \(filter\) is of another type than the link's"):
        link_update(link, other)
    with pytest.raises(BpfError, match="is no BPF program") as caught:
        site.attach(999)
    assert caught.value.errno == errno.EBADF
    with pytest.raises(BpfError, match="file descriptor 999, which is no link"):
        link_detach(999)


def test_packets_run_through_the_chain(site: Site) -> None:
    with site.pair.sockets(site.hook.sender) as (out, back):
        first = site.attach_new("a")
        last = site.attach_new("b", verdict=DROP)
        assert not passes(out, back), "b drops"
        link_update(first, site.program("pass", PASS))
        assert passes(out, back), "a decides first"
        link_update(first, site.program("next", NEXT))
        assert not passes(out, back), "a leaves it to b"
        link_detach(last)
        assert passes(out, back), "nobody decides"
        drop = site.attach_new("c", First(), DROP)
        assert not passes(out, back)
        link_detach(drop)
        assert passes(out, back)


@pytest.mark.smoke
def test_an_update_lets_no_packet_by(site: Site) -> None:
    """The program behind the one that is replaced, again and again, meets no packet."""
    with Owned(map_create(MapType.ARRAY, 4, 8, 1, "behind")) as behind, site.pair.sockets(site.hook.sender) as (out, _):
        link = site.attach_new("a", verdict=PASS)
        site.attach(site.keep(counter(behind, DROP)))
        others = [site.program("b", PASS), site.program("c", PASS)]
        churn(out, lambda turn: link_update(link, others[turn % 2]), UPDATES)
        assert map_lookup(behind, bytes(4)) == bytes(8)
        link_detach(link)
        out.send(b"nkform")
        assert map_lookup(behind, bytes(4)) != bytes(8), "it would have been met"


# --- emptied hooks ----------------------------------------------------------------------


def test_an_emptied_hook_says_revision_1_again(site: Site) -> None:
    """netkit goes on counting and says 1; tcx begins anew. So revision 1 cannot be expected of a netkit's hook."""
    for name in "ab":
        link_detach(site.attach_new(name))
    assert (site.chain().revision, site.chain().entries) == (1, ())
    new = site.program("new")
    if site.hook.kind == "netkit":
        with pytest.raises(BpfError, match="not at revision 1 any more"):
            site.attach(new, revision=1)
        site.attach(new)
        assert site.chain().revision == 6
    else:
        site.attach(new, revision=1)
        assert site.chain().revision == 2


# --- netkit alone -----------------------------------------------------------------------


@pytest.fixture
def netkit() -> Iterator[Pair]:
    needs_hook(AttachType.NETKIT_PEER)
    made = Pair("netkit")
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("attach_type", [AttachType.NETKIT_PRIMARY, AttachType.NETKIT_PEER])
def test_a_netkits_peer_is_refused(netkit: Pair, attach_type: AttachType) -> None:
    index = netkit.peer_index()
    with netkit.inside("far"), Owned(program()) as prog:
        for ask in (lambda: link_create(prog, index, attach_type), lambda: query(index, attach_type)):
            with pytest.raises(
                BpfError, match="a netkit's peer: its programs are reached through the primary"
            ) as caught:
                ask()
            assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize("attach_type", [AttachType.NETKIT_PRIMARY, AttachType.NETKIT_PEER])
def test_other_devices_have_no_netkit_hooks(attach_type: AttachType) -> None:
    needs_hook(attach_type)
    with Owned(program()) as prog:
        for ask in (lambda: link_create(prog, 1, attach_type), lambda: query(1, attach_type)):
            with pytest.raises(BpfError, match=r"lo \(ifindex 1\).*the device is no netkit") as caught:
                ask()
            assert caught.value.errno == errno.ENXIO


@pytest.mark.parametrize(("attach_type", "other"), [(54, 55), (55, 54)])
def test_the_two_hooks_of_a_netkit_are_apart(netkit: Pair, attach_type: int, other: int) -> None:
    with Owned(program()) as prog, Owned(link_create(prog, netkit.index, AttachType(attach_type))):
        assert len(query(netkit.index, AttachType(attach_type)).entries) == 1
        assert query(netkit.index, AttachType(other)).entries == ()
        with Owned(link_create(prog, netkit.index, AttachType(other))):
            assert len(query(netkit.index, AttachType(other)).entries) == 1


# --- where a hook is missing ------------------------------------------------------------


@pytest.mark.parametrize("attach_type", AttachType)
def test_a_missing_hook_is_named_with_its_version(attach_type: AttachType) -> None:
    if supported(attach_type):
        with Owned(program()) as prog, pytest.raises(BpfError) as caught:
            link_create(prog, 0x7FFFFFFF, attach_type)
        assert (caught.value.errno, caught.value.feature) == (errno.ENODEV, "")
        return
    version = "6.7" if "NETKIT" in attach_type.name else "6.6"
    with Owned(program()) as prog:
        for ask in (lambda: link_create(prog, 1, attach_type), lambda: query(1, attach_type)):
            with pytest.raises(BpfError, match=f"at {attach_type.words} of lo .*: needs .*: Linux {version}") as caught:
                ask()
            assert caught.value.errno == errno.EINVAL
            assert caught.value.feature == attach_type.feature


def test_ids_that_nothing_has() -> None:
    for ask, kind in ((bpf.link_fd, "link"), (bpf.prog_fd, "program"), (bpf.map_fd, "map")):
        with pytest.raises(BpfError, match=f"open BPF {kind} {NOBODY}: .*: there is no {kind} with this id") as caught:
            ask(NOBODY)
        assert caught.value.errno == errno.ENOENT
