"""Each namespace has one key, and each key one meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkform.namespace_key import (
    Named,
    NamespaceKey,
    OfPath,
    OfPid,
    Root,
    Unnamed,
    can_be_a_name,
    described,
    is_unnamed,
    key_of,
    meant_by,
)

NAMES = st.text(min_size=1).filter(can_be_a_name).map(Named)
ANY = st.one_of(
    st.just(Root()),
    NAMES,
    st.integers(1, 2**22).map(OfPid),
    st.text(min_size=1).map(lambda text: OfPath(f"/{text}")),
    st.integers(-1, 2**31 - 1).map(Unnamed),
)


@given(ANY)
def test_a_key_comes_back_as_what_it_was(meant: NamespaceKey) -> None:
    assert meant_by(key_of(meant)) == meant
    assert is_unnamed(key_of(meant)) == isinstance(meant, Unnamed)


@given(st.lists(ANY, unique=True))
def test_no_two_share_a_key(some: list[NamespaceKey]) -> None:
    assert len({key_of(each) for each in some}) == len(some)


@pytest.mark.parametrize("name", ["pid:1", "path:/x", "nsid:3"])
def test_a_name_that_would_be_taken_for_something_else_is_none(name: str) -> None:
    assert not can_be_a_name(name)
    assert meant_by(name) != Named(name)


@pytest.mark.parametrize(
    ("meant", "said"),
    [
        (Root(), "the namespace that nkform runs in"),
        (Named("web"), "the namespace web"),
        (OfPid(7), "the namespace of process 7"),
        (OfPath("/proc/7/ns/net"), "the namespace of /proc/7/ns/net"),
        (Unnamed(3), "the namespace of id 3"),
    ],
)
def test_it_is_told_in_words(meant: NamespaceKey, said: str) -> None:
    assert described(key_of(meant)) == said
