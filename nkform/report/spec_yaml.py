"""A spec as YAML, as PyYAML writes it. Pure.

PyYAML makes a node of each value first and spends a third of `show` on it. Nearly all that a node's spec holds are
names, numbers, addresses and MAC addresses, in lines that are short enough: these are written here. An entry that has
anything else goes to PyYAML, which also says how all this is to look (tests/unit/test_spec_yaml_text.py compares).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

WIDTH = 110
"""Characters. PyYAML goes on in a further line where one of a flow collection is longer."""

_NUMBER = re.compile(r"([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+)$")

_WORD = re.compile(r"[A-Za-z_/][A-Za-z0-9_./-]*")
_NO_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})
"""In whatever case: what YAML 1.1 takes for something else than text (yaml.org/type/bool.html, null.html)."""
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?")
_MAC = re.compile(r"(?=[0-9:]*[a-f])(?:[0-9a-f]{2}:){5}[0-9a-f]{2}")
"""One without a letter may be a number in base 60 (yaml.org/type/int.html)."""
_WITH_COLONS = re.compile(r"(?=[^:]*:)[0-9a-f:.]+(?:/[0-9]{1,3})?")
"""What is quoted within a flow collection, whatever it is."""


class _UnusualError(Exception):
    """There is something that PyYAML is to write."""


def render(spec: Mapping[str, Any]) -> str:
    """The data of a spec as YAML."""
    writer = _Writer()
    return "".join(part for key, value in spec.items() for part in _entry(writer, key, value))


def _entry(writer: _Writer, key: str, value: Any) -> Iterator[str]:
    """An entry of the spec; the mappings in one that has many are written one by one."""
    if isinstance(value, dict) and value and all(isinstance(each, dict) for each in value.values()):
        yield f"{key}:\n"
        for name, each in value.items():
            try:
                yield "\n".join(writer.block({name: each}, "  ")) + "\n"
            except _UnusualError:
                yield _by_pyyaml({key: {name: each}}).partition("\n")[2]
        return
    try:
        yield "\n".join(writer.block({key: value}, "")) + "\n"
    except _UnusualError:
        yield _by_pyyaml({key: value, "": {}}).removesuffix("'': {}\n")  # alone it could be one line in braces


def _by_pyyaml(data: Mapping[str, Any]) -> str:
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
        def ignore_aliases(self, _: object) -> bool:
            return True

    # YAML 1.2 takes some texts for numbers that PyYAML would not quote: 1e5, 0o17 (yaml.org/spec/1.2.2, 10.3.2).
    Dumper.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+.0123456789"))
    text: str = yaml.dump(data, Dumper=Dumper, sort_keys=False, default_flow_style=None, width=WIDTH)
    return text


class _Writer:
    """Writes what is usual; raises _UnusualError for all else."""

    def __init__(self) -> None:
        self._plain: dict[str, str] = {}
        self._within: dict[str, str] = {}

    def block(self, value: Mapping[str, Any], pad: str) -> Iterator[str]:
        """The lines of a mapping."""
        for key, each in value.items():
            name = f"{pad}{self._text(key)}:"
            if not isinstance(each, dict | list):
                yield f"{name} {self._scalar(each)}"
            elif _is_flow(each):
                yield self._short(f"{name} {self._flow(each)}")
            else:
                yield name
                yield from self.block(each, pad + "  ") if isinstance(each, dict) else self._items(each, pad)

    def _items(self, value: Sequence[Any], pad: str) -> Iterator[str]:
        for each in value:
            if not isinstance(each, dict | list):
                yield f"{pad}- {self._scalar(each)}"
            elif _is_flow(each):
                yield self._short(f"{pad}- {self._flow(each)}")
            elif isinstance(each, dict):
                first, *rest = self.block(each, pad + "  ")
                yield f"{pad}- {first.lstrip()}"
                yield from rest
            else:
                raise _UnusualError

    def _short(self, line: str) -> str:
        if len(line) > WIDTH:
            raise _UnusualError
        return line

    def _flow(self, value: Mapping[str, Any] | Sequence[Any]) -> str:
        if isinstance(value, dict):
            parts = [f"{self._text_within(key)}: {self._scalar_within(each)}" for key, each in value.items()]
            return f"{{{', '.join(parts)}}}"
        return f"[{', '.join([self._scalar_within(each) for each in value])}]"

    def _scalar(self, value: object) -> str:
        return self._text(value) if isinstance(value, str) else _number(value)

    def _scalar_within(self, value: object) -> str:
        return self._text_within(value) if isinstance(value, str) else _number(value)

    def _text(self, value: str) -> str:
        if (text := self._plain.get(value)) is None:
            if not _is_plain(value) and not _MAC.fullmatch(value):
                raise _UnusualError
            text = self._plain[value] = value
        return text

    def _text_within(self, value: str) -> str:
        """Text in a flow collection."""
        if (text := self._within.get(value)) is None:
            if _WITH_COLONS.fullmatch(value):
                text = f"'{value}'"
            elif _is_plain(value):
                text = value
            else:
                raise _UnusualError
            self._within[value] = text
        return text


def _is_plain(value: str) -> bool:
    """Whether a text is written as it is, wherever it stands."""
    word = _WORD.fullmatch(value)
    return value.lower() not in _NO_WORDS if word else _IPV4.fullmatch(value) is not None


def _is_flow(value: Collection[Any]) -> bool:
    """PyYAML puts what holds no collection into one line."""
    some = value.values() if isinstance(value, dict) else value
    return not any(isinstance(each, dict | list) for each in some)


def _number(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
    raise _UnusualError
