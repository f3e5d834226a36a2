"""Parameters whose entries stand in maps of the program: which maps those are, and what they shall hold. Pure.

Such a map's name, type and keys follow from the parameter alone, so that what declares it in C, what fills it and what
reads it cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nkform.bpf import values as data
from nkform.bpf.parameters import MAP, Kind, Parameter
from nkform.entries import filled, keys
from nkform.model import MapContents, MapsByParam


def names(parameter: Parameter) -> tuple[str, ...]:
    """The families whose entries have a map each: `ipv4` and `ipv6`, or only one, without a name."""
    return tuple(family for family, _ in data.families(parameter.kind)) or ("",)


def map_name(parameter: Parameter, family: str) -> str:
    return f"{parameter.map}_{family}" if family else parameter.map


def layout(kind: Kind, family: str) -> str:
    """The layout (nkform.entries) of the entries of one family, or of a kind that has none."""
    if kind.name == "integer":
        return data.form_of(kind).ctype.strip("_")
    return {"address": family, "prefix": f"{family}-prefix"}.get(kind.name, kind.name)


def of(parameter: Parameter, items: Any) -> tuple[MapContents, ...]:
    """The maps of a parameter with their entries, given in canonical form; None: with nothing in them."""
    found = []
    for family in names(parameter):
        entries = tuple(items or ())
        own = data.of_family(entries, family) if family else entries
        kind = layout(parameter.kind, family)
        packed = keys(MapContents("", kind, own))  # type: ignore[arg-type]  # entries are numbers and text
        found.append(filled(map_name(parameter, family), kind, packed))
    return tuple(found)


def of_all(parameters: Mapping[str, Parameter], params: Mapping[str, Any]) -> MapsByParam:
    """What the maps of a program hold that has these parameters."""
    return {name: of(p, params.get(name)) for name, p in parameters.items() if p.role == MAP}
