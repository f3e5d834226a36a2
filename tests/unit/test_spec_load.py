"""Given a good spec, then this node: what each part of the format means."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from nkform.model import Address, ComputedFor, Namespace, Route
from nkform.namespace_key import ROOT
from nkform.problem import NkformError, Problem
from nkform.spec import load, loads, place

HEAD = "version: 1\nnode: worker-1\n"

FULL = """\
version: 1
node: worker-1
defaults:
  mtu: 1500
namespaces:
  web: {create: true}
  db:
devices:
  lxc-web:
    kind: netkit
    mode: l3
    policy: forward
    scrub: none
    headroom: 64
    tailroom: {for: [wg0, vxlan0]}
    gso_max_size: 196608
    txqlen: 500
    up: false
    addresses: [169.254.1.1/32, "FE80:0::1/64"]
    routes:
      - {to: 10.0.0.2/32}
      - {to: "fd00::/64", metric: 0, mtu: 1400, table: 7}
    sysctl: {ipv4: {rp_filter: 0}, ipv6: {forwarding: "1"}}
    peer:
      name: eth0
      namespace: web
      policy: blackhole
      up: true
      addresses: [10.0.0.2/32]
      routes: [{to: default, via: 169.254.1.1, onlink: true, src: 10.0.0.2}, {to: default, via: "fe80::1"}]
  eth0:
    kind: external
