"""Our link messages, byte for byte, in the eyes of pyroute2."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from nkform.attributes import ATTRIBUTES, Flag, Ifla, NetkitData
from nkform.kernel import inet, link_requests, links
from nkform.kernel.netlink import Message, Request
from nkform.kernel.pyroute2_kinds import register
from nkform.model import Address, Device, Endpoint, Route


@pytest.fixture(scope="module", autouse=True)
def _kinds() -> None:
    register()


def parsed(request_: Request) -> Any:
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    kinds = {links.RTM_NEWLINK: ifinfmsg, inet.RTM_NEWADDR: ifaddrmsg, inet.RTM_NEWROUTE: rtmsg}
    message = kinds[request_.kind](
        struct.pack("=IHHII", 16 + len(request_.body), request_.kind, request_.flags, 1, 0) + request_.body
    )
    message.decode()
    return message


PAIR = Device(
    "nk0",
    "netkit",
    {"mode": "l2", "headroom": 64, "tailroom": 32},
    Endpoint(
        "nk0", attrs={"mtu": 1450, "policy": "forward", "scrub": "none", "gso_ipv4_max_size": 100_000, "up": True}
    ),
    Endpoint("eth0", attrs={"mtu": 1450, "policy": "blackhole", "scrub": "default", "mac": "02:00:00:00:00:02"}),
)


def test_a_netkit_pair() -> None:
    message = parsed(link_requests.create(PAIR, 9))
    assert message.get_attr("IFLA_IFNAME") == "nk0"
    assert message.get_attr("IFLA_MTU") == 1450
    assert message.get_attr("IFLA_GSO_IPV4_MAX_SIZE") == 100_000
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "netkit"
    data = info.get_attr("IFLA_INFO_DATA")
    assert {name: data.get_attr(f"IFLA_NETKIT_{name}") for name in ("MODE", "POLICY", "PEER_POLICY", "SCRUB")} == {
        "MODE": 0,
        "POLICY": 0,
        "PEER_POLICY": 2,
        "SCRUB": 0,
    }
    assert (data.get_attr("IFLA_NETKIT_PEER_SCRUB"), data.get_attr("IFLA_NETKIT_HEADROOM")) == (1, 64)
    assert data.get_attr("IFLA_NETKIT_TAILROOM") == 32
    peer = data.get_attr("IFLA_NETKIT_PEER_INFO")
    assert (peer.get_attr("IFLA_IFNAME"), peer.get_attr("IFLA_MTU")) == ("eth0", 1450)
    assert peer.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:02"
    assert peer.get_attr("IFLA_NET_NS_FD") is not None


def test_a_change_of_policies_goes_through_info_data() -> None:
    request = link_requests.change_data("nk0", {"policy": "blackhole"}, {"policy": "forward"})
    data = parsed(request).get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert (data.get_attr("IFLA_NETKIT_POLICY"), data.get_attr("IFLA_NETKIT_PEER_POLICY")) == (2, 0)
    assert data.get_attr("IFLA_NETKIT_MODE") is None


def test_addresses_and_routes() -> None:
    message = parsed(inet.add_address(7, "x", Address("fd00::1/64")))
    assert (message["index"], message["prefixlen"]) == (7, 64)
    assert message.get_attr("IFA_LOCAL") == "fd00::1"
    route = Route("10.0.0.0/8", "192.0.2.1", True, "192.0.2.2", 5, 1000, 1400)
    message = parsed(inet.add_route(7, "x", route))
    assert message.get_attr("RTA_DST") == "10.0.0.0"
    assert message["dst_len"] == 8
    assert message["proto"] == inet.PROTOCOL
    assert message.get_attr("RTA_GATEWAY") == "192.0.2.1"
    assert (message.get_attr("RTA_PREFSRC"), message.get_attr("RTA_PRIORITY")) == ("192.0.2.2", 5)
    assert (message.get_attr("RTA_TABLE"), message.get_attr("RTA_OIF")) == (1000, 7)
    assert message.get_attr("RTA_METRICS").get_attr("RTAX_MTU") == 1400


def test_what_is_encoded_is_decoded() -> None:
    """Every row of the table that a link message carries comes back as it went out."""
    values = {"mtu": 1450, "mac": "02:00:00:00:00:01", "txqlen": 5, "gso_max_size": 7, "gro_max_size": 8}
    values |= {"gso_ipv4_max_size": 9, "gro_ipv4_max_size": 10, "gso_max_segs": 11, "up": True}
    values |= {"numtxqueues": 12, "numrxqueues": 13, "promisc": True, "allmulticast": False}
    assert {a.name for a in ATTRIBUTES if isinstance(a.kept, Ifla | Flag)} == set(values)
    body = link_requests.change("x", values).body
    link = links.decode(Message(links.RTM_NEWLINK, body, 0, len(body)))
    assert link.name == "x"
    assert dict(link.values) == values


IFF_PROMISC, IFF_ALLMULTI = 0x100, 0x200


def test_flags_change_in_one_message_which_says_nothing_of_the_others() -> None:
    message = parsed(link_requests.change("x", {"promisc": True, "allmulticast": False, "mtu": 1400}))
    assert (message["flags"], message["change"]) == (IFF_PROMISC, IFF_PROMISC | IFF_ALLMULTI)
    assert message.get_attr("IFLA_MTU") == 1400


def test_every_netkit_attribute_has_its_row_in_both_tables() -> None:
    from nkform.kernel.pyroute2_kinds import NETKIT_ATTRIBUTES

    for attribute in ATTRIBUTES:
        if isinstance(attribute.kept, NetkitData):
            name, form = NETKIT_ATTRIBUTES[attribute.kept.own]
            assert name == f"IFLA_NETKIT_{attribute.name.upper()}"
            assert form == {"u32": "uint32", "u16": "uint16"}[attribute.kept.form]
