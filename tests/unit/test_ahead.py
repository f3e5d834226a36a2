"""Work done ahead of whoever takes its results."""

from __future__ import annotations

import resource
import threading

import pytest

from nkform.kernel import ahead
from nkform.kernel.ahead import Ahead


def test_results_are_taken_in_any_order_and_once() -> None:
    gone: list[int] = []
    many = 3 * ahead.AT_LEAST
    with Ahead({key: lambda key=key: key * 2 for key in range(many)}, gone.append) as work:  # type: ignore[misc]
        taken = {key: work.take(key) for key in reversed(range(0, many, 2))}
        assert work.take(0) is None
        assert work.take(-1) is None
    assert taken == {key: key * 2 for key in range(0, many, 2)}
    assert set(gone) <= {key * 2 for key in range(1, many, 2)}


def test_what_nobody_takes_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "_most", lambda: 3)
    done: list[int] = []
    gone: list[int] = []

    def work(key: int) -> int:
        done.append(key)
        return key

    with Ahead({key: lambda key=key: work(key) for key in range(9)}, gone.append) as some:  # type: ignore[misc]
        assert some.take(1) == 1
        assert threading.active_count() == 2
    assert threading.active_count() == 1
    assert sorted([*gone, 1]) == done
    assert len(done) < 9


def test_an_error_is_raised_where_its_result_is_taken_and_the_others_are_there() -> None:
    def fail() -> int:
        raise ValueError("no")

    with Ahead({"a": lambda: 1, "b": fail, "c": lambda: 3}, lambda _: None) as work:
        assert work.take("c") == 3
        with pytest.raises(ValueError, match="no"):
            work.take("b")
        assert work.take("a") == 1


def test_nothing_is_done_ahead_where_threads_are_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with Ahead({"a": lambda: 1}, lambda _: None) as work:
        assert work.take("a") is None


def test_half_of_the_files_that_may_be_open_are_left_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    for limit, most in ((1024, 512), (8, ahead.AT_LEAST), (resource.RLIM_INFINITY, ahead.AT_MOST)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert ahead._most() == most