"""


def codes(text: str, **variables: str) -> list[str]:
    with pytest.raises(NkformError) as caught:
        loads(text, variables=variables)
    return [problem.code for problem in caught.value.problems]


def test_a_full_spec_becomes_a_node() -> None:
    node = loads(FULL).node
    assert node.name == "worker-1"
    assert node.namespaces == {"web": Namespace("web", create=True), "db": Namespace("db")}
    device = node.devices["lxc-web"]
    assert device.kind == "netkit"
    assert device.attrs == {"mode": "l3", "headroom": 64, "tailroom": ComputedFor(("wg0", "vxlan0"))}
    near, far = device.ends
    assert (near.name, near.namespace) == ("lxc-web", ROOT)
    assert near.attrs == {
        "policy": "forward", "scrub": "none", "gso_max_size": 196608, "txqlen": 500, "up": False, "mtu": 1500,
    }  # fmt: skip
    assert near.addresses == (Address("169.254.1.1/32"), Address("fe80::1/64"))
    assert near.routes == (Route("10.0.0.2/32"), Route("fd00::/64", metric=1024, mtu=1400, table=7))
    assert near.sysctl == {"ipv4.rp_filter": "0", "ipv6.forwarding": "1"}
    assert (far.name, far.namespace) == ("eth0", "web")
    assert far.attrs == {"policy": "blackhole", "gso_max_size": 196608, "txqlen": 500, "up": True, "mtu": 1500}
    assert far.routes == (
        Route("0.0.0.0/0", "169.254.1.1", onlink=True, src="10.0.0.2"),
        Route("::/0", "fe80::1", metric=1024),
    )
    assert node.devices["eth0"].kind == "external"
    assert node.devices["eth0"].peer is None


def test_what_is_not_declared_is_not_managed() -> None:
    device = loads(HEAD + "devices: {a: {peer: {name: b}}}").node.devices["a"]
    assert device.kind == "auto"
    assert (device.attrs, device.primary.attrs) == ({}, {})
    assert device.peer is not None
    assert (device.peer.namespace, device.peer.attrs, device.peer.addresses) == (ROOT, {}, ())


@pytest.mark.parametrize(
    ("namespace", "key"), [("web", "web"), ("{pid: 7}", "pid:7"), ("{path: /proc/7/ns/net}", "path:/proc/7/ns/net")]
)
def test_a_peer_goes_to_a_namespace(namespace: str, key: str) -> None:
    text = HEAD + f"namespaces: {{web: }}\ndevices: {{a: {{peer: {{name: b, namespace: {namespace}}}}}}}"
    peer = loads(text).node.devices["a"].peer
    assert peer is not None
    assert peer.namespace == key


def test_a_mac_needs_no_quotes_and_comes_out_in_lower_case() -> None:
    text = HEAD + "devices: {a: {kind: veth, mac: 02:00:00:00:00:AB, peer: {name: b, mac: 12:34:56:12:34:56}}}"
    device = loads(text).node.devices["a"]
    assert [end.attrs["mac"] for end in device.ends] == ["02:00:00:00:00:ab", "12:34:56:12:34:56"]


def test_host_ends_may_share_a_gateway_address() -> None:
    ends = "".join(
        f"  h{i}: {{addresses: [169.254.1.1/32, fe80::1/64, fd00::1/128], peer: {{name: p{i}}}}}\n" for i in range(3)
    )
    assert len(loads(f"{HEAD}devices:\n{ends}").node.devices) == 3


def test_the_same_names_and_addresses_in_different_namespaces_are_fine() -> None:
    text = HEAD + (
        "namespaces: {x: {create: true}, y: {create: true}}\n"
        "devices:\n"
        "  a: {peer: {name: eth0, namespace: x, addresses: [10.0.0.2/24], routes: [{to: 10.1.0.0/24}]}}\n"
        "  b: {peer: {name: eth0, namespace: y, addresses: [10.0.0.2/24], routes: [{to: 10.1.0.0/24}]}}\n"
    )
    assert loads(text).warnings == ()


def test_defaults_are_merged_under_every_device_that_is_not_external() -> None:
    text = HEAD + (
        "defaults:\n"
        "  mtu: 1400\n"
        "  scrub: none\n"
        "  addresses: [169.254.1.1/32]\n"
        "  sysctl: {ipv4: {rp_filter: 0, forwarding: 0}}\n"
        "  peer: {name: eth0, policy: blackhole, namespace: {pid: 1}}\n"
        "devices:\n"
        "  a: {kind: netkit, sysctl: {ipv4: {forwarding: 1}}, peer: {policy: forward}}\n"
        "  b: {kind: veth, mtu: 9000, addresses: [], peer: {namespace: {path: /x}}}\n"
        "  c: {kind: external}\n"
    )
    devices = loads(text).node.devices
    a, b = devices["a"], devices["b"]
    assert a.primary.attrs == {"mtu": 1400, "scrub": "none"}
    assert a.primary.sysctl == {"ipv4.rp_filter": "0", "ipv4.forwarding": "1"}
    assert a.peer is not None
    assert b.peer is not None
    assert (a.peer.name, a.peer.namespace, a.peer.attrs["policy"]) == ("eth0", "pid:1", "forward")
    assert b.primary.attrs == {"mtu": 9000}
    assert b.primary.addresses == ()
    assert (b.peer.namespace, b.peer.attrs) == ("path:/x", {"mtu": 9000, "policy": "blackhole"})
    assert devices["c"].primary.attrs == {}


def test_files_are_united(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(
        "defaults: {txqlen: 7}\nnamespaces: {web: {create: true}}\ndevices: {b: {kind: veth}}"
    )
    (tmp_path / "a.yaml").write_text(HEAD + "namespaces: {web: {create: true}}\ndevices: {a: {}}\n")
    (tmp_path / "ignored.txt").write_text("[")
    first = tmp_path / "first"
    first.write_text("version: 1\ndefaults: {peer: {namespace: web}, mtu: 1300}\ndevices: {c: {kind: external}}")
    with pytest.raises(NkformError) as caught:
        load([first, tmp_path])
    assert {problem.code for problem in caught.value.problems} == {"NK0202"}
    for name in ("a.yaml", "b.yml"):
        file = tmp_path / name
        text = (
            file.read_text().replace("{a: {}}", "{a: {peer: {name: a0}}}").replace("{kind: veth}", "{peer: {name: b0}}")
        )
        file.write_text(text)
    node = load([first, tmp_path]).node
    assert list(node.devices) == ["c", "a", "b"]
    assert node.devices["a"].primary.attrs == {"mtu": 1300, "txqlen": 7}


def test_a_spec_comes_from_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HEAD.encode() + b"devices: {a: {}}")))
    with pytest.raises(NkformError) as caught:
        load(["-"])
    position = caught.value.problems[0].position
    assert position is not None
    assert (position.file, position.line, position.column) == ("<stdin>", 3, 11)


def test_a_gateway_that_nothing_covers_is_warned_of() -> None:
    text = HEAD + "devices: {a: {addresses: [10.0.0.1/24], routes: [{to: default, via: 10.0.1.1}], peer: {name: b}}}"
    (warning,) = loads(text).warnings
    assert (warning.code, warning.severity) == ("NK0313", "warning")
    assert warning.position is not None
    assert warning.position.column == 69
    assert loads(text.replace("10.0.1.1", "10.0.0.2")).warnings == ()


@pytest.mark.parametrize(("network", "gateway"), [("10.9.0.0/24", "10.9.0.1"), ("fd09::/64", "fd09::1")])
@pytest.mark.parametrize(
    ("there", "here", "warned"),
    [
        (100, 254, True), (100, 100, False), (100, 101, True), (254, 100, False), (255, 254, False), (255, 100, False),
        (253, 254, None),
    ],
)  # fmt: skip
def test_a_gateway_is_looked_for_in_the_routes_own_table_and_in_those_with_rules(
    network: str, gateway: str, there: int, here: int, warned: bool | None
) -> None:
    """`tests/live/test_never_silent.py` asks the kernel the same."""
    routes = f'{{to: "{network}", table: {there}}}, {{to: default, via: "{gateway}", table: {here}}}'
    warnings = loads(HEAD + f"devices: {{a: {{routes: [{routes}], peer: {{name: b}}}}}}").warnings
    assert bool(warnings) is (":" in network if warned is None else warned)


class TestPlaces:
    TEXT = HEAD + (
        "vars: {dev: web}\n"
        "defaults: {mtu: 1500, peer: {policy: blackhole}}\n"
        "devices:\n"
        "  lxc-${dev}:\n"
        "    addresses:\n"
        "      - 10.0.0.1/24\n"
        "    peer: {name: eth0}\n"
    )

    @pytest.mark.parametrize(
        ("path", "line", "column"),
        [
            (("node",), 2, 7),
            (("devices", "lxc-web"), 6, 3),
            (("devices", "lxc-web", "addresses", 0), 8, 9),
            (("devices", "lxc-web", "peer", "name"), 9, 18),
            (("devices", "lxc-web", "mtu"), 4, 17),
            (("devices", "lxc-web", "peer", "policy"), 4, 38),
            (("devices", "lxc-web", "peer", "namespace"), 9, 5),
            (("devices", "gone"), 5, 1),
            ((), 1, 1),
        ],
    )
    def test_a_path_leads_to_its_place(self, path: tuple[str | int, ...], line: int, column: int) -> None:
        position = loads(self.TEXT, "x.yaml").locate(path)
        assert position is not None
        assert (position.file, position.line, position.column) == ("x.yaml", line, column)

    def test_a_problem_of_the_plan_gets_its_place(self) -> None:
        spec = loads(self.TEXT)
        placed = place(Problem("NK0401", "no", path=("devices", "lxc-web", "mtu")), spec)
        assert placed.position is not None
        assert placed.position.text == "defaults: {mtu: 1500, peer: {policy: blackhole}}"
        assert place(placed, spec) is placed
        assert place(Problem("NK0601", "no"), spec).position is None


class TestDigest:
    def test_it_is_of_the_meaning(self) -> None:
        one = HEAD + 'devices: {a: {kind: veth, mac: 02:00:00:00:00:0A, addresses: ["FD00::0/128"], peer: {name: b}}}'
        two = "node: worker-1\nversion: 1\nvars: {p: b}\ndevices:\n  a:\n    peer: {name: '${p}'}\n    kind: veth\n"
        two += "    addresses: ['fd00::/128']\n    mac: 02:00:00:00:00:0a\n"
        assert loads(one).digest == loads(two).digest

    def test_every_value_counts(self) -> None:
        assert loads(FULL).digest != loads(FULL.replace("64", "65", 1)).digest
        assert loads(FULL).digest != loads(FULL.replace("table: 7", "table: 8")).digest


def test_all_problems_come_at_once() -> None:
    text = (
        HEAD + "devices: {a: {mtu: x, addresses: [1.2.3.4, 10.0.0.1/24, 10.0.0.1/24], peer: {name: b, namespace: no}}}"
    )
    assert codes(text) == ["NK0203", "NK0308", "NK0309", "NK0305"]


def test_an_unreadable_file_does_not_hide_the_others(tmp_path: Path) -> None:
    spec = tmp_path / "a.yaml"
    spec.write_text(HEAD + "devices: {a: {mtu: 1, peer: {name: b}}}")
    with pytest.raises(NkformError) as caught:
        load([tmp_path / "gone.yaml", spec])
    assert [problem.code for problem in caught.value.problems] == ["NK0101", "NK0204"]


def test_a_directory_without_a_spec_is_named(tmp_path: Path) -> None:
    with pytest.raises(NkformError, match=r"no \*\.yaml"):
        load([tmp_path])


def test_very_many_problems_are_cut_off() -> None:
    devices = "".join(f"  d{i}: {{mtu: 1, peer: {{name: p{i}}}}}\n" for i in range(5000))
    found = codes(f"{HEAD}devices:\n{devices}")
    assert len(found) <= 202
