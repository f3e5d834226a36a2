"""What a workload adds by the thousand in its own namespace costs as much as there is of it, not the square."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from nkform.model import Address, Endpoint, Route
from nkform.plan.compare import end_actions, end_fields

MANY = 400


def routes(count: int) -> Endpoint:
    """Of keys of their own, and of one key, in front of the declared one."""
    several = tuple(Route(f"20.0.{n >> 8}.{n & 255}/32") for n in range(count))
    alike = tuple(Route("0.0.0.0/0", f"10.8.{n >> 8}.{n & 255}") for n in range(count))
    return Endpoint(
        "eth0", addresses=(Address("10.7.0.2/24"),), routes=(*several, *alike, Route("0.0.0.0/0", "10.7.0.1"))
    )


def addresses(count: int) -> Endpoint:
    """In subnets of their own, and in one."""
    several = tuple(Address(f"20.{n >> 8}.{n & 255}.1/24") for n in range(count))
    alike = tuple(Address(f"30.0.{n >> 8}.{n & 255}/8") for n in range(count))
    six = tuple(Address(f"fd20::{n:x}/64") for n in range(count))
    return Endpoint("eth0", addresses=(Address("10.7.0.2/24"), *several, *alike, *six))


def calls(work: Callable[[], object]) -> int:
    """How many functions are called, those of Python and those in C."""
    count = 0

    def seen(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("live", [routes, addresses])
@pytest.mark.parametrize("desired", [Endpoint("eth0"), routes(0), addresses(0)], ids=["bare", "routed", "addressed"])
def test_comparing_an_end_is_linear(live: Callable[[int], Endpoint], desired: Endpoint) -> None:
    def work(count: int) -> int:
        there = live(count)
        return calls(lambda: [*end_fields(desired, there, ()), *end_actions("v0", desired, there)])

    few, many = work(MANY), work(2 * MANY)
    assert many < 2.5 * few
