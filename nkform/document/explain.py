"""Violations of the schema → problems in plain sentences, with the value as it was written. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nkform.attributes import BY_NAME, MAX_GSO
from nkform.document import names, scalars
from nkform.document.json_schema import Violation
from nkform.document.source import Source
from nkform.document.yaml_events import Place
from nkform.kinds import KINDS, ONLY_PAIRS
from nkform.nearest import meant, nearest
from nkform.problem import Path, Problem

NOUNS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "object": "a mapping",
    "array": "a list",
}

_NAMES: Mapping[str, tuple[str, Callable[[str], str | None], str]] = {
    "a device's name": ("NK0301", names.ifname_fault, names.IFNAME_RULE),
    "a namespace's name": ("NK0302", names.netns_fault, names.NETNS_RULE),
    "a node's name": ("NK0206", names.node_fault, ""),
    "a sysctl's name": ("NK0314", names.sysctl_fault, ""),
    "a variable's name": ("NK0125", names.variable_fault, ""),
}
"""By a definition's title: the code, who can say what exactly is wrong with a text, and the hint."""


def explain(violation: Violation, source: Source) -> Problem:
    """The problem that a violation in a file stands for, with its position there."""
    path = violation.path
    of_key = violation.keyword in {"additionalProperties", "propertyNames"}
    place, depth = source.find((*path, violation.key) if of_key else path)
    exact = depth == len(path) + of_key
    code, message, hint = _SENTENCES[violation.keyword](violation, path, place if exact else None)
    position = source.spot(place, key=of_key or violation.keyword == "required")
    where = (*path, violation.key) if of_key else path
    return Problem(code, message, path=where, position=position, hint=hint)


def name_of(path: Path) -> str:
    """What a message calls a place: its key, or an item of it."""
    key = next((step for step in reversed(path) if isinstance(step, str)), None)
    if key is None:
        return "the spec"
    return f"an item of `{key}`" if isinstance(path[-1], int) else f"`{key}`"


def describe(value: object) -> str:
    """A value as a message shows it."""
    if isinstance(value, str):
        return f"the text {scalars.quoted(value)}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if value is None:
        return "nothing"
    if isinstance(value, list):
        shown = _flow(value)
        return f"the list {shown}" if len(shown) <= 60 else "a list"
    return "a mapping"


Sentence = tuple[str, str, str]


def _type(violation: Violation, path: Path, place: Place | None) -> Sentence:
    wanted = violation.schema["type"]
    wanted = [w for w in ([wanted] if isinstance(wanted, str) else wanted) if w != "null"]
    nouns = " or ".join(NOUNS[w] for w in wanted)
    message = f"{name_of(path)} must be {nouns}, not {describe(violation.value)}"
    return "NK0203", message, _type_hint(violation, wanted[0], path, place)


def _type_hint(violation: Violation, wanted: str, path: Path, place: Place | None) -> str:
    value = violation.value
    if place is None or place.raw is None or isinstance(value, dict | list):
        return _shape_hint(violation, wanted, path)
    raw, plain = place.raw, place.plain
    if "${" in raw:
        return ""
    if value is None and raw == "":
        return _shape_hint(violation, wanted, path) or "give it a value, or leave the key out"
    if wanted == "boolean":
        return scalars.why_not_boolean(raw, plain)
    if wanted == "integer":
        return scalars.why_not_number(raw, plain)
    if wanted == "string" and not isinstance(value, str):
        return scalars.why_not_text(raw, value if isinstance(value, bool | int | float) else None)
    if wanted == "array":
        return f"write it as a list: [{raw[:60]}]"
    return _shape_hint(violation, wanted, path)


