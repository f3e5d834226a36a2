"""What came of work in a child process, as JSON: what it returned, or the error that it raised.

A child works on text of strangers, so that nothing that it says is more than data here. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from nkform.bpf.diagnose import ProgramError
from nkform.kernel.bpf import BpfError
from nkform.kernel.bpf_programs import VerifierError
from nkform.kernel.error import KernelError
from nkform.problem import NkformError, Position, Problem


def told(work: Callable[[], Any]) -> bytes:
    """Does the work, and gives what `heard` makes its result or its error of again."""
    try:
        said: dict[str, Any] = {"result": work()}
    except ProgramError as error:
        said = {"problems": [_problem(problem) for problem in error.problems], "log": error.log}
    except NkformError as error:
        said = {"problems": [_problem(problem) for problem in error.problems]}
    except VerifierError as error:
        said = {"verifier": [error.errno, error.asked, error.log]}
    except BpfError as error:
        said = {"bpf": [error.errno, error.asked, error.extack, error.feature]}
    except KernelError as error:
        said = {"kernel": [error.errno, error.asked, error.extack]}
    return json.dumps(said).encode()


def heard(answer: bytes) -> Any:
    """The result of the work, or its error, raised."""
    said: dict[str, Any] = json.loads(answer)
    if "problems" in said:
        problems = [_read(problem) for problem in said["problems"]]
        raise ProgramError(said["log"], *problems) if "log" in said else NkformError(*problems)
    if "verifier" in said:
        raise VerifierError(*said["verifier"])
    if "bpf" in said:
        raise BpfError(*said["bpf"])
    if "kernel" in said:
        raise KernelError(*said["kernel"])
    return said["result"]


def _problem(problem: Problem) -> list[Any]:
    at = problem.position
    place = [at.file, at.line, at.column, at.text] if at else None
    return [problem.code, problem.message, place, problem.hint, problem.severity]


def _read(data: list[Any]) -> Problem:
    code, message, place, hint, severity = data
    return Problem(code, message, position=Position(*place) if place else None, hint=hint, severity=severity)
