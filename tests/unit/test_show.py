"""Given a node after any plan of tests/plan, `show` prints a spec of it, and this spec leaves nothing to do."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nkform.bpf.programs import Programs, Source
from nkform.dataclass import replace
from nkform.document.yaml_events import parse
from nkform.features import FEATURES
from nkform.model import Address, Attached, Device, Endpoint, Explanation, Hook, MapContents, Namespace, Node, Route
from nkform.observe.explanations import Known
from nkform.plan.plan import build, meaning
from nkform.problem import NkformError
from nkform.report.spec_text import Told, as_spec, engines, several, unexplained, unwritable
from nkform.report.spec_yaml import render
from nkform.spec import loads
from tests.specs import specs
from tests.unit.test_plan_cases import Case, cases


@pytest.fixture(scope="module")
def programs() -> Iterator[Programs]:
    with Programs(Source(engine="clang")) as programs:
        yield programs


@cases
def test_what_show_prints_plans_empty(name: str, programs: Programs) -> None:
    case = Case(name, programs)
    try:
        plan = case.plan(case.live)
    except NkformError:
        return
    live = case.kernel.applied(plan, case.live)
    told = Known(programs.explained(plan.devices.values())).of
    text = render(as_spec(live, told))
    shown = programs.declared(loads(text).node).at_home(live.home)
    again = build(shown, live, features=case.kernel.features, programs=programs)
    assert (again.changes, again.actions) == ((), ()), text


@pytest.mark.parametrize("attach", ["auto", "tc"])
def test_a_program_that_stands_in_for_a_policy_is_shown_as_the_policy(programs: Programs, attach: str) -> None:
    case = Case("policy-closed-on-veth", programs)
    web = replace(case.desired.devices["lxc-web"], attach=attach)
    case.desired = case.desired.with_devices({"lxc-web": web})
    live = case.kernel.applied(case.plan(case.live), case.live)
    (shown,) = as_spec(live, nothing)["devices"].values()
    assert shown["peer"] == {"name": "eth0", "namespace": "web", "policy": "blackhole"}
    assert "programs" not in shown
    assert shown.get("attach", "auto") == attach


@given(specs("netkit", frozenset(FEATURES)))
@settings(max_examples=60, deadline=None)
def test_what_show_prints_of_any_node_plans_empty(given_spec: dict[str, Any]) -> None:
    desired = loads(yaml.safe_dump(given_spec)).node
    features = {*FEATURES, *(f"sysctl:{k}" for d in desired.devices.values() for end in d.ends for k in end.sysctl)}
    devices, problems = meaning(desired, Node("random"), features=features)
    assert not [problem for problem in problems if problem.severity == "error"]
    spaces = {name: Namespace(name, owner="random") for name in desired.namespaces}
    owned = {name: replace(device, owner="random") for name, device in devices.items()}
    live = Node("random", {"": Namespace(""), **spaces}, owned)
    plan = build(loads(render(as_spec(live, nothing))).node, live, features=features)
    assert (plan.changes, plan.actions) == ((), ())


def nothing(_device: str, _hook: str, _entry: Attached) -> None:
    """What is on record of a program where nothing is."""


# --- one device, looked at closely ---


def node(**hooks: tuple[Attached, ...]) -> Node:
    found = {name: Hook(entries, (), 1) for name, entries in hooks.items()}
    primary, peer = Endpoint("lxc-web"), Endpoint("eth0", "web")
    device = Device("lxc-web", "netkit", {"mode": "l3"}, primary, peer, owner="w", hooks=found)
    return Node("w", {"": Namespace(""), "web": Namespace("web")}, {"lxc-web": device})


def attached(name: str, number: int = 1, **more: Any) -> Attached:
    return replace(Attached(number, number, name, f"digest-of-{name}", ours=True), **more)


def shown(live: Node, told: Told = nothing) -> dict[str, Any]:
    """The device as the text of `show` has it."""
    found: dict[str, Any] = yaml.safe_load(render(as_spec(live, told)))
    assert loads(render(as_spec(live, told))).node.name == "w"
    return found


def of(*known: Explanation) -> Told:
    """What is on record, by digest."""
    return lambda _device, _hook, entry: {each.digest: each for each in known}.get(entry.digest)


COUNT = Explanation("digest-of-count", "counters", engine="clang")
GUARD = Explanation("digest-of-guard", "source_guard", {"other": "drop"}, engine="clang")


def test_programs_are_declared_once_and_have_their_parameters_where_they_are_used() -> None:
    live = node(peer=(attached("count"), attached("guard", 2)), primary=(attached("count", 3),))
    found = shown(live, of(COUNT, GUARD))
    assert found["programs"] == {"count": {"template": "counters"}, "guard": {"template": "source_guard"}}
    chain = ["count", {"use": "guard", "params": {"other": "drop"}}]
    assert found["devices"]["lxc-web"]["programs"] == {"peer": chain, "primary": ["count"]}


def test_two_programs_of_one_name_and_different_templates_are_both_declared() -> None:
    live = node(peer=(attached("count"),), primary=(attached("count", digest="another"),))
    found = shown(live, of(COUNT, Explanation("another", "verdict", {"verdict": "pass"})))
    assert found["programs"] == {"count": {"template": "counters"}, "count-2": {"template": "verdict"}}
    used = {"use": "count-2", "as": "count", "params": {"verdict": "pass"}}
    assert found["devices"]["lxc-web"]["programs"] == {"peer": ["count"], "primary": [used]}


def test_the_folders_of_ones_own_templates_are_named() -> None:
    known = of(Explanation("digest-of-count", "mine", folder="/srv/templates/mine", builtin=False))
    assert shown(node(peer=(attached("count"),)), known)["templates"] == ["/srv/templates"]


def test_the_program_that_ends_a_chain_is_its_default() -> None:
    live = node(peer=(attached("guard"), attached("default", 2)))
    found = shown(live, of(GUARD, Explanation("digest-of-default", "verdict", {"verdict": "drop"})))
    chain = [{"use": "guard", "params": {"other": "drop"}}]
    assert found["devices"]["lxc-web"]["programs"] == {"peer": {"default": "drop", "chain": chain}}


def test_lists_are_those_that_the_kernel_has() -> None:
    held = {
        "prefixes": (
            MapContents("p_ipv4", "ipv4-prefix", ("10.0.0.0/8",)),
            MapContents("p_ipv6", "ipv6-prefix", ("::/0",)),
        )
    }
    known = Explanation("digest-of-block", "prefix_filter", {"prefixes": ["192.0.2.0/24"], "match": "source"})
    found = shown(node(peer=(attached("block", contents=held),)), of(known))
    (used,) = found["devices"]["lxc-web"]["programs"]["peer"]
    assert used["params"] == {"prefixes": ["10.0.0.0/8", "::/0"], "match": "source"}


def test_filters_of_legacy_tc_are_asked_for_again() -> None:
    hooks = {"ingress": Hook((), (attached("count"),), 0)}
    live = replace(node(), devices={"eth0": Device("eth0", "external", {}, Endpoint("eth0"), hooks=hooks)})
    expected = {"kind": "external", "attach": "tc", "programs": {"ingress": ["count"]}}
    assert shown(live, of(COUNT))["devices"] == {"eth0": expected}


def test_what_is_not_known_of_a_program_is_told_and_the_program_left_out() -> None:
    strange = attached("guard", 7, loaded=6)
    live = node(peer=(attached("count"), strange))
    lost, foreign = unexplained(live, of(GUARD))
    assert (lost.code, foreign.code) == ("NK0607", "NK0440")
    assert (
        lost.message == "count at peer of lxc-web is left out: there is no record of the template that it was made from"
    )
    assert "in its place runs program 7, which nkform did not load" in foreign.message
    assert shown(live, of(GUARD))["devices"]["lxc-web"]["programs"] == {"peer": []}


def test_the_engine_of_most_programs_is_named_and_that_there_are_several_is_told() -> None:
    other = Explanation("digest-of-other", "counters", engine="bcc")
    live = node(peer=(attached("other"), attached("count"), attached("guard")))
    found = engines(live, of(COUNT, GUARD, other))
    assert found == ("clang", "bcc")
    (problem,) = several(found)
    assert (problem.code, problem.severity) == ("NK0609", "warning")
    assert problem.message.endswith("compiled by clang and bcc, and a spec names one engine: clang is shown")
    assert several(found[:1]) == []
    assert as_spec(live, of(COUNT, GUARD, other), "clang")["engine"] == "clang"


def test_names_that_are_no_text_are_told_and_spelled_out() -> None:
    name = b"eth\xff".decode(errors="surrogateescape")
    live = node()
    device = live.devices["lxc-web"]
    assert device.peer is not None
    live = live.with_devices({"lxc-web": replace(device, peer=replace(device.peer, name=name))})
    (problem,) = unwritable(live)
    assert problem.code == "NK0608"
    assert "eth\\xff" in problem.message
    assert shown(live)["devices"]["lxc-web"]["peer"]["name"] == "eth\\xff"
    assert unwritable(node()) == []


@pytest.mark.parametrize(
    ("key", "said"),
    [("", None), ("pid:7", {"pid": 7}), ("path:/proc/7/ns/net", {"path": "/proc/7/ns/net"}), ("a", "a")],
)
def test_the_namespace_of_a_peer(key: str, said: object) -> None:
    live = node()
    device = live.devices["lxc-web"]
    live = live.with_devices({"lxc-web": replace(device, peer=Endpoint("eth0", key))})
    found = shown(live)
    assert found["devices"]["lxc-web"]["peer"].get("namespace") == said
    assert found.get("namespaces") == ({"a": {}} if key == "a" else None)


def test_what_others_gave_an_end_is_left_out() -> None:
    addresses = (Address("10.0.0.1/32"), Address("192.0.2.1/24", ours=False))
    live = node()
    device = replace(live.devices["lxc-web"], primary=Endpoint("lxc-web", addresses=addresses))
    assert shown(live.with_devices({"lxc-web": device}))["devices"]["lxc-web"]["addresses"] == ["10.0.0.1/32"]


SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12),
    st.sampled_from(
        ["1e5", "0o17", "0x1f", "12:30", "yes", "null", "~", "", "-", "a: b", "#", "2026-01-01", ".5", "1_0"]
    ),
)
DATA = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab1-", min_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(DATA)
@settings(max_examples=400, deadline=None)
def test_what_is_printed_is_read_again_as_it_was(data: Any) -> None:
    parsed = parse(render({"vars": {"x": data}}))
    assert not parsed.faults
    assert parsed.data == {"vars": {"x": data}}


def test_text_that_looks_like_a_variable_stays_text() -> None:
    live = replace(node(peer=(attached("count"),)))
    known = of(Explanation("digest-of-count", "mine", {"x": ["${y}"]}, folder="/srv/${a}/mine", builtin=False))
    data = as_spec(live, known)
    assert data["templates"] == ["/srv/$${a}"]
    assert data["devices"]["lxc-web"]["programs"]["peer"] == [{"use": "count", "params": {"x": ["$${y}"]}}]


def test_routes_and_sysctls_say_what_is_not_usual_and_numbers_are_numbers() -> None:
    routes = (Route("fd00::/64", metric=1024), Route("10.0.0.0/8", "10.9.9.9", True, "10.0.0.1", 5, 100, 1400))
    sysctl = {"ipv4.rp_filter": "0", "ipv6.mtu": "1280", "ipv6.stable_secret": "fd00::1", "ipv4.x": "-1"}
    live = node()
    device = replace(live.devices["lxc-web"], primary=Endpoint("lxc-web", routes=routes, sysctl=sysctl))
    found = shown(live.with_devices({"lxc-web": device}))["devices"]["lxc-web"]
    assert found["routes"] == [
        {"to": "fd00::/64"},
        {
            "to": "10.0.0.0/8",
            "via": "10.9.9.9",
            "onlink": True,
            "src": "10.0.0.1",
            "metric": 5,
            "table": 100,
            "mtu": 1400,
        },
    ]
    assert found["sysctl"] == {"ipv4": {"rp_filter": 0, "x": -1}, "ipv6": {"mtu": 1280, "stable_secret": "fd00::1"}}


@pytest.mark.parametrize("ups", list(product([True, False], repeat=2)))
@pytest.mark.parametrize("queues", list(product([1000, 400, 500], repeat=2)))
def test_an_end_that_is_not_like_the_other_is_shown_so(ups: tuple[bool, bool], queues: tuple[int, int]) -> None:
    """The peer takes after the primary in what the spec does not say of it."""
    live = node()
    ends = [
        Endpoint(name, attrs={"policy": "forward", "scrub": "default", "mtu": 1500, "up": up, "txqlen": queue})
        for name, up, queue in zip(("lxc-web", "eth0"), ups, queues, strict=True)
    ]
    live = live.with_devices({"lxc-web": replace(live.devices["lxc-web"], primary=ends[0], peer=ends[1])})
    plan = build(loads(render(as_spec(live, nothing))).node, live, features=frozenset(FEATURES))
    assert (plan.changes, plan.actions) == ((), ()), as_spec(live, nothing)
