"""What the kernel lacks is said by `plan`, with the version that has it and the line that asks for it."""

from __future__ import annotations

import os

import pytest

from tests.live.helpers.processes import until
from tests.live.helpers.support import Node, features, ip, link, pings
from tests.live.test_pairs import veth

SPEC = """
version: 1
node: w
namespaces:
  a: {create: true}
devices:
  one:
    kind: netkit
    headroom: 64
    peer: {name: eth0, namespace: a}
"""


@pytest.mark.smoke
def test_missing_features_fail_in_plan_with_version_and_line(node: Node) -> None:
    if "netkit" not in features():
        error = node.refused(SPEC)
        assert "6.7" in error
        assert "spec.yaml:8:" in error
        assert "kind: netkit" in error
    elif "netkit_room" not in features():
        error = node.refused(SPEC)
        assert "6.14" in error
        assert "spec.yaml:9:" in error
        assert "headroom: 64" in error
    else:
        node.apply(SPEC)


@pytest.mark.smoke
def test_auto_takes_what_the_kernel_has(node: Node) -> None:
    spec = veth("auto")
    node.apply(spec)
    kind = "netkit" if "netkit" in features() else "veth"
    assert link("to-a")["linkinfo"]["info_kind"] == kind


@pytest.mark.parametrize("place", ["device", "defaults"])
@pytest.mark.parametrize(("name", "value"), [("scrub", "none"), ("mode", "l3"), ("mode", "l2")])
def test_auto_tells_what_a_veth_leaves_out(node: Node, name: str, value: str, place: str) -> None:
    """A veth works at layer 2: that it does is nothing to tell."""
    spec = veth("auto")
    if place == "defaults":
        spec["defaults"] = {name: value}
    else:
        spec["devices"]["to-a"][name] = value
    outcome = node.plan(spec)
    if "netkit" in features() or value == "l2":
        assert outcome.err == ""
    else:
        assert "NK0403" in outcome.err
        assert f"{name} is left out" in outcome.err
    node.apply()


def test_arp_is_answered_with_the_address_that_the_kernel_chose(node: Node) -> None:
    spec = veth("auto")
    device = spec["devices"]["to-a"]
    device.update(mode="l2", addresses=[], programs={"peer": ["arp"]})
    spec["programs"] = {"arp": {"template": "arp_responder", "params": {"addresses": ["169.254.1.1"]}}}
    node.apply(spec)
    pings("a", "169.254.1.1")
    assert f"169.254.1.1 dev eth0 lladdr {link('to-a')['address']}" in ip("neigh", namespace="a")


def test_auto_keeps_a_policy_whatever_it_becomes(node: Node) -> None:
    """A netkit has the policy itself; on a veth a program stands in for it."""
    spec = veth("auto")
    spec["devices"]["to-a"]["peer"]["policy"] = "blackhole"
    node.apply(spec)
    assert not pings("a", "10.0.0.2")
    spec["devices"]["to-a"]["peer"]["policy"] = "forward"
    node.apply(spec)
    # Whoever pings while the kernel gives up on the neighbour that it could not ask before is told so.
    assert until(lambda: pings("a", "10.0.0.2"))


def test_a_sysctl_that_does_not_exist_is_refused(node: Node) -> None:
    spec = veth()
    spec["devices"]["to-a"]["sysctl"] = {"ipv4": {"no_such_key": 1, "rp_fliter": 1}, "ipv6": {"proxy_npd": 1}}
    error = node.refused(spec)
    assert error.count("NK0406") == 3
    assert error.count("did you mean") == 2
    assert "did you mean `rp_filter`?" in error
    assert "did you mean `proxy_ndp`?" in error


@pytest.mark.smoke
def test_doctor_agrees_with_the_kernel(node: Node) -> None:
    findings = {finding["name"]: finding for finding in node.run("doctor", "--json").json()}
    assert findings["netkit"]["state"] == ("ok" if "netkit" in features() else "missing")
    assert findings["kernel"]["detail"] == f"Linux {os.uname().release}"
    text = node.run("doctor").out
    if "netkit" not in features():
        assert "6.7" in text


@pytest.mark.parametrize("name", ["wg0", "nowhere"])
def test_room_for_a_device_that_is_not_there(node: Node, name: str) -> None:
    if "netkit_room" not in features():
        pytest.skip("this kernel has no headroom and tailroom on netkit (Linux 6.14)")
    assert "NK0404" in node.refused(SPEC.replace("headroom: 64", f"headroom: {{for: [{name}]}}"))