def _shape_hint(violation: Violation, wanted: str, path: Path) -> str:
    if wanted == "object" and isinstance(violation.value, str) and path[-2:-1] == ("routes",):
        return _as_route(violation.value)
    if wanted == "object" and isinstance(violation.value, list):
        return "a mapping has lines of the form `key: value`, without dashes"
    if wanted == "array" and isinstance(violation.value, dict):
        shown = _flow(violation.value)
        return f"write it as a list: [{shown}]" if len(shown) <= 60 else "put a dash before each item"
    examples = violation.schema.get("examples")
    if examples:
        return f"for example {_flow(examples[0])}"
    if path[:1] == ("namespaces",) and wanted == "object":
        return "for example {create: true}"
    return ""


def _as_route(text: str) -> str:
    """What to write for a route that is given as `ip route` has it."""
    to, *rest = text.split()[:9] or ["default"]
    given = dict(zip(rest[::2], rest[1::2], strict=False))
    keys: dict[str, str] = {"to": to}
    keys |= {key: given[key] for key in ("via", "src", "metric", "table", "mtu") if key in given}
    return f"write {_flow(keys)}"


def _enum(violation: Violation, path: Path, _: Place | None) -> Sentence:
    if "const" in violation.schema:
        const = violation.schema["const"]
        hint = "this nkform reads version 1 of the format"
        return "NK0205", f"{name_of(path)} must be {const}, not {describe(violation.value)}", hint
    allowed = violation.schema["enum"]
    choice = ", ".join(allowed[:-1]) + " or " + allowed[-1] if len(allowed) > 1 else allowed[0]
    message = f"{name_of(path)} must be {choice}, not {describe(violation.value)}"
    word = violation.value if isinstance(violation.value, str) else ""
    if path[-1:] == ("kind",) and word in _KINDS_OF_OTHERS:
        return (
            "NK0205",
            message,
            f"nkform makes no {word} devices; it can attach programs to one of others: `kind: external`",
        )
    near = _WORDS_OF_OTHERS.get(word)
    near = near if near in allowed else nearest(word, allowed)
    return "NK0205", message, f"did you mean {near}?" if near else ""


_WORDS_OF_OTHERS = {
    "drop": "blackhole",
    "deny": "blackhole",
    "pass": "forward",
    "accept": "forward",
    "allow": "forward",
}
"""What others call the two policies."""

_KINDS_OF_OTHERS = {"vlan", "bridge", "bond", "vxlan", "macvlan", "ipvlan", "wireguard", "tun", "tap", "vrf", "gre"}


def _exceeds(value: Any, high: int | None) -> bool:
    return isinstance(value, int) and high is not None and value > high


def _range(violation: Violation, path: Path, _: Place | None) -> Sentence:
    low, high = violation.schema.get("minimum"), violation.schema.get("maximum")
    hint = ""
    row = BY_NAME.get(str(path[-1]))
    if row and high == MAX_GSO and _exceeds(violation.value, high):
        hint = f"that is beyond tso_max_size, the most that netkit and veth can segment: {MAX_GSO} bytes"
    elif row and high == row.schema.get("maximum") and _exceeds(violation.value, high):
        hint = row.limit
    bounds = f"between {low} and {high}" if low is not None and high is not None else f"at least {low}"
    return "NK0204", f"{name_of(path)} must be {bounds}, not {describe(violation.value)}", hint


def _text(violation: Violation, path: Path, _: Place | None) -> Sentence:
    """Patterns and lengths, of a value or of a key."""
    title = violation.schema.get("title", "")
    text = violation.key if violation.keyword == "propertyNames" else str(violation.value)
    code, find_fault, hint = _NAMES.get(title, ("NK0206", None, violation.schema.get("description", "")))
    fault = find_fault(text) if find_fault else None
    of_key = violation.keyword == "propertyNames" and title
    said = f"{scalars.quoted(text)} {f'cannot be {title}' if of_key else f'is not a valid {name_of(path)}'}"
    if fault:
        said = f"{title.replace('a ', 'the ', 1)} {scalars.quoted(text)} {fault}"
    elif text == "":
        said = f"{title if of_key else name_of(path)} is empty"
    elif "maxLength" in violation.schema and len(text) > violation.schema["maxLength"]:
        said = f"{name_of(path)} is {len(text)} characters long; at most {violation.schema['maxLength']} are possible"
    if path and path[-1] == "mac":
        hint = "six pairs of hexadecimal digits with colons between: 02:00:00:00:00:01"
    return code, said, hint


