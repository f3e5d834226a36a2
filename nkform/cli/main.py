"""The command line: arguments in, exit codes out. What a command does not need is not imported.

Exit codes: 0 done, 1 error (usage errors too); `plan --detailed-exitcode`: 0 nothing to do, 1 error, 2 changes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from nkform import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; never raises but for bugs under NKFORM_DEBUG=1."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        print(f"nkform {__version__}")
        return 0
    from nkform.cli.arguments import UsageError, parse

    try:
        options = parse(arguments)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 1
    return _guarded(options.run, options)


MORE_MEMORY = "raise what limits it: `ulimit -v`, `ulimit -d`, or memory.max of its control group"
MORE_PROCESSES = "raise what limits them: `ulimit -u`, or pids.max of its control group"


def _guarded(run: object, options: object) -> int:
    """Runs a command; whatever it raises becomes text that helps."""
    from nkform.problem import NkformError

    assert callable(run)
    try:
        code: int = run(options)
        sys.stdout.flush()
        return code
    except NkformError as error:
        _tell(error, options)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain again when it flushes at exit.
        from nkform.kernel.standard_streams import silence

        silence(sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("NKFORM_DEBUG") == "1":
            raise
        _tell(_explained(error), options)
        return 1


def _explained(error: Exception) -> Exception:
    """An unexpected exception as a problem: the kernel's or the system's own words, or a bug of nkform."""
    from nkform.problem import NkformError, Problem, unexpected

    if isinstance(error, MemoryError):
        return NkformError(Problem("NK0601", "nkform ran out of memory", hint=MORE_MEMORY))
    if isinstance(error, OSError):
        import errno

        if isinstance(error, BlockingIOError) and not (hasattr(error, "asked") or hasattr(error, "characters_written")):
            told = f"could not make a process: {error.strerror} (EAGAIN)"  # fork(2); no other call of ours is told so
            return NkformError(Problem("NK0601", told, hint=MORE_PROCESSES))
        root = "nkform needs root, or CAP_NET_ADMIN and CAP_SYS_ADMIN"
        hints = {errno.EPERM: root, errno.EACCES: root, errno.ENOMEM: MORE_MEMORY}
        told = f"could not {error}" if hasattr(error, "asked") else str(error)
        return NkformError(Problem("NK0601", told, hint=hints.get(error.errno or 0, "")))
    return NkformError(unexpected(error))


def _tell(error: Exception, options: object) -> None:
    from nkform.problem import NkformError
    from nkform.report.colour import wanted
    from nkform.report.problems import as_dicts, render

    assert isinstance(error, NkformError)
    if getattr(options, "json", False):
        import json

        print(json.dumps(as_dicts(error.problems), indent=2), file=sys.stderr)
    else:
        print(render(error.problems, wanted(sys.stderr, getattr(options, "no_color", False))), file=sys.stderr)


def run() -> NoReturn:
    """The console script.

    A run is short: it looks for no garbage, and at its end the kernel takes all memory back at once, where Python would
    take object after object apart. That is a tenth of a plan's time.
    """
    import gc

    gc.disable()
    if sys.argv[1:] not in (["--version"], ["-V"]):
        from nkform.cli.streams import install

        install()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # it was closed when nkform began
                stream.flush()
        except OSError:  # whoever should read it has gone, or the disk is full
            code = code or 1
    os._exit(code)
