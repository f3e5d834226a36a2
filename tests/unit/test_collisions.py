"""Collisions that are hard to bring about: one namespace that is on record under two names."""

from __future__ import annotations

import pytest

from nkform.model import Namespace, Node
from nkform.plan.actions import DeleteNamespace
from nkform.plan.plan import build


def on_record(*names: str) -> Node:
    return Node("w", {name: Namespace(name, owner="w", cookie=7) for name in names})


def test_a_namespace_on_record_under_two_names_goes_with_both() -> None:
    plan = build(Node("w"), on_record("one", "two"))
    assert plan.actions == (DeleteNamespace("one", 7), DeleteNamespace("two", 7))


@pytest.mark.parametrize(("declared", "other"), [("one", "two"), ("two", "one")])
def test_the_name_that_is_declared_stays(declared: str, other: str) -> None:
    spec = Node("w", {declared: Namespace(declared, create=True)})
    assert build(spec, on_record("one", "two")).actions == (DeleteNamespace(other, 7),)
