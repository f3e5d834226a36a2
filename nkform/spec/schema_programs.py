"""The part of the spec's schema that is about programs: templates, programs by name, chains of devices."""

from __future__ import annotations

from typing import Any

from nkform.kinds import HOOKS

Json = dict[str, Any]

NAME = "^[A-Za-z_][A-Za-z0-9_-]*$"
NAME_LENGTH = 48
"""A program's name becomes part of the name of its pin, and of a tc filter (at most 256 bytes)."""


def spec_properties() -> Json:
    """What stands beside `devices`."""
    return {
        "templates": {
            "description": "Folders of program templates of your own, relative to this file.",
            "examples": [["templates"]],
            "type": "array",
            "items": {"title": "a folder", "type": "string", "minLength": 1},
        },
        "engine": {
            "description": "What compiles programs: clang, bcc, or the first of them that is there. Default: auto.",
            "examples": ["clang"],
            "enum": ["auto", "clang", "bcc"],
        },
        "programs": {
            "description": "Programs, named once and used in chains.",
            "examples": [{"count": {"template": "counters"}}],
            "type": ["object", "null"],
            "propertyNames": {"$ref": "#/$defs/program_name"},
            "additionalProperties": {"$ref": "#/$defs/program"},
        },
    }


def device_properties() -> Json:
    """What a device has."""
    return {
        "attach": {
            "description": "How programs are attached at devices of other kinds than netkit: as tcx links, with tc as "
            "filters of legacy tc, or as the kernel allows. Default: auto.",
            "examples": ["tc"],
            "enum": ["auto", "tcx", "tc"],
        },
        "programs": {"$ref": "#/$defs/chains"},
    }


def definitions() -> Json:
    """What the properties refer to."""
    return {
        "program_name": {
            "description": f"1 to {NAME_LENGTH} of the characters A-Z a-z 0-9 _ -, the first a letter or _.",
            "title": "a program's name", "type": "string", "pattern": NAME, "minLength": 1, "maxLength": NAME_LENGTH,
        },
        "params": {
            "description": "Parameters of the template; `nkform templates NAME` tells which.",
            "examples": [{"prefixes": ["10.0.0.2/32"]}],
            "type": "object",
        },
        "program": {
            "description": "A program: a template and its parameters.",
            "examples": [{"template": "counters"}],
            "type": "object",
            "additionalProperties": False,
            "required": ["template"],
            "properties": {
                "template": {
                    "description": "Name of a template; `nkform templates` lists them.",
                    "examples": ["source_guard"],
                    "type": "string",
                    "minLength": 1,
                },
                "params": {"$ref": "#/$defs/params"},
            },
        },
        "chains": {
            "description": "The programs of each hook. Pairs have `primary` (what the primary transmits) and `peer` "
            "(what the peer transmits), other devices have `ingress` and `egress`.",
            "examples": [{"peer": ["count"]}],
            "type": "object",
            "additionalProperties": False,
            "properties": {hook: {"$ref": "#/$defs/chain"} for hook in HOOKS},
        },
        "chain": {
            "description": "Programs in the order they run: a list, or {chain: [...], default: drop, position: first}.",
            "examples": [["guard", "count"], {"default": "drop", "chain": ["guard"]}],
            "title": "a chain",
            "type": ["array", "object"],
            "items": {"$ref": "#/$defs/entry"},
            "additionalProperties": False,
            "required": ["chain"],
            "properties": {
                "chain": {
                    "description": "Programs in the order they run.",
                    "examples": [["guard", "count"]],
                    "type": "array",
                    "items": {"$ref": "#/$defs/entry"},
                },
                "default": {
                    "description": "What happens to a packet that no program decided. Default: pass.",
                    "examples": ["drop"],
                    "enum": ["pass", "drop"],
                },
                "position": {"$ref": "#/$defs/position"},
            },
        },
        "entry": {
            "description": "A program by name, or with parameters for this device alone.",
            "examples": ["count", {"use": "guard", "params": {"prefixes": ["10.0.0.2/32"]}}],
            "title": "a program",
            "type": ["string", "object"],
            "minLength": 1,
            "additionalProperties": False,
            "required": ["use"],
            "properties": {
                "use": {"$ref": "#/$defs/program_name"},
                "as": {"$ref": "#/$defs/program_name"},
                "params": {"$ref": "#/$defs/params"},
            },
        },
        "position": {
            "description": "Where the chain stands among programs of others at its hook: first, last, or beside one of "
            "them, with optional: true if that one may be absent. Default: after them when it is attached, and "
            "wherever it is from then on.",
            "examples": ["first", {"before": "cil_from_netdev"}],
            "title": "a position",
            "type": ["string", "object"],
            "pattern": "^(first|last)$",
            "additionalProperties": False,
            "properties": {
                "before": {"$ref": "#/$defs/foreign_program"},
                "after": {"$ref": "#/$defs/foreign_program"},
                "optional": {
                    "description": "The program may be absent: the chain then stands as if it had no position.",
                    "examples": [True],
                    "type": "boolean",
                },
            },
        },
        "foreign_program": {
            "description": "A program of somebody else: its name in the kernel, or its id.",
            "examples": ["cil_from_netdev", 4711],
            "title": "a program of somebody else",
            "type": ["string", "integer"],
            "minLength": 1,
            "minimum": 1,
        },
    }  # fmt: skip
