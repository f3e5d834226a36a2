"""A plan as JSON: the same changes and actions, for programs."""

from __future__ import annotations

from nkform.plan.plan import Plan
from nkform.serial import dumps

FORMAT = "1.0"
"""Minor versions add keys; readers ignore keys that they do not know."""


def render(plan: Plan) -> str:
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
    document = {
        "format_version": FORMAT,
        "node": plan.node,
        "changes": changes,
        "summary": {"add": added, "change": changed, "destroy": destroyed},
        "warnings": [{"code": w.code, "message": w.message, "hint": w.hint} for w in plan.warnings],
        "actions": plan.actions,
    }
    return dumps(document, indent=2) + "\n"
