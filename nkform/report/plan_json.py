"""A plan as JSON: the same changes and actions, for programs."""

from __future__ import annotations

from typing import Any

from nkform.plan.plan import Plan
from nkform.serial import dumps

FORMAT = "1.0"
"""Minor versions add keys; readers ignore keys that they do not know."""


def render(plan: Plan) -> str:
    return dumps(document(plan), indent=2) + "\n"


def document(plan: Plan) -> dict[str, Any]:
    """What schemas/plan.v1.json describes, but for what only a file has."""
    added, changed, destroyed = plan.count()
    changes = [
        {
            "operation": change.operation,
            "kind": change.kind,
            "name": change.name,
            "reason": change.reason,
            "fields": [
                {
                    "path": list(field.path),
                    "before": field.before,
                    "after": field.after,
                    "forces_replacement": field.forces_replacement,
                }
                for field in change.fields
            ],
            "before": change.before,
            "after": change.after,
        }
        for change in plan.changes
    ]
    return {
        "format_version": FORMAT,
        "node": plan.node,
        "changes": changes,
        "summary": {"add": added, "change": changed, "destroy": destroyed},
        "warnings": [{"code": w.code, "message": w.message, "hint": w.hint} for w in plan.warnings],
        "actions": plan.actions,
    }
