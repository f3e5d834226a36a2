"""What all tests share: telling what they counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests counted, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for key, text in report.user_properties:
            if key == "told":
                terminalreporter.write_line(f"{report.nodeid.rpartition('::')[2]}: {text}")


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Has the closing summary, and the campaign's evidence, say what a test counted."""
    return lambda text: record_property("told", text)
