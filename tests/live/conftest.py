"""Live tests need root. They run in namespaces of their own (isolation.py), each test in a fresh network namespace."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live import isolation
from tests.live.support import Node

if TYPE_CHECKING:
    from tests.live.chain_sites import Others


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() == 0:
        isolation.isolate()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0 and items:
        pytest.exit("the live tests need root", returncode=1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests counted, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for key, text in report.user_properties:
            if key == "told":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Has the closing summary say what a test counted."""
    return lambda text: record_property("told", text)


@pytest.fixture(autouse=True)
def network() -> None:
    """An empty network, and no pins."""
    isolation.fresh_network()
    isolation.fresh_bpffs()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """nkform on an empty node."""
    return Node(tmp_path)


@pytest.fixture
def others() -> Iterator[Others]:
    """Programs of somebody else."""
    from tests.live.chain_sites import Others  # asks what the kernel can do, which the isolation has to precede

    made = Others()
    yield made
    made.close()
