"""The JSON Schema of a spec: made from the attribute table, for checking and for a file that others read.

`python -m nkform.spec.schema` writes schemas/spec.v1.json. The schema describes *one file as written*: it may leave to
another file, or to `defaults`, what a whole spec must have (`version`, `node`, every pair's peer and its name), and a
number may be a `${variable}`. `strict` takes the latter back: it is what a file must obey once variables are filled in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nkform.attributes import ATTRIBUTES, Attribute
from nkform.kinds import AUTO, KINDS, NETKIT, Kind, KindName, kind_of
from nkform.spec import schema_programs

FILE = "schemas/spec.v1.json"

Json = dict[str, Any]

_VARIABLE_REF = {"$ref": "#/$defs/variable"}

_NUMBERS = {"headroom": 64, "tailroom": 64, "mtu": 1500}
"""Examples of numbers that nobody would guess from what is possible."""

_EXAMPLE: Json = {
    "version": 1,
    "node": "worker-1",
    "defaults": {"mtu": 1500},
    "namespaces": {"web": {"create": True}},
    "devices": {
        "lxc-web": {
            "kind": NETKIT.name,
            "mode": "l3",
            "addresses": ["169.254.1.1/32"],
            "routes": [{"to": "10.0.0.2/32"}],
            "peer": {
                "name": "eth0",
                "namespace": "web",
                "policy": "blackhole",
                "addresses": ["10.0.0.2/32"],
                "routes": [{"to": "default", "via": "169.254.1.1", "onlink": True}],
            },
        }
    },
}

ROUTE_MTU = 65520
"""The largest MTU of a route, in bytes: the kernel makes this of all that is more (net/ipv4/metrics.c)."""


def strict(schema: Any) -> Any:
    """The schema without the choice of a variable where something else than text is meant."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if "anyOf" in schema and schema["anyOf"][-1] == _VARIABLE_REF:
        rest = {key: part for key, part in schema.items() if key != "anyOf"}
        return strict(schema["anyOf"][0] if "$ref" in schema["anyOf"][0] else {**schema["anyOf"][0], **rest})
    return {key: strict(part) for key, part in schema.items()}


def _or_variable(description: str, schema: Json, *examples: object) -> Json:
    shown: Json = {"description": description}
    if examples:
        shown["examples"] = list(examples)
    return {**shown, "anyOf": [schema, dict(_VARIABLE_REF)]}


def _text(description: str, *examples: object, **more: object) -> Json:
    return {"description": description, "examples": list(examples), "type": "string", **more}


def _ref(name: str) -> Json:
    return {"$ref": f"#/$defs/{name}"}


def _mapping(description: str, properties: Json, **more: object) -> Json:
    return {
        "description": description, "type": "object", "additionalProperties": False, "properties": properties, **more,
    }  # fmt: skip


def _attribute(row: Attribute) -> Json:
    doc = row.doc
    if len(row.kinds) == 1:
        doc += f" Only {', '.join(row.kinds)}."
    if row.default is not None:
        default = str(row.default).lower() if isinstance(row.default, bool) else row.default
        doc += f" Default: {default}."
    schema: Json = dict(row.schema)
    if row.computed:
        schema = {
            **schema,
            "type": ["integer", "object"],
            "additionalProperties": False,
            "required": ["for"],
            "properties": {"for": _ref("computed_for")},
        }
    return _or_variable(doc, schema, *_examples(row))


def _examples(row: Attribute) -> Iterator[object]:
    schema = row.schema
    if "enum" in schema:
        yield from schema["enum"]
    elif schema["type"] == "boolean":
        yield True
    elif schema["type"] == "string":
        yield "02:00:00:00:00:01"
    else:
        yield _NUMBERS.get(row.name, min(schema["maximum"], 65536))
    if row.computed:
        yield {"for": ["wg0"]}


def _end_properties() -> Json:
    """What the primary and the peer both have."""
    return {
        "addresses": _or_variable(
            "Addresses of this end, each with its prefix length.",
            {"type": "array", "items": _ref("address")},
            ["10.0.0.2/32", "fd00::2/128"],
        ),
        "routes": _or_variable(
            "Routes out of this end, in the namespace that it is in.",
            {"type": "array", "items": _ref("route")},
            [{"to": "default", "via": "169.254.1.1", "onlink": True}],
        ),
        "sysctl": _ref("sysctl"),
    }


