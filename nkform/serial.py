"""Objects of the model and of plans as JSON data, and back. Pure.

Writing leans on the JSON encoder; reading goes by the declared types of the fields, so that nothing can come out that
the model does not know. Objects carry their class in `type`; readers ignore keys that they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from nkform.dataclass import MISSING, Field, fields, is_dataclass

T = TypeVar("T")

Reader = Callable[[Any], Any]


def dumps(value: object, indent: int | None = None) -> str:
    """JSON text of anything that is made of the model's classes, mappings, sequences and plain values."""
    separators = (",", ":") if indent is None else None
    return json.dumps(value, default=_parts, indent=indent, separators=separators)


def read(kind: type[T], data: object) -> T:
    """An object of a declared type, from JSON data. Raises ValueError where the data is none."""
    return cast(T, _reader(kind)(data))


def read_any(kinds: object, data: object) -> Any:
    """The same for a union of classes. Raises ValueError."""
    return _reader(kinds)(data)


def _parts(value: Any) -> dict[str, Any]:
    """What the encoder cannot write by itself."""
    if isinstance(value, Mapping):
        return dict(value)
    if not _is_class(value):
        raise TypeError(f"no object of the model: {type(value).__name__}")
    kind: Any = type(value)
    return {"type": type(value).__name__, **{name: getattr(value, name) for name in _names(kind)}}


@cache
def _names(kind: Hashable) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cast(Any, kind)))


def _reader(kind: Any) -> Reader:
    """What reads values of a type."""
    return _made(kind)


@cache
def _made(kind: Hashable) -> Reader:
    return _make(kind)


def _make(kind: Any) -> Reader:
    if kind is Any or kind is object:
        return lambda data: data
    if _is_class(kind):
        return _class(kind)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return _union(arguments)
    if origin is Literal:
        return _checked(lambda data: data in arguments, str(kind))
    if origin is tuple:
        return _tuple(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(arguments[1])
    if kind in (str, int, bool, float, NoneType):
        return _checked(lambda data: type(data) is kind or (kind is float and type(data) is int), kind.__name__)
    raise TypeError(f"no type of the model: {kind}")


def _checked(fits: Callable[[Any], bool], said: str) -> Reader:
    def reader(data: Any) -> Any:
        if not fits(data):
            raise ValueError(f"expected {said}, found {data!r:.60}")
        return data

    return reader


def _class(kind: Any) -> Reader:
    hints = get_type_hints(kind)
    needed = {f.name for f in fields(kind) if _needed(f)}
    readers: dict[str, Reader] = {}

    def reader(data: Any) -> Any:
        if not isinstance(data, dict) or data.get("type") != kind.__name__:
            raise ValueError(f"expected a {kind.__name__}, found {data!r:.60}")
        if not readers:  # filled late: types refer to themselves and to one another
            readers.update({name: _reader(hints[name]) for name in _names(kind)})
        if missing := needed - data.keys():
            raise ValueError(f"a {kind.__name__} without {', '.join(sorted(missing))}")
        return kind(**{name: readers[name](data[name]) for name in readers if name in data})

    return reader


def _is_class(kind: object) -> bool:
    return is_dataclass(kind)


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _union(kinds: tuple[Any, ...]) -> Reader:
    """Objects go by their `type`, all else by the first that takes it."""
    classes: dict[str, Any] = {kind.__name__: kind for kind in kinds if _is_class(kind)}
    others = [kind for kind in kinds if not _is_class(kind)]

    def reader(data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") in classes:
            return _reader(classes[data["type"]])(data)
        for kind in others:
            try:
                return _reader(kind)(data)
            except ValueError:
                continue
        raise ValueError(f"expected one of {', '.join([*classes, *map(str, others)])}, found {data!r:.60}")

    return reader


def _tuple(arguments: tuple[Any, ...]) -> Reader:
    every = arguments[0] if len(arguments) == 2 and arguments[1] is Ellipsis else None

    def reader(data: Any) -> Any:
        if not isinstance(data, list) or (every is None and len(data) != len(arguments)):
            raise ValueError(f"expected a list, found {data!r:.60}")
        if every is not None:
            one = _reader(every)
            return tuple(one(item) for item in data)
        return tuple(_reader(kind)(item) for kind, item in zip(arguments, data, strict=True))

    return reader


def _mapping(value: Any) -> Reader:
    def reader(data: Any) -> Any:
        if not isinstance(data, dict):
            raise ValueError(f"expected a mapping, found {data!r:.60}")
        one = _reader(value)
        return {str(key): one(item) for key, item in data.items()}

    return reader


def schema(kind: object, definitions: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of what `dumps` writes of a type; classes are put into `definitions`."""
    if kind is Any or kind is object:
        return {}
    if _is_class(kind):
        return _class_schema(kind, definitions)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return {"anyOf": [schema(one, definitions) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple and arguments[1:] == (Ellipsis,):
        return {"type": "array", "items": schema(arguments[0], definitions)}
    if origin is tuple:
        several = [schema(one, definitions) for one in arguments]
        return {"type": "array", "prefixItems": several, "minItems": len(several), "maxItems": len(several)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": schema(arguments[1], definitions)}
    return {"type": _JSON_TYPES[kind]}


_JSON_TYPES: Mapping[object, str] = {
    str: "string", int: "integer", bool: "boolean", float: "number", NoneType: "null",
}  # fmt: skip


def _class_schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    name = kind.__name__
    if name not in definitions:
        definitions[name] = {}  # a class may refer to itself
        hints = get_type_hints(kind)
        properties = {field: schema(hints[field], definitions) for field in _names(kind)}
        said = (kind.__doc__ or "").split("\n\n")[0]
        definitions[name] = {
            "type": "object",
            "properties": {"type": {"const": name}, **properties},
            "required": ["type", *properties],
            **({} if said.startswith(f"{name}(") or not said else {"description": " ".join(said.split())}),
        }
    return {"$ref": f"#/$defs/{name}"}
