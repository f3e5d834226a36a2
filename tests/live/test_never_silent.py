"""What `plan` accepts can be had: values at the edges of what a kernel takes, each planned and then applied.

Where the plan has no error the apply must succeed, and hold; where the kernel refuses, the plan must have said so.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from tests.live.helpers.support import Node, ip

Spec = dict[str, Any]

GATEWAYS_IPV4 = (
    *("10.7.0.1", "10.7.0.2", "10.7.0.255", "10.7.0.0", "10.8.0.1", "10.8.0.255", "10.8.0.0", "10.9.9.9"),
    *("127.0.0.1", "127.9.9.9", "0.1.2.3", "240.0.0.1", "169.254.1.1", "255.255.255.254", "100.64.0.1"),
)
GATEWAYS_IPV6 = (
    *("fd07::1", "fd07::2", "fd07::", "fd08::1", "fd08::2", "fd09::9", "fe80::1", "fe80::", "fec0::1"),
    *("::ffff:10.7.0.2", "::2", "::127.0.0.1", "64:ff9b::1", "2001:db8::1"),
)


def spec(namespace: dict[str, Any], peer: Spec, **further: Any) -> Spec:
    device = {"kind": "veth", "peer": {"name": "eth0", "namespace": "web", **peer}}
    return {"version": 1, "node": "w", "namespaces": {"web": namespace}, "devices": {"v0": device, **further}}


def holds(node: Node, made: Spec) -> bool:
    """Whether the plan accepts it; then it is applied, and destroyed."""
    outcome = node.plan(made)
    if outcome.code:
        assert outcome.code == 1
        assert "error[NK" in outcome.err
        assert "NK0900" not in outcome.err, (made, outcome.err)
        return False
    done = node.run("apply", "-y", str(node.path))
    assert done.code == 0, (made, done.err)
    assert node.changes() == [], made
    node.destroy()
    return True


@pytest.mark.parametrize("onlink", [False, True], ids=["", "onlink"])
@pytest.mark.parametrize("others", ["foreign", "declared", "to come"])
def test_a_gateway_that_the_plan_accepts_can_be_had(node: Node, others: str, onlink: bool) -> None:
    """Beside a link with other addresses in the same namespace, which others have, or the spec."""
    second = ["10.8.0.1/24", "fd08::1/64"]
    further: Spec = {}
    if others == "foreign":
        ip("netns", "add", "web")
        ip("link", "add", "dum", "type", "veth", "peer", "name", "mud", namespace="web")
        ip("link", "set", "mud", "up", namespace="web")
        ip("link", "set", "dum", "up", namespace="web")
        for address in second:
            ip("addr", "add", address, "dev", "dum", namespace="web")
    else:
        peer = {"name": "eth1", "namespace": "web", "addresses": second}
        further = {"v1": {"kind": "veth", "peer": peer}}
        if others == "declared":
            ip("netns", "add", "web")
    accepted = set()
    for gateway in (*GATEWAYS_IPV4, *GATEWAYS_IPV6):
        to = "fd99::/64" if ":" in gateway else "10.99.0.0/16"
        route = {"to": to, "via": gateway, **({"onlink": True} if onlink else {})}
        peer = {"addresses": ["10.7.0.1/24", "fd07::1/64"], "routes": [route]}
        outcome = node.plan(spec({"create": True} if others == "to come" else {}, peer, **further))
        if "NK0313" in outcome.err:
            continue  # it says itself that nothing leads there
        if holds(node, spec({"create": True} if others == "to come" else {}, peer, **further)):
            accepted.add(gateway)
    assert {"10.7.0.2", "fd07::2", "fe80::1"} <= accepted
    assert not {"10.7.0.255", "127.0.0.1", "fd07::1", "fd08::1"} & accepted
    assert ("10.9.9.9" in accepted) is onlink


TABLES = (100, 101, 253, 254, 255)


@pytest.mark.parametrize(("reached", "gateway"), [("10.9.0.0/24", "10.9.0.1"), ("fd09::/64", "fd09::1")])
def test_a_gateway_that_no_route_leads_to_in_a_table_that_the_kernel_looks_at_is_warned_of(
    node: Node, reached: str, gateway: str
) -> None:
    for there, here in product(TABLES, TABLES[:1] + TABLES[3:]):
        routes = [{"to": reached, "table": there}, {"to": "default", "via": gateway, "table": here}]
        warned = "NK0313" in node.plan(spec({"create": True}, {"routes": routes})).err
        done = node.run("apply", "-y", str(node.path))
        assert done.code == int(warned), (there, here, done.err)
        if not warned:
            assert node.changes() == []
            node.destroy()


IPV4 = (
    *("forwarding", "rp_filter", "arp_announce", "arp_ignore", "medium_id", "tag", "route_localnet"),
    "igmpv2_unsolicited_report_interval",
)
IPV6 = (
    *("hop_limit", "addr_gen_mode", "accept_ra", "accept_dad", "dad_transmits", "disable_ipv6", "mtu", "ndisc_tclass"),
    *("ioam6_id", "ioam6_id_wide", "mldv1_unsolicited_report_interval", "router_solicitation_interval"),
    *("router_solicitation_delay", "accept_ra_min_lft", "rpl_seg_enabled", "seg6_require_hmac", "max_addresses"),
    *("use_tempaddr", "ignore_routes_with_linkdown", "ra_honor_pio_life", "accept_ra_rt_info_max_plen"),
    *("accept_ra_rt_info_min_plen", "forwarding", "force_forwarding", "proxy_ndp", "temp_valid_lft"),
    "suppress_frag_ndisc",
)
SYSCTLS = {"ipv4": IPV4, "ipv6": IPV6}
VALUES = (-2, -1, 0, 1, 2, 3, 4, 255, 256, 1001, 1280, 65535, 65536, 2**31 - 1)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_sysctl_that_the_plan_accepts_holds(node: Node, family: str) -> None:
    """All that are accepted of one value are applied together."""
    accepted: set[tuple[str, int]] = set()
    ip("netns", "add", "web")
    for value in VALUES:
        some = {}
        for name in SYSCTLS[family]:
            made = spec({}, {"sysctl": {family: {name: value}}}) | {"node": "x"}
            if node.plan(made).code == 0:
                some[name] = value
        if some.get("disable_ipv6"):
            del some["disable_ipv6"]
        if some and holds(node, spec({}, {"sysctl": {family: some}})):
            accepted |= set(some.items())
    assert {(name, value) for name, value in product(("forwarding",), (0, 1))} <= accepted
    if family == "ipv6":
        assert ("hop_limit", 64) not in accepted
        assert {("hop_limit", 255), ("hop_limit", 1)} <= accepted
        assert not {("hop_limit", 0), ("hop_limit", 256), ("addr_gen_mode", 4), ("mtu", 255)} & accepted