def _device_properties(*kinds: KindName) -> Json:
    return {
        "kind": _or_variable(
            f"{'; '.join(f'{name}: {kind_of(name).about}' for name in kinds)}. Default: {AUTO.name}.",
            {"enum": list(kinds)},
            NETKIT.name,
        ),
        **{row.name: _attribute(row) for row in ATTRIBUTES},
        **_end_properties(),
        "peer": _ref("peer"),
        **schema_programs.device_properties(),
    }


def _by_kind(kinds: Iterable[Kind]) -> Json:
    """What a device of each of these kinds can have, which is less than all."""
    schema: Json = {}
    for kind in kinds:
        keys = (*_device_properties(), "optional")
        if kind.programs_only:
            keys = ("kind", "optional", *schema_programs.device_properties())
        schema = {
            "if": {"required": ["kind"], "properties": {"kind": {"const": kind.name}}},
            "then": {
                "title": kind.said,
                "additionalProperties": False,
                "properties": {key: {} for key in keys if key != "peer"},
            },
            **({"else": schema} if schema else {}),
        }
    return schema


def _computed() -> str:
    """What comes of other devices, as one phrase each."""
    said: dict[str, list[str]] = {}
    for row in ATTRIBUTES:
        if row.computed:
            said.setdefault(row.computed.doc, []).append(row.name)
    return "; ".join(f"{' and '.join(names)} as {doc}" for doc, names in said.items())


def _number(description: str, low: int, high: int, *examples: int) -> Json:
    return _or_variable(description, {"type": "integer", "minimum": low, "maximum": high}, *examples)


def _definitions() -> Json:
    u32 = 2**32 - 1
    sysctl_keys = {
        "type": "object",
        "propertyNames": _ref("sysctl_key"),
        "additionalProperties": _ref("sysctl_value"),
    }
    return {
        "variable": _text(
            "The value of a variable.", "${mtu}", title="a variable", pattern="^\\$\\{[A-Za-z_][A-Za-z0-9_.-]*\\}$"
        ),
        "variable_name": {
            "description": "1 to 64 of the characters A-Z a-z 0-9 _ . -, the first a letter or _.",
            "title": "a variable's name", "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_.-]*$", "maxLength": 64,
        },
        "node": _text(
            "Whose devices these are: the ownership mark carries it. 1 to 63 of the characters A-Z a-z 0-9 _ . -",
            "worker-1", title="a node's name", pattern="^[A-Za-z0-9_.-]+$", minLength=1, maxLength=63,
        ),
        "ifname": _text(
            "Name of a network device: at most 15 bytes, without white space, '/', ':' and '%'.",
            "eth0", "lxc-web", title="a device's name", pattern="^[^\\s/:%]+$", minLength=1, maxLength=15,
        ),
        "netns": _text(
            "Name of a network namespace below /run/netns.",
            "web", title="a namespace's name", pattern="^[^\\s/:]+$", minLength=1, maxLength=255,
        ),
        "address": _text(
            "An address with its prefix length.", "10.0.0.2/32", "fd00::2/128", title="an address", minLength=1
        ),
        "sysctl_key": {
            "description": "The name of a file below /proc/sys/net/ipv4/conf/DEVICE, or ipv6.",
            "title": "a sysctl's name", "type": "string", "pattern": "^[a-z0-9_]+$", "maxLength": 64,
        },
        "sysctl_value": _or_variable(
            "The value, as the kernel prints it.", {"type": ["integer", "string"], "maxLength": 256}, 1
        ),
        "sysctl": _mapping(
            "Settings of this end below /proc/sys/net/{ipv4,ipv6}/conf/DEVICE/.",
            {
                "ipv4": {"description": "Below net.ipv4.conf.", "examples": [{"rp_filter": 0}], **sysctl_keys},
                "ipv6": {"description": "Below net.ipv6.conf.", "examples": [{"forwarding": 1}], **sysctl_keys},
            },
        ),
        "computed_for": {
            "description": f"Devices of the root namespace, from which a value is computed: {_computed()}.",
            "examples": [["wg0", "vxlan0"]],
            "type": "array",
            "minItems": 1,
            "items": _ref("ifname"),
        },
        "route": _mapping(
            "A unicast route.",
            {
                "to": _text("Destination: a prefix, or `default`.", "default", "10.0.0.2/32", title="a destination"),
                "via": _text("Gateway.", "169.254.1.1", title="a gateway"),
                "onlink": _or_variable(
                    "Take the gateway for reachable through this device even if no route leads to it. Default: false.",
                    {"type": "boolean"}, True,
                ),
                "src": _text("Source address of packets that take this route.", "10.0.0.2", title="a source address"),
                "metric": _number("Priority, the lowest wins. Default: 0 for IPv4, 1024 for IPv6.", 0, u32, 100),
                "table": _number("Routing table, by number. Default: 254 (main).", 1, u32, 254),
                "mtu": _number("Largest packet on this route, in bytes. Default: the device's.", 68, ROUTE_MTU, 1400),
            },
            required=["to"],
        ),
        "peer": _mapping(
            "The other end of the pair, and the namespace it goes to.",
            examples=[{"name": "eth0", "namespace": "web"}],
            properties={
                "name": _ref("ifname"),
                "namespace": _or_variable(
                    "A declared namespace by name, or {pid: N}, or {path: FILE}. Default: where nkform runs.",
                    {
                        "title": "a namespace",
                        "type": ["string", "object"],
                        "minLength": 1,
                        "additionalProperties": False,
                        "minProperties": 1,
                        "maxProperties": 1,
                        "properties": {
                            "pid": _number("A process whose network namespace is meant.", 1, 2**22, 4711),
                            "path": _text("File of a namespace, such as /proc/4711/ns/net.", "/proc/4711/ns/net"),
                        },
                    },
                    "web",
                ),
                **{row.name: _attribute(row) for row in ATTRIBUTES if row.place == "end"},
                **_end_properties(),
            },
        ),
        "namespace": {
            "description": "A network namespace that peers go to.",
            "examples": [{"create": True}],
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": {
                "create": _or_variable(
                    "Whether nkform makes and owns it; otherwise it must exist. Default: false.",
                    {"type": "boolean"}, True,
                ),
                "optional": _or_variable(
                    "Whether it may be absent: its devices are then left out, and that is no error. Default: false.",
                    {"type": "boolean"}, True,
                ),
            },
        },
        "device": {
            "description": "A pair of devices, by the name of its primary end; or a device without a peer.",
            "examples": [{"peer": {"name": "eth0"}}, _EXAMPLE["devices"]["lxc-web"]],
            "type": "object",
            "additionalProperties": False,
            "properties": {
                **_device_properties(*KINDS),
                "optional": _or_variable(
                    "With `kind: external`: whether the device may be absent, which is then no error. Default: false.",
                    {"type": "boolean"}, True,
                ),
            },
            **_by_kind(kind for kind in KINDS.values() if not kind.has_peer),
        },
        **schema_programs.definitions(),
    }  # fmt: skip


