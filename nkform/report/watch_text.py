"""What a watch tells, one line each: for people, or as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nkform.listing import counted
from nkform.plan.drift import Difference
from nkform.plan.watch import Drifted, Event, Failed, Healed, Recovered, Reread, Settled, Stopped, Unapplied, Watching
from nkform.problem import Problem
from nkform.report.drift_text import as_dict, iso, said, subject


def line(event: Event, now: float) -> str:
    """A line for people. `now` is in seconds since 1970."""
    return f"{iso(now)} {_told(event)}"


def line_json(event: Event, now: float) -> str:
    """An object on one line, for programs."""
    return json.dumps({"time": iso(now), **_data(event), "text": _told(event)})


def _told(event: Event) -> str:
    match event:
        case Watching(node, count):
            return f"watching {counted(count, 'device')} of {node}"
        case Drifted(difference):
            return f"{_name(difference)}: drift: {said(difference)}"
        case Unapplied(difference):
            return f"{_name(difference)}: not applied: {said(difference)}"
        case Settled(difference):
            return f"{_name(difference)}: {_settled(difference)}"
        case Healed(actions):
            return f"mended by {counted(actions, 'action')}"
        case Failed(problems, pause):
            return f"{_joined(problems)}; next try in {pause:g} s"
        case Recovered():
            return "all is well again"
        case Reread(()):
            return "the spec has been read again"
        case Reread(problems):
            return f"the spec as it is now is not taken, the old one holds: {_joined(problems)}"
        case Stopped():
            return "stopped"


def _settled(difference: Difference) -> str:
    match difference.operation:
        case "create":
            return "there again"
        case "destroy":
            return "gone again"
    return f"{subject(difference)} as in the spec again" if difference.field else f"no longer: {difference.problem}"


def _data(event: Event) -> dict[str, object]:
    match event:
        case Watching(node, count):
            return {"event": "watching", "node": node, "devices": count}
        case Drifted(difference):
            return {"event": "drift", **_plain(difference)}
        case Unapplied(difference):
            return {"event": "unapplied", **_plain(difference)}
        case Settled(difference):
            return {"event": "settled", **_plain(difference)}
        case Healed(actions):
            return {"event": "healed", "actions": actions}
        case Failed(problems, pause):
            return {"event": "failed", "retry_seconds": pause, "problems": _codes(problems)}
        case Recovered():
            return {"event": "recovered"}
        case Reread(problems):
            return {"event": "refused" if problems else "reread", "problems": _codes(problems)}
        case Stopped():
            return {"event": "stopped"}


def _plain(difference: Difference) -> dict[str, object]:
    """The difference without what a watch does not know: since when the spec has been so."""
    return {key: value for key, value in as_dict(difference, None).items() if key not in ("since", "text")}


def _name(difference: Difference) -> str:
    return f"{difference.kind} {difference.name}"


def _joined(problems: Sequence[Problem]) -> str:
    """Problems on one line, with their codes and places."""
    return "; ".join(f"{_where(problem)}{problem.code}: {problem.message}" for problem in problems)


def _where(problem: Problem) -> str:
    at = problem.position
    return f"{at.file}:{at.line}:{at.column}: " if at else ""


def _codes(problems: Sequence[Problem]) -> list[dict[str, str]]:
    return [{"code": problem.code, "message": problem.message, "hint": problem.hint} for problem in problems]
