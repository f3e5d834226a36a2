"""Numbers of chance lie where they were asked for, and are not the same again."""

from __future__ import annotations

import os

from nkform.kernel import process


def test_a_number_lies_between_its_bounds() -> None:
    assert {process.chance(5, 8) for _ in range(1000)} == {5, 6, 7}


def test_a_token_names_its_process_and_is_no_other() -> None:
    tokens = {process.token() for _ in range(100)}
    assert len(tokens) == 100
    assert {token.partition("-")[0] for token in tokens} == {str(os.getpid())}
