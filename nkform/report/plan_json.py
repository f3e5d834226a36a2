"""A plan as JSON: the same changes and actions, for programs."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from nkform.plan.plan import Plan

FORMAT = "1.0"
"""Minor versions add keys; readers ignore keys that they do not know."""


def as_data(value: Any) -> Any:
    """Any object of the model or of a plan as JSON data; actions and the like carry their name in `type`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: as_data(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__, **fields}
    if isinstance(value, dict):
        return {str(key): as_data(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_data(item) for item in value]
    return value


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
                    "before": as_data(field.before),
                    "after": as_data(field.after),
                    "forces_replacement": field.forces_replacement,
                }
                for field in change.fields
            ],
            "before": as_data(change.before),
            "after": as_data(change.after),
        }
        for change in plan.changes
    ]
    document = {
        "format_version": FORMAT,
        "node": plan.node,
        "changes": changes,
        "summary": {"add": added, "change": changed, "destroy": destroyed},
        "warnings": [{"code": w.code, "message": w.message, "hint": w.hint} for w in plan.warnings],
        "actions": [as_data(action) for action in plan.actions],
    }
    return json.dumps(document, indent=2) + "\n"
