"""Parameters of templates: what kinds there are, and whether a value is one of a kind.

The kinds are a closed list, and each has one form that values are brought to. What a parameter of any kind can hold is
therefore a number, true or false, an address, or one of a few words that the template's author wrote: nothing that
could become code. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from nkform.dataclass import dataclass
from nkform.document import inet
from nkform.document.scalars import quoted
from nkform.nearest import nearest
from nkform.problem import Path, Problem

Canonical = bool | int | str | tuple[Any, ...]
"""A value in its one form: addresses, prefixes and MAC addresses as text, lists as tuples."""

STRUCTURE = "structure"
VALUE = "value"
MAP = "map"

IDENTIFIER_BYTES = 32
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
_IFNAME = re.compile(r"[A-Za-z0-9_.-]{1,15}")


class RefusedError(ValueError):
    """What is wrong with a value, as the rest of a sentence that begins with its name; and what to do about it."""

    def __init__(self, fault: str, hint: str = "") -> None:
        super().__init__(fault)
        self.fault = fault
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value: its name (a key of KINDS), the bounds of a number, the words of an enumeration."""

    name: str
    low: int = 0
    high: int = 0
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FactDefault:
    """A default that is a fact of the device."""

    fact: str


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter as a manifest declares it; a list if `most` is given. `default` None: it must be given.

    `map` is the name of the map that its entries stand in; of one that holds both families, what the two maps' names
    begin with.
    """

    name: str
    role: str
    kind: Kind
    description: str
    least: int = 0
    most: int | None = None
    default: Canonical | FactDefault | None = None
    examples: tuple[Any, ...] = ()
    map: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """Parameters in their one form (without those that are left to their default), and what is wrong with others."""

    params: Mapping[str, Canonical]
    problems: tuple[Problem, ...]


def check_all(parameters: Mapping[str, Parameter], given: Mapping[str, object], owner: str) -> Checked:
    """Checks what a program gives its template; paths of problems begin at the parameters."""
    params: dict[str, Canonical] = {}
    problems: list[Problem] = []
    for name, value in given.items():
        parameter = parameters.get(name)
        if parameter is None:
            problems.append(_unknown(name, parameters, owner))
            continue
        params[name] = checked(parameter, value, (name,), problems)
    for name, parameter in parameters.items():
        if name not in given and parameter.default is None:
            example = f"for example {name}: {shown(parameter.examples[0])}" if parameter.examples else ""
            problems.append(Problem("NK0711", f"{owner} needs the parameter `{name}`", path=(), hint=example))
    return Checked(params, tuple(problems))


def checked(parameter: Parameter, value: object, path: Path, problems: list[Problem]) -> Canonical:
    """One parameter's value in its form; adds to the problems what is wrong with it."""

    def one(item: object, where: Path, noun: str) -> Canonical:
        try:
            return KINDS[parameter.kind.name](parameter.kind, item)
        except RefusedError as refused:
            problems.append(Problem("NK0712", f"{noun} {refused.fault}", path=where, hint=refused.hint))
            return 0

    noun = f"`{parameter.name}`"
    if parameter.most is None:
        return one(value, path, noun)
    if not isinstance(value, list | tuple):
        hint = f"write it as a list: [{value}]" if isinstance(value, str | int) and len(str(value)) < 60 else ""
        problems.append(Problem("NK0712", f"{noun} must be a list, not {_describe(value)}", path=path, hint=hint))
        return ()
    if not parameter.least <= len(value) <= parameter.most:
        wanted = f"at most {parameter.most}" if len(value) > parameter.most else f"at least {parameter.least}"
        problems.append(Problem("NK0712", f"{noun} has {len(value)} items; it needs {wanted}", path=path))
        return ()
    items = tuple(one(item, (*path, place), f"an item of {noun}") for place, item in enumerate(value))
    return tuple(dict.fromkeys(items))


