"""File descriptors are closed where their block ends, and what lies in memory is read from its beginning."""

from __future__ import annotations

import contextlib
import os

from nkform.kernel.descriptors import Owned, close, content, duplicate, in_memory


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_one_is_closed_at_the_end_of_its_block_whatever_happens() -> None:
    fd = in_memory(b"")
    with contextlib.suppress(ValueError), Owned(fd) as inside:
        assert inside == fd
        raise ValueError
    assert not is_open(fd)


def test_none_is_passed_over() -> None:
    fd = in_memory(b"")
    close(-1, fd, -1)
    assert not is_open(fd)


def test_a_second_one_is_open_when_the_first_is_closed_and_is_not_inherited() -> None:
    fd = in_memory(b"text")
    second = duplicate(fd)
    close(fd)
    with Owned(second):
        assert content(second) == b"text"
        assert not os.get_inheritable(second)


def test_a_file_in_memory_is_read_from_its_beginning() -> None:
    with Owned(in_memory(b"text")) as fd:
        assert os.read(fd, 2) == b"te"
        assert content(fd) == b"text"