def build() -> Json:
    """The schema, from the attribute table."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:nkform:spec:v1",
        "title": "nkform spec, version 1",
        "description": "What network devices a Linux node has.",
        "examples": [_EXAMPLE],
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "version": {"description": "Version of this format.", "examples": [1], "const": 1},
            "node": _ref("node"),
            "vars": {
                "description": "Variables: ${name} stands for the value, in any text.",
                "examples": [{"mtu": 1500}],
                "type": ["object", "null"],
                "propertyNames": _ref("variable_name"),
            },
            "defaults": {
                "description": "Merged under every device that nkform makes.",
                "examples": [{"mtu": 1500, "peer": {"name": "eth0"}}],
                "type": ["object", "null"],
                "additionalProperties": False,
                "properties": _device_properties(*(kind.name for kind in KINDS.values() if kind.made)),
            },
            "namespaces": {
                "description": "The network namespaces that peers go to, by name.",
                "examples": [{"web": {"create": True}}],
                "type": ["object", "null"],
                "propertyNames": _ref("netns"),
                "additionalProperties": _ref("namespace"),
            },
            "devices": {
                "description": "The devices, by name.",
                "examples": [_EXAMPLE["devices"]],
                "type": ["object", "null"],
                "propertyNames": _ref("ifname"),
                "additionalProperties": _ref("device"),
            },
            "expedite": _or_variable(
                "Whether a run may expedite the kernel's RCU grace periods while it attaches and detaches programs, "
                "which interrupts every processor of the machine for a moment. Default: true.",
                {"type": "boolean"},
                False,
            ),
            **schema_programs.spec_properties(),
        },
        "$defs": _definitions(),
    }


def text() -> str:
    """The schema as the file has it."""
    import json

    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    (Path(__file__).parents[2] / FILE).write_text(text(), encoding="utf-8")
