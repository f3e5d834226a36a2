"""The JSON Schema of plans: of `plan --json`, and of the files of `plan -o`; made from the classes (make docs)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nkform import serial
from nkform.model import Device, Namespace
from nkform.plan.actions import Action
from nkform.plan.saved import FORMAT, Basis

STRING: Mapping[str, Any] = {"type": "string"}


def schema() -> dict[str, Any]:
    """Later versions add keys; readers ignore those that they do not know."""
    definitions: dict[str, Any] = {}
    objects = serial.schema(Device | Namespace | None, definitions)
    drift: dict[str, Any] = {
        "drift": {"type": "boolean", "description": "the node was changed, not the spec"},
        "since": {"type": ["string", "null"], "description": "when what drifted was first applied (ISO 8601)"},
    }
    change = _object(
        operation={"enum": ["create", "update", "replace", "destroy"]},
        kind={"enum": ["namespace", "device"]},
        name=STRING,
        reason=STRING,
        **drift,
        fields={"type": "array", "items": {"$ref": "#/$defs/FieldChange"}},
        before=objects,
        after=objects,
    )
    field = _object(path=_list(STRING), before={}, after={}, forces_replacement={"type": "boolean"}, **drift)
    warning = _object(code=STRING, message=STRING, hint=STRING)
    counts = _object(**{name: {"type": "integer", "minimum": 0} for name in ("add", "change", "destroy")})
    whole = _object(
        format_version={"type": "string", "pattern": r"^1\.\d+$"},
        node=STRING,
        changes=_list({"$ref": "#/$defs/Change"}),
        summary=counts,
        warnings=_list(warning),
        actions={"type": "array", "items": serial.schema(Action, definitions)},
    )
    saved = {
        "format": {"const": FORMAT},
        "basis": serial.schema(Basis, definitions),
        "checksum": {"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "SHA-256 over all other keys"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nkform: a plan",
        "description": "What `nkform plan --json` prints; a file of `nkform plan -o` has also what it was made from.",
        **whole,
        "properties": {**whole["properties"], **saved},
        "dependentRequired": {"format": ["basis", "checksum"]},
        "$defs": {"Change": change, "FieldChange": field, **definitions},
    }


def text() -> str:
    """The schema as the file has it."""
    return json.dumps(schema(), indent=1) + "\n"


def _object(**properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}
