"""How a replacement is ordered: the new pair is complete before anything of the old one goes, which goes last."""

from __future__ import annotations

from dataclasses import replace

from nkform.model import Address, Device, Endpoint, Namespace, Node, Route
from nkform.plan.actions import (
    AddAddress,
    AddRoute,
    CreatePair,
    DeletePair,
    DeleteRoute,
    MoveEnd,
    SetUp,
    WaitForCarrier,
)
from nkform.plan.changes import Plan
from nkform.plan.plan import build
from nkform.plan.replacement import NAME_BYTES, Names

UP = {"up": True, "mtu": 1500}
ROUTE = Route("10.0.0.2/32")
FEATURES = {"netkit", "tcx", "netkit_scrub", "netkit_mac", "netkit_room"}


def device(mode: str = "l3", name: str = "lxc-web", peer: str = "eth0") -> Device:
    primary = Endpoint(name, attrs=UP, addresses=(Address("10.0.0.1/32"), Address("10.0.0.9/32")), routes=(ROUTE,))
    far = Endpoint(peer, "web", UP, (Address("10.0.0.2/32"),))
    return Device(name, "netkit", {"mode": mode}, primary, far)


def live(*devices: Device, **taken: tuple[str, ...]) -> Node:
    """A node on which these devices of ours are, and others of the names that are taken."""
    ends = [end for each in devices for end in each.ends]
    spaces = {
        key: Namespace(
            key,
            owner="w" if key else None,
            links={
                **dict.fromkeys(taken.get(key or "root", ()), False),
                **{end.name: True for end in ends if end.namespace == key},
            },
        )
        for key in ("", "web")
    }
    return Node("w", spaces, {each.name: replace(each, owner="w", index=7) for each in devices})


def planned(found: Node, *wanted: Device) -> Plan:
    spec = Node("w", {"web": Namespace("web", create=True)}, {each.name: each for each in wanted})
    return build(spec, found, features=FEATURES)


def test_the_new_pair_is_complete_before_the_old_one_gives_way() -> None:
    actions = planned(live(device()), device("l2")).actions
    kinds = [type(action) for action in actions]
    assert kinds.index(CreatePair) < kinds.index(SetUp) < kinds.index(WaitForCarrier) < kinds.index(MoveEnd)
    assert kinds[-1] is DeletePair
    later = kinds.index(DeleteRoute)
    assert not {CreatePair, SetUp, WaitForCarrier, MoveEnd, AddAddress, AddRoute} & set(kinds[later:])
    assert [(a.end.name, a.beside) for a in actions if isinstance(a, AddRoute)] == [("lxc-web", True)]


def test_names_are_exchanged_and_given_back_by_undoing() -> None:
    moves = [a for a in planned(live(device()), device("l2")).actions if isinstance(a, MoveEnd)]
    given = [(move.before.name, move.after.name) for move in moves]
    assert [first for first, _ in given[::2]] == ["eth0", "lxc-web"]
    assert [last for _, last in given[1::2]] == ["eth0", "lxc-web"]
    spare = {name for names in given for name in names} - {"eth0", "lxc-web"}
    assert len(spare) == 4
    assert all(len(name) <= NAME_BYTES and "~" in name for name in spare)


def test_spare_names_follow_from_names_and_are_not_taken() -> None:
    end = Endpoint("a-name-of-15-by")
    first = Names({}, live()).spare(end, "n")
    assert first == Names({}, live()).spare(end, "n")
    assert len(first.name.encode()) == NAME_BYTES
    assert first.name.startswith("a-name-of~n")
    assert Names({}, live(root=(first.name,))).spare(end, "n") != first
    names = Names({}, live())
    assert len({names.spare(end, role).name for role in "nonono"}) == 6


def test_addresses_of_others_go_over() -> None:
    foreign = Address("192.0.2.1/24", ours=False)
    old = device()
    old = replace(old, primary=replace(old.primary, addresses=(*old.primary.addresses, foreign)))
    added = [a.address for a in planned(live(old), device("l2")).actions if isinstance(a, AddAddress)]
    assert [address.ours for address in added if address.text == foreign.text] == [False]


def test_a_peer_that_moves_as_well_needs_no_spare_name() -> None:
    wanted = device("l2", peer="net0")
    actions = planned(live(device()), wanted).actions
    (made,) = (a.device for a in actions if isinstance(a, CreatePair))
    (gone,) = (a.device for a in actions if isinstance(a, DeletePair))
    assert (made.peer and made.peer.name, gone.peer and gone.peer.name) == ("net0", "eth0")
    assert (made.primary.name, gone.primary.name) != ("lxc-web", "lxc-web")


def test_a_peer_that_cannot_be_reached_lets_the_old_pair_go_first() -> None:
    old = device()
    assert old.peer is not None
    plan = planned(live(replace(old, peer=replace(old.peer, namespace="nsid:3"))), device("l2"))
    assert isinstance(plan.actions[0], DeletePair)
    assert plan.changes[0].reason.endswith("the old pair goes first: its peer cannot be reached")


def test_no_spare_name_is_a_further_name_of_another_device() -> None:
    found = live(device())
    first = Names({}, found).spare(found.devices["lxc-web"].primary, "n").name
    root = replace(found.namespaces[""], altnames={first: "other"})
    taken = replace(found, namespaces={**found.namespaces, "": root})
    assert Names({}, taken).spare(found.devices["lxc-web"].primary, "n").name != first