def _unknown(violation: Violation, path: Path, _: Place | None) -> Sentence:
    key = violation.key
    title = violation.schema.get("title")
    if kind := next((kind for kind in KINDS.values() if kind.said == title), None):
        possible = ", ".join(violation.schema.get("properties", {}))
        hint = f"nkform leaves {title} as it is; possible here: {possible}" if kind.programs_only else ONLY_PAIRS
        return "NK0207", f"{title} has no `{key}`", hint
    known = violation.schema.get("properties", {})
    message = f"there is no key `{key[:60]}` {_inside(path)}"
    return "NK0201", message, _elsewhere(key, path) or _near_hint(key, known)


def _near_hint(key: str, known: Mapping[str, Any]) -> str:
    near = meant(key, known)
    if near:
        return f"did you mean `{near}`?"
    return "known here: " + ", ".join(known)


def _inside(path: Path) -> str:
    if not path:
        return "at the top of a spec"
    if path[0] == "devices" and len(path) == 2:
        return "in a device"
    if path[-2:-1] == ("programs",) and len(path) > 2:
        return f"in the chain `programs.{path[-1]}`"
    if isinstance(path[-1], int):
        return f"in {name_of(path)}"
    return f"in `{path[-1]}`"


def _elsewhere(key: str, path: Path) -> str:
    """For a key that is right, but in another place."""
    row = BY_NAME.get(key)
    if path and path[-1] == "peer" and (row or key in {"kind", "peer"}):
        return f"both ends share it: write `{key}` beside `peer:`, not in it"
    if not path and (row or key in {"addresses", "routes", "sysctl", "peer", "kind"}):
        return f"`{key}` belongs into a device, or into `defaults`"
    if path[:1] in {("devices",), ("defaults",)} and key in _GATEWAYS and not isinstance(path[-1], int):
        return f"a gateway is part of a route: routes: [{{to: default, via: {_GATEWAYS[key]}}}]"
    if path[:1] in {("devices",), ("defaults",)} and key in {"name", "namespace", "netns"} and "peer" not in path:
        return "the device's name is its key, and it stays where nkform runs; `peer:` has `name` and `namespace`"
    return ""


_GATEWAYS = {"gateway": "192.0.2.1", "via": "192.0.2.1", "gateway4": "192.0.2.1", "gateway6": "fe80::1"}
"""Keys that others have beside addresses, each with a gateway for an example."""


def _required(violation: Violation, path: Path, _: Place | None) -> Sentence:
    example = violation.schema.get("properties", {}).get(violation.key, {}).get("examples")
    hint = f"for example {violation.key}: {_flow(example[0])}" if example else ""
    return "NK0202", f"{name_of(path)} needs `{violation.key}`", hint


def _count(violation: Violation, path: Path, _: Place | None) -> Sentence:
    if "minProperties" in violation.schema:
        keys = " or ".join(violation.schema.get("properties", {}))
        return "NK0208", f"{name_of(path)} must have exactly one key: {keys}", ""
    return "NK0208", f"{name_of(path)} is empty", "give it an item, or leave the key out"


def _flow(value: object) -> str:
    """A short value in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


_SENTENCES: Mapping[str, Callable[[Violation, Path, Place | None], Sentence]] = {
    "type": _type,
    "enum": _enum,
    "minimum": _range,
    "maximum": _range,
    "minLength": _text,
    "maxLength": _text,
    "pattern": _text,
    "propertyNames": _text,
    "additionalProperties": _unknown,
    "required": _required,
    "minProperties": _count,
    "maxProperties": _count,
    "minItems": _count,
    "maxItems": _count,
}
