"""What is on record of other nodes than the one that a command is about: none of it keeps the command from going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nkform.dataclass import replace
from nkform.problem import NkformError, Problem

if TYPE_CHECKING:
    from nkform.kernel.error import KernelError

HINT = "if it is nkform's, give it back: chown root, chmod go-w; else remove it"


def untrusted() -> list[Problem]:
    """Warnings of what others could write to below /run/nkform."""
    from nkform.kernel import rundir

    return [_untrusted(f"{path} is not trusted: {reason}") for path, reason in rundir.untrusted()]


def warnings(fault: NkformError | KernelError) -> Sequence[Problem]:
    """What to tell of a record of another node that cannot be read."""
    if isinstance(fault, NkformError):
        return [replace(problem, severity="warning") for problem in fault.problems]
    return [_untrusted(f"could not {fault}")]


def _untrusted(what: str) -> Problem:
    return Problem("NK0617", f"{what}; nothing that it says counts", hint=HINT, severity="warning")
