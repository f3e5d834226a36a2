"""Devices that the kernel makes in every namespace by itself keep none alive."""

from __future__ import annotations

from nkform.dataclass import replace
from nkform.kernel.links import FALLBACKS, Link, is_the_kernels
from nkform.model import Namespace, Node
from nkform.plan.actions import DeleteNamespace
from nkform.plan.plan import build

LINK = Link(2, "x", "veth", "", 0, 0, None, 0, False, {}, {}, {}, None, None)


def test_a_fallback_tunnel_is_known_by_its_name_and_kind() -> None:
    for name, kind in FALLBACKS.items():
        assert is_the_kernels(replace(LINK, name=name, kind=kind))
        assert not is_the_kernels(replace(LINK, name=name))
        assert not is_the_kernels(replace(LINK, kind=kind))
    assert is_the_kernels(replace(LINK, name="lo", kind="", index=1))


def test_a_namespace_with_fallback_tunnels_goes() -> None:
    space = Namespace("web", owner="w", links={"tunl0": False, "sit0": False}, own=("tunl0", "sit0"))
    assert build(Node("w"), Node("w", {"web": space})).actions == (DeleteNamespace("web"),)
    kept = build(Node("w"), Node("w", {"web": replace(space, own=("sit0",))}))
    assert kept.actions == ()
    assert "(tunl0)" in kept.warnings[0].message