def shown(value: object) -> str:
    """A short value as YAML has it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    return str(value)


def _unknown(name: str, parameters: Mapping[str, Parameter], owner: str) -> Problem:
    near = nearest(name, parameters)
    if near:
        hint = f"did you mean `{near}`?"
    elif parameters:
        hint = "known here: " + ", ".join(parameters)
    else:
        hint = f"{owner} takes no parameters"
    return Problem("NK0710", f"{owner} has no parameter {quoted(str(name)[:60])}", path=(name,), hint=hint)


def _describe(value: object) -> str:
    if isinstance(value, str):
        return f"the text {quoted(value[:60])}"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "nothing"
    if isinstance(value, int | float):
        return str(value)[:60]
    return "a list" if isinstance(value, list | tuple) else "a mapping"


# --- the kinds --------------------------------------------------------------------------


def _integer(kind: Kind, value: object) -> int:
    if type(value) is not int:
        raise RefusedError(f"must be a whole number, not {_describe(value)}")
    if not kind.low <= value <= kind.high:
        raise RefusedError(f"must be between {kind.low} and {kind.high}, not {str(value)[:60]}")
    return value


def _boolean(_: Kind, value: object) -> bool:
    if type(value) is not bool:
        raise RefusedError(f"must be true or false, not {_describe(value)}")
    return value


def _enumeration(kind: Kind, value: object) -> str:
    if isinstance(value, str) and value in kind.words:
        return value
    near = nearest(value, kind.words) if isinstance(value, str) else None
    choice = ", ".join(kind.words[:-1]) + " or " + kind.words[-1] if len(kind.words) > 1 else kind.words[0]
    raise RefusedError(f"must be {choice}, not {_describe(value)}", f"did you mean {near}?" if near else "")


def _identifier(_: Kind, value: object) -> str:
    if isinstance(value, str) and _IDENTIFIER.fullmatch(value):
        return value
    raise RefusedError(
        f"must be a name, not {_describe(value)}",
        f"a letter or _ and up to {IDENTIFIER_BYTES - 1} letters, digits and _",
    )


def _mac(_: Kind, value: object) -> str:
    if isinstance(value, str) and _MAC.fullmatch(value):
        return value.lower()
    raise RefusedError(
        f"must be a MAC address, not {_describe(value)}",
        "six pairs of hexadecimal digits with colons between: 02:00:00:00:00:01",
    )


def _ifindex(_: Kind, value: object) -> int | str:
    if type(value) is int and 0 < value < 2**31:
        return value
    if isinstance(value, str) and _IFNAME.fullmatch(value):
        return value
    raise RefusedError(f"must be a device's name or ifindex, not {_describe(value)}")


def _address(bits: int) -> Callable[[Kind, object], str]:
    noun = {0: "an IP address", 32: "an IPv4 address", 128: "an IPv6 address"}[bits]

    def check(_: Kind, value: object) -> str:
        try:
            ip = inet.parse_ip(_text(value, noun))
        except inet.BadAddress as bad:
            raise RefusedError(f"must be {noun}, not {_describe(value)}", _hint(bad, value, "/")) from None
        if bits and ip.bits != bits:
            raise RefusedError(f"must be {noun}, not {_describe(value)}")
        return ip.text

    return check


def _prefix(bits: int) -> Callable[[Kind, object], str]:
    noun = {0: "a prefix", 32: "an IPv4 prefix", 128: "an IPv6 prefix"}[bits]

    def check(_: Kind, value: object) -> str:
        try:
            prefix = inet.parse_prefix(_text(value, noun))
        except inet.BadAddress as bad:
            raise RefusedError(f"must be {noun}, not {_describe(value)}", _hint(bad, value)) from None
        if bits and prefix.bits != bits:
            raise RefusedError(f"must be {noun}, not {_describe(value)}")
        if prefix.host_bits:
            raise RefusedError(
                f"is {_describe(value)}, which has bits beyond its prefix length", f"write {prefix.network}"
            )
        return prefix.network

    return check


def _text(value: object, noun: str) -> str:
    if isinstance(value, str):
        return value
    raise RefusedError(f"must be {noun}, not {_describe(value)}")


def _hint(bad: inet.BadAddress, value: object, slash: str = "") -> str:
    if slash and isinstance(value, str) and slash in value:
        return "an address without a prefix length"
    return f"it {bad.fault}" + (f"; {bad.hint}" if bad.hint else "")


KINDS: Mapping[str, Callable[[Kind, object], Canonical]] = {
    "integer": _integer,
    "boolean": _boolean,
    "enumeration": _enumeration,
    "identifier": _identifier,
    "ipv4": _address(32),
    "ipv6": _address(128),
    "address": _address(0),
    "ipv4-prefix": _prefix(32),
    "ipv6-prefix": _prefix(128),
    "prefix": _prefix(0),
    "mac": _mac,
    "ifindex": _ifindex,
}
"""By name, what brings a value of each kind into its form, or raises RefusedError."""

STRUCTURAL = frozenset({"integer", "boolean", "enumeration", "identifier"})
"""Kinds that may change code; the others are only ever values."""

VALUES = frozenset(KINDS) - {"enumeration", "identifier"}
"""Kinds that may be values."""

ENTRIES = VALUES - {"boolean", "ifindex"}
"""Kinds that may be entries of a map."""

MOST_ENTRIES = 1 << 20
"""How many entries a spec can give to a map; how many a map takes is the template's to say."""
