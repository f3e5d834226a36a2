"""What the kernel says when it refuses a request."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class KernelError(OSError):
    """The kernel refused a request: errno, its own explanation (extack) and what was asked of it."""

    def __init__(self, number: int, asked: str, extack: str = "") -> None:
        super().__init__(number, os.strerror(number))
        self.asked = asked
        self.extack = extack

    def __str__(self) -> str:
        name = errno.errorcode.get(self.errno or 0, str(self.errno))
        told = f"{self.strerror}: {self.extack}" if self.extack else self.strerror
        return f"{self.asked}: {told} ({name})"


@contextmanager
def unless_gone() -> Iterator[None]:
    """Within the block, that a device is not there any more (ENODEV) is no error: it went while we looked."""
    try:
        yield
    except KernelError as error:
        if error.errno != errno.ENODEV:
            raise
