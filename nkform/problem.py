"""What can be wrong, said so that a reader can act on it.

A Problem is data: a stable code, one sentence, and the path into the spec that it is about. Where in which file that
path stands is known to `spec`; how it is printed, to `report`.
"""

from __future__ import annotations

from nkform.dataclass import dataclass

Path = tuple[str | int, ...]
"""A path into the spec as loaded: `("devices", "lxc-web", "peer", "mtu")`."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a spec file; line and column count from 1, the column in characters."""

    file: str
    line: int
    column: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `hint` says what to do about it; `path` or `position` where it is."""

    code: str
    message: str
    path: Path | None = None
    position: Position | None = None
    hint: str = ""
    severity: str = "error"


class NkformError(Exception):
    """Raised with every problem that was found, not just the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("; ".join(p.message for p in problems))
        self.problems = problems


def unexpected(error: BaseException) -> Problem:
    """What to say of an exception that nobody thought of: what it is, and where in nkform it came from; or that this
    process has as many files open as it may have, which can be anywhere."""
    import errno
    import traceback

    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        hint = "raise what limits them (`ulimit -n`, LimitNOFILE=; of the machine, fs.file-max)"
        return Problem("NK0601", f"could not open another file: {error.strerror}", hint=hint)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "nkform" in frame.filename]
    where = f" ({frames[-1].filename.rpartition('nkform/')[2]}:{frames[-1].lineno})" if frames else ""
    return Problem(
        "NK0900",
        f"internal error, {type(error).__name__}: {error}{where}",
        hint="this is a bug in nkform; NKFORM_DEBUG=1 shows where",
    )


def fail(code: str, message: str, *, path: Path | None = None, hint: str = "") -> NkformError:
    """A NkformError with a single problem, to raise."""
    return NkformError(Problem(code, message, path=path, hint=hint))
