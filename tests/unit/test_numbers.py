"""What is taken for a number: what nkform would have written, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nkform.numbers import decimal


@given(st.integers(0, (1 << 32) - 1))
def test_what_was_written_is_read(number: int) -> None:
    assert decimal(str(number), 32) == number


@pytest.mark.parametrize("text", ["", "²", "٣", "-1", "+1", "01", "00", "1_0", " 1", "1\n", str(1 << 32), "9" * 5000])
def test_other_text_is_no_number(text: str) -> None:
    assert decimal(text, 32) is None


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    assert decimal(text, 64) is None or text.isdecimal()
