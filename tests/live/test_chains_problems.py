"""What is wrong with chains and programs is said, by the command that can know it first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nkform.kernel import bpffs
from nkform.model import MAX_PROGRAMS
from tests.live.helpers.chain_sites import (
    CLSACT_INGRESS,
    DEVICE,
    NETKIT_PEER,
    OPEN,
    OTHER,
    SHUT,
    TCX_INGRESS,
    Others,
    Packets,
    Site,
    everywhere,
    pins,
    sites,
)
from tests.live.helpers.support import Node, features, ip, kinds, links, needs, pings, sh

TOP = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("made_once")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere(metafunc)


@needs("tcx")
def test_filters_that_a_chain_hides_are_named(node: Node, others: Others) -> None:
    node.apply(TCX_INGRESS.spec([]))
    others.attach(CLSACT_INGRESS, "hidden", 7)
    warned = node.plan(TCX_INGRESS.spec(["count"])).err
    assert "NK0423" in warned
    assert "hidden" in warned
    assert "NK0423" not in node.plan(CLSACT_INGRESS.spec(["count"])).err
    node.apply(TCX_INGRESS.spec(["count"]))
    assert [each.name for each in CLSACT_INGRESS.running()] == ["hidden"]


def refused_programs(site: Site, engine: str = "auto", **programs: Any) -> dict[str, Any]:
    """A spec whose chain is these programs."""
    spec = site.spec(list(programs), engine)
    spec["programs"] = programs
    return spec


WRONG: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("template", {"p": {"template": "counter"}}, ("NK0704", "did you mean counters?")),
    ("parameter", {"p": {"template": "udp_ports", "params": {"ports": [1], "port": 1}}}, ("port", "ports")),
    ("missing", {"p": {"template": "udp_ports"}}, ("ports",)),
    ("value", {"p": {"template": "udp_ports", "params": {"ports": [70000]}}}, ("70000", "65535")),
    ("code", {"p": {"template": "udp_ports", "params": {"ports": ["1; return 0"]}}}, ("1; return 0",)),
    ("word", {"p": {"template": "udp_ports", "params": {"ports": [1], "verdict": "drop; }"}}}, ("drop; }",)),
]


@pytest.mark.parametrize(("programs", "said"), [pytest.param(*row[1:], id=row[0]) for row in WRONG])
def test_what_is_wrong_with_programs_is_said_by_plan(
    node: Node, programs: dict[str, Any], said: tuple[str, ...]
) -> None:
    error = node.refused(refused_programs(TCX_INGRESS, **programs))
    for words in ("spec.yaml:", *said):
        assert words in error
    assert links() == set()


def test_unknown_programs_and_hooks_are_said_by_validate(node: Node) -> None:
    error = node.refused(TCX_INGRESS.spec(["gard"]), command="validate")
    assert "NK0320" in error
    assert "did you mean guard?" in error
    error = node.refused(TCX_INGRESS.spec([], programs={"ingress": ["guard"]}), command="validate")
    assert "NK0322" in error
    assert "primary and peer" in error
    error = node.refused(TCX_INGRESS.spec([], programs={"pear": ["guard"]}), command="validate")
    assert "pear" in error
    error = node.refused(TCX_INGRESS.spec([], programs={"primary": ["source"]}) | PROGRAMS_MISPLACED)
    assert "NK0713" in error
    assert "source_guard is not made for the hook primary" in error


PROGRAMS_MISPLACED = {"programs": {"source": {"template": "source_guard"}}}


def test_a_template_that_does_not_compile(node: Node, site: Site, engine: str) -> None:
    node.apply(site.spec(["count", "guard"], engine))
    before = site.running()
    error = node.refused(
        refused_programs(site, engine, count={"template": "counters"}, bad={"template": "uncompilable"}),
        command="apply",
    )
    for words in ("no_such_verdict", "uncompilable/program.bpf.c.j2:5", "NK0505"):
        assert words in error
    assert site.running() == before


def test_a_template_that_the_verifier_refuses(node: Node, site: Site, engine: str) -> None:
    node.apply(site.spec(["count", "guard"], engine))
    before = site.running()
    error = node.refused(
        refused_programs(site, engine, count={"template": "counters"}, bad={"template": "refused"}), command="apply"
    )
    for words in ("is outside of the", "refused", "NK0505"):
        assert words in error
    assert site.running() == before


@pytest.mark.parametrize("place", sites(NETKIT_PEER, TCX_INGRESS))
def test_a_hook_that_is_full_is_said_by_plan(node: Node, place: Site, others: Others) -> None:
    node.apply(place.spec([]))
    for number in range(MAX_PROGRAMS):
        others.attach(place, f"p{number}", 1)
    error = node.refused(place.spec(["guard"]))
    assert "NK0420" in error
    assert "63" in error
    assert len(place.running()) == MAX_PROGRAMS


@pytest.mark.parametrize("place", sites(NETKIT_PEER, TCX_INGRESS))
def test_a_hook_without_room_for_a_change_is_said_by_plan(node: Node, place: Site, others: Others) -> None:
    node.apply(place.spec(["guard", "count"]))
    for number in range(MAX_PROGRAMS - 2):
        others.attach(place, f"p{number}", 1)
    running = place.running()
    error = node.refused(place.spec(["count", "guard"]))
    assert "NK0427" in error
    assert "spec.yaml" in error
    assert place.running() == running
    spec = place.spec(["guard", "count"])
    spec["programs"]["guard"]["params"] = {"ports": [OTHER]}
    node.apply(spec)  # one program in the place of another needs no room


@needs("netkit")
def test_a_chain_that_the_mode_empties_does_not_fall_through(node: Node) -> None:
    spec = NETKIT_PEER.spec(["arp"], mode="l3", peer={"policy": "blackhole"})
    spec["programs"]["arp"] = {"template": "arp_responder", "params": {"addresses": ["169.254.1.1"]}}
    for end in (spec["devices"][DEVICE], spec["devices"][DEVICE]["peer"]):
        end.pop("mac", None)
    said = node.apply(spec).err
    assert "NK0424" in said
    assert "NK0422" not in said


def test_an_anchor_that_is_not_there(node: Node, site: Site, others: Others) -> None:
    node.apply(site.spec([]))
    others.attach(site, "there", 1)
    number = site.running()[0].program_id
    error = node.refused(site.spec({"chain": ["guard"], "position": {"after": "elsewhere"}}))
    for words in ("NK0421", "elsewhere", f"(id {number})"):
        assert words in error
    for chain in ({"chain": ["guard"], "position": {"before": "there"}}, {"chain": [], "position": {"before": number}}):
        if site.direction is None or chain["chain"] == []:
            node.apply(site.spec(chain))


def test_a_bpffs_that_is_not_mounted_is_mounted(node: Node) -> None:
    site = TCX_INGRESS if "tcx" in features() else CLSACT_INGRESS
    sh("umount", "/sys/fs/bpf")
    try:
        node.apply(site.spec(["guard"]))
        assert site.order() == "guard"
        node.destroy()
    finally:
        if not bpffs.is_mounted():
            bpffs.mount()


def test_devices_may_have_dots_in_their_names(node: Node, site: Site, engine: str) -> None:
    spec = site.spec(["count", "guard"], engine)
    spec["devices"]["x.1"] = spec["devices"].pop(DEVICE)
    node.apply(spec)
    assert site.order("x.1") == "count guard"
    node.destroy()
    assert (links(), pins()) == (set(), [])


SHUT_OUT: dict[str, dict[str, Any]] = {
    "a guard that lets go on": {"guard": {"template": "source_guard"}, "count": {"template": "counters"}},
    "a list that lets go on": {
        "list": {"template": "prefix_filter", "params": {"match": "source", "prefixes": [], "listed": "next"}}
    },
    "answers alone": {"arp": {"template": "arp_responder", "params": {"addresses": ["10.0.0.1"]}}},
}
LET_IN: dict[str, dict[str, Any]] = {
    "a guard that passes": {
        "count": {"template": "counters"},
        "guard": {"template": "source_guard", "params": {"accepted": "pass"}},
    },
    "a list that passes": {
        "list": {"template": "prefix_filter", "params": {"match": "source", "prefixes": [], "listed": "pass"}}
    },
    "a template that does not say": {"ports": {"template": "udp_ports", "params": {"ports": [1]}}},
    "a brake": {"brake": {"template": "verdict"}},
    "none": {},
}


@pytest.mark.parametrize("place", sites(NETKIT_PEER, TCX_INGRESS, CLSACT_INGRESS))
@pytest.mark.parametrize("name", [*SHUT_OUT, *LET_IN])
def test_a_chain_that_can_never_pass_a_packet_is_said(node: Node, place: Site, name: str) -> None:
    programs = {**SHUT_OUT, **LET_IN}[name]
    for default in ("drop", "pass"):
        spec = place.spec({"default": default, "chain": list(programs)})
        spec["programs"] = programs
        said = node.plan(spec)
        assert said.code == 0, said.err
        assert ("NK0442" in said.err) is (default == "drop" and name in SHUT_OUT)
        if "NK0442" in said.err:
            assert "spec.yaml:" in said.err
            assert all(program in said.err for program in programs)


@pytest.mark.parametrize("place", sites(NETKIT_PEER, TCX_INGRESS, CLSACT_INGRESS))
def test_a_guard_that_passes_opens_a_closed_chain_to_good_packets_alone(node: Node, place: Site, engine: str) -> None:
    """As README and the manual of specs have it: a forged source meets the guard, the workload's own gets through."""
    chain = {"default": "drop", "chain": ["count", {"use": "guard", "params": {"accepted": "pass"}}]}
    spec = place.spec(chain, engine, peer={"policy": "blackhole"})
    spec["programs"]["guard"] = {"template": "source_guard"}
    said = node.apply(spec)
    assert "warning" not in said.err
    with Packets(place) as packets:
        assert packets.passing() == {OPEN, OTHER, SHUT}
        ip("addr", "add", "10.0.0.77/32", "dev", "eth0", namespace="a")
        ip("route", "replace", "10.0.0.1/32", "dev", "eth0", "src", "10.0.0.77", namespace="a")
    assert not pings("a", "10.0.0.1")
    assert place.counted() > 0


@pytest.mark.parametrize("file", ["README.md", "docs/spec.md"])
@pytest.mark.parametrize("kind", kinds())
def test_the_specs_of_the_manuals_plan_without_a_warning(node: Node, kind: str, file: str) -> None:
    text = (TOP / file).read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (written,) = (block for block in blocks if "programs:" in block and "lxc-web" in block and "eth0" in block)
    spec = {"version": 1, "node": "w", **yaml.safe_load(written)}
    spec.pop("templates", None)
    if "namespaces" not in spec:
        ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
        spec["devices"]["up0"] = spec["devices"].pop("eth0")
    device = spec["devices"]["lxc-web"]
    device["kind"] = kind
    if kind == "veth":
        device.pop("mode", None)
    planned = node.plan(spec)
    assert (planned.code, planned.err) == (0, "")
