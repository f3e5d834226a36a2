"""A plan as JSON: the same changes and actions, for programs."""

from __future__ import annotations

from typing import Any

from nkform.plan.changes import Change, Plan
from nkform.plan.drift import Difference, Notes
from nkform.report.drift_text import iso
from nkform.serial import dumps

FORMAT = "1.0"
"""Minor versions add keys; readers ignore keys that they do not know."""


def render(plan: Plan, drift: Notes | None = None) -> str:
    """`drift` says which of the plan is the node's change and not the spec's."""
    return dumps(document(plan, drift), indent=2) + "\n"


def document(plan: Plan, drift: Notes | None = None) -> dict[str, Any]:
    """What schemas/plan.v1.json describes, but for what only a file has."""
    added, changed, destroyed = plan.count()
    return {
        "format_version": FORMAT,
        "node": plan.node,
        "changes": [_change(change, drift or {}) for change in plan.changes],
        "summary": {"add": added, "change": changed, "destroy": destroyed},
        "warnings": [{"code": w.code, "message": w.message, "hint": w.hint} for w in plan.warnings],
        "actions": plan.actions,
    }


def _change(change: Change, drift: Notes) -> dict[str, Any]:
    fields = [
        {
            "path": list(field.path),
            "before": field.before,
            "after": field.after,
            "forces_replacement": field.forces_replacement,
            **_drift(Difference(change.kind, change.name, "update", field), drift),
        }
        for field in change.fields
    ]
    return {
        "operation": change.operation,
        "kind": change.kind,
        "name": change.name,
        "reason": change.reason,
        **_drift(Difference(change.kind, change.name, change.operation), drift),
        "fields": fields,
        "before": change.before,
        "after": change.after,
    }


def _drift(difference: Difference, drift: Notes) -> dict[str, Any]:
    since = drift.get(difference)
    return {"drift": difference in drift, "since": iso(since) if since is not None else None}
