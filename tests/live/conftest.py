"""Live tests need root. They run in namespaces of their own (isolation.py), each test in a fresh network namespace."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nkform.apply import expedite
from tests.live.helpers import isolation, kept
from tests.live.helpers.support import Node
from tests.sizes import EMULATED

if TYPE_CHECKING:
    from tests.live.helpers.chain_sites import Others

collect_ignore = [] if EMULATED else ["test_modules.py"]
"""It unloads modules: no machine's own."""


STARTED = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--changed", default="", help="files, with commas between, whose tests begin first")
    parser.addoption("--touched", help="files, with commas between; of all others but --changed the smoke set alone")
    parser.addoption("--seconds", type=float, help="how long tests may begin; later ones are skipped")


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() == 0:
        isolation.isolate()
    config.stash[STARTED] = time.monotonic()


def pytest_unconfigure() -> None:
    """The switch for grace periods is the machine's: what killed runs left of it goes, as with any command."""
    if os.geteuid() == 0:
        expedite.put_back_if_idle("the tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and items:
        pytest.exit("the live tests need root", returncode=1)
    changed, touched = (
        {config.rootpath / name for name in (config.getoption(option) or "").split(",")}
        for option in ("--changed", "--touched")
    )
    if config.getoption("--touched") is not None:
        items[:] = [i for i in items if i.path in changed | touched or i.get_closest_marker("smoke")]
        items.sort(key=lambda i: 0 if i.path in changed else 1 if i.get_closest_marker("smoke") else 2)
    # The long ones begin first: else one of several processes would work on when the others have nothing left.
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    seconds = item.config.getoption("--seconds")
    if seconds and time.monotonic() > item.config.stash[STARTED] + seconds:
        pytest.skip(f"{seconds:.0f} seconds are over: make live runs it")


@pytest.fixture(autouse=True)
def network() -> None:
    """An empty network, no pins, and nothing on record."""
    isolation.fresh_records()
    isolation.fresh_network()
    isolation.fresh_bpffs()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """nkform on an empty node."""
    return Node(tmp_path)


@pytest.fixture
def made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what programs do: how they are made is not made anew for each command (kept.py)."""
    kept.keep(monkeypatch)


@pytest.fixture
def others() -> Iterator[Others]:
    """Programs of somebody else."""
    from tests.live.helpers.chain_sites import Others  # asks what the kernel can do, which the isolation has to precede

    made = Others()
    yield made
    made.close()
