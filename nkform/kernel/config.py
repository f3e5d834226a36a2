"""How the running kernel was configured, as far as the machine tells. Serves to explain, never to decide."""

from __future__ import annotations

import gzip
import os
from pathlib import Path


def option(name: str) -> str | None:
    """`y`, `m` or `n` for an option of the kernel's configuration; None where no configuration can be read."""
    text = _text()
    if text is None:
        return None
    for line in text.splitlines():
        if line.startswith(f"{name}="):
            return line.partition("=")[2]
    return "n"


def release() -> str:
    """The version of the running kernel, as `uname -r` prints it."""
    return os.uname().release


def _text() -> str | None:
    try:
        with gzip.open("/proc/config.gz", "rt") as file:
            return file.read()
    except OSError:
        pass
    try:
        return Path(f"/boot/config-{release()}").read_text(encoding="utf-8")
    except OSError:
        return None
