"""What pyroute2 does not know yet, for it: netkit as a link kind, and link attributes newer than its own table.

nkform's own requests and dumps do not go through pyroute2 (netlink.py says why). This serves programs that use
pyroute2 beside nkform, and the tests, to which pyroute2 is a second opinion on every byte. Numbers:
include/uapi/linux/if_link.h.
"""

from __future__ import annotations

from typing import Any

NETKIT_ATTRIBUTES = (
    ("IFLA_NETKIT_UNSPEC", "none"),
    ("IFLA_NETKIT_PEER_INFO", "peer_info"),
    ("IFLA_NETKIT_PRIMARY", "uint8"),
    ("IFLA_NETKIT_POLICY", "uint32"),
    ("IFLA_NETKIT_PEER_POLICY", "uint32"),
    ("IFLA_NETKIT_MODE", "uint32"),
    ("IFLA_NETKIT_SCRUB", "uint32"),
    ("IFLA_NETKIT_PEER_SCRUB", "uint32"),
    ("IFLA_NETKIT_HEADROOM", "uint16"),
    ("IFLA_NETKIT_TAILROOM", "uint16"),
    ("IFLA_NETKIT_PAIRING", "uint32"),
)
"""Number and type of each, by position: enum IFLA_NETKIT_*."""

LATER_ATTRIBUTES = (
    ("IFLA_DEVLINK_PORT", "hex"),
    ("IFLA_GSO_IPV4_MAX_SIZE", "uint32"),
    ("IFLA_GRO_IPV4_MAX_SIZE", "uint32"),
    ("IFLA_DPLL_PIN", "hex"),
    ("IFLA_MAX_PACING_OFFLOAD_HORIZON", "uint64"),
    ("IFLA_NETNS_IMMUTABLE", "uint8"),
    ("IFLA_HEADROOM", "uint16"),
    ("IFLA_TAILROOM", "uint16"),
)
"""enum IFLA_* from 62 on, where pyroute2's table ends (`IFLA_ALLMULTI` is 61)."""

_FIRST_LATER = 62


def register() -> None:
    """Teaches pyroute2 both; may be called again. Call it before the first message is made.

    `IPRoute(ext_ack=True).link("add", ifname=…, kind="netkit", netkit_mode=1, netkit_peer_info={"attrs": [...]})` then
    does what it says instead of dropping what it does not know.
    """
    from pyroute2.netlink import nla
    from pyroute2.netlink.rtnl import ifinfmsg as module

    class netkit(nla):  # type: ignore[misc]  # noqa: N801  (pyroute2 names kinds so)
        prefix = "IFLA_"
        nla_map = NETKIT_ATTRIBUTES

        @staticmethod
        def peer_info(*_: Any, **__: Any) -> Any:
            return module.ifinfveth

    module.ifinfmsg.ifinfo.register_link_kind(module={"netkit": netkit})
    base = module.ifinfbase
    if len(base.nla_map) == _FIRST_LATER:
        base.nla_map = (*base.nla_map, *LATER_ATTRIBUTES)
