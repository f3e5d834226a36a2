"""nkform's data classes behave as the standard library's do: each is tried beside one made of the same words."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkform import dataclass as ours

SHAPES = ({"frozen": True, "slots": True}, {"frozen": True}, {"slots": True}, {})
MAKERS: tuple[Callable[..., Any], ...] = (ours.dataclass, dataclasses.dataclass)
IDS = ("nkform", "standard")

anything = st.integers() | st.text(max_size=3) | st.tuples(st.integers())


def point(maker: Callable[..., Any], shape: dict[str, bool]) -> Any:
    more = ours.field if maker is ours.dataclass else dataclasses.field

    class Point:
        """A point."""

        x: object
        y: object = 7
        tags: list[object] = more(default_factory=list)
        note: object = more(default="", compare=False, repr=False)

        @property
        def both(self) -> object:
            return self.x, self.y

    return maker(**shape)(Point)


def nothing(maker: Callable[..., Any]) -> Any:
    class Nothing:
        """Nothing."""

    return maker(frozen=True, slots=True)(Nothing)


def outcome(call: Callable[[], object]) -> object:
    """What came of a call: its value in words, or the kind of error."""
    try:
        return repr(call())
    except (TypeError, AttributeError) as error:
        return type(error).__name__


def pairs() -> Iterator[tuple[Any, Any, bool]]:
    """Ours of a class that has made objects before, and of one that has made none, beside the standard library's."""
    for shape in SHAPES:
        for worn in (False, True):
            mine = point(ours.dataclass, shape)
            first = mine.__init__
            for number in range(20 if worn else 0):
                mine(number)
            assert (mine.__init__ is not first) == worn
            yield mine, point(dataclasses.dataclass, shape), shape.get("frozen", False)


@given(
    st.lists(anything, max_size=5),
    st.dictionaries(st.sampled_from(["x", "y", "tags", "note", "z"]), anything, max_size=4),
)
def test_objects_are_made_of_the_same_arguments(values: list[object], named: dict[str, object]) -> None:
    for mine, standard, _ in pairs():
        assert outcome(lambda: mine(*values, **named)) == outcome(lambda: standard(*values, **named))  # noqa: B023
        assert outcome(lambda: mine(*values, **named).both) == outcome(lambda: standard(*values, **named).both)  # noqa: B023


@given(st.tuples(anything, anything, anything), st.tuples(anything, anything, anything))
def test_objects_are_equal_and_hashed_by_the_fields_that_compare(left: Any, right: Any) -> None:
    for mine, standard, frozen in pairs():
        a, b = (mine(left[0], left[1], (), left[2]), mine(right[0], right[1], (), right[2]))
        c, d = (standard(left[0], left[1], (), left[2]), standard(right[0], right[1], (), right[2]))
        assert (a == b, a != b) == (c == d, c != d)
        assert a != c
        assert a != left
        if frozen:
            assert (a not in {b}) == (c not in {d})
        else:
            assert outcome(lambda: {a}) == outcome(lambda: {c}) == "TypeError"  # noqa: B023


@pytest.mark.parametrize("maker", MAKERS, ids=IDS)
def test_a_frozen_object_stays_as_it_is(maker: Callable[..., Any]) -> None:
    for shape in SHAPES[:2]:
        made = point(maker, shape)(1)
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
            made.x = 2
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
            del made.x
        assert made.x == 1
    made = point(maker, {"slots": True})(1)
    made.x = 2
    assert made.both == (2, 7)
    with pytest.raises(AttributeError):
        made.other = 1


@pytest.mark.parametrize("maker", MAKERS, ids=IDS)
def test_a_factory_makes_a_new_value_for_each_object(maker: Callable[..., Any]) -> None:
    for shape in SHAPES:
        kind = point(maker, shape)
        first, second = kind(1), kind(1)
        assert first.tags == second.tags == []
        assert first.tags is not second.tags


@pytest.mark.parametrize("maker", MAKERS, ids=IDS)
def test_a_class_without_fields_has_equal_objects(maker: Callable[..., Any]) -> None:
    kind = nothing(maker)
    assert kind() == kind()
    assert len({kind(), kind()}) == 1
    assert repr(kind()).endswith("Nothing()")
    with pytest.raises(TypeError):
        kind(1)


@pytest.mark.parametrize("maker", MAKERS, ids=IDS)
def test_a_pattern_takes_fields_by_place(maker: Callable[..., Any]) -> None:
    kind = point(maker, SHAPES[0])
    match kind(1, 2):
        case kind(x, y):
            assert (x, y) == (1, 2)
        case _:
            pytest.fail("no match")


@pytest.mark.parametrize("replace", [ours.replace, dataclasses.replace], ids=IDS)
def test_either_library_replaces_fields(replace: Callable[..., Any]) -> None:
    for shape in SHAPES:
        made = point(ours.dataclass, shape)(1, note="n")
        assert replace(made, y=3) == point_like(made, 1, 3)
        assert replace(made, y=3).note == "n"
        with pytest.raises(TypeError):
            replace(made, other=3)


def point_like(made: Any, *values: object) -> Any:
    return type(made)(*values)


def test_the_standard_library_knows_them() -> None:
    for mine, standard, _ in pairs():
        assert dataclasses.is_dataclass(mine)
        assert dataclasses.is_dataclass(mine(1))
        assert dataclasses.asdict(mine(1)) == {"x": 1, "y": 7, "tags": [], "note": ""}
        theirs = [(f.name, f.type, f.default, f.compare, f.repr) for f in dataclasses.fields(standard)]
        assert [(f.name, f.type, f.default, f.compare, f.repr) for f in dataclasses.fields(mine)] == theirs
        assert [(f.name, f.compare, f.repr) for f in ours.fields(mine)] == [(n, c, r) for n, _, _, c, r in theirs]
        assert ours.is_dataclass(mine)
        assert not ours.is_dataclass(int)
        assert mine.__doc__ == "A point."
        assert mine.__qualname__ == standard.__qualname__


def test_what_happens_after_the_making_is_done() -> None:
    @ours.dataclass(frozen=True, slots=True)
    class Positive:
        value: int

        def __post_init__(self) -> None:
            if self.value < 0:
                raise ValueError("negative")

    assert Positive(1).value == 1
    with pytest.raises(ValueError, match="negative"):
        Positive(-1)
