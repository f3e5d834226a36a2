"""The standard library's data classes, made late: what a run does not use costs it next to nothing. Pure.

A start of nkform declares a hundred classes and makes objects of a third of them. The standard library writes and
compiles up to seven methods for each, which took a third of a short command's time, and it loads `inspect` to do so.
Here the methods that can be alike are shared, and `__init__` is compiled when some objects have been made. To a type
checker, and to `dataclasses.replace`, `fields` and `asdict`, these are data classes as any other.

It takes what nkform uses: `frozen` and `slots`; defaults and factories; `compare` and `repr` of a field.
"""

from __future__ import annotations

from operator import attrgetter

__all__ = ["MISSING", "Field", "dataclass", "field", "fields", "is_dataclass", "replace"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass, replace
else:

    class MISSING:
        """What stands for a default that is not there."""

    class Field:
        """A field of a class: what the standard library's `Field` of the same name has, as far as it is used."""

        __slots__ = ("compare", "default", "default_factory", "name", "repr")

        def __init__(self, default, default_factory, compare, repr):
            self.name = ""
            self.default = default
            self.default_factory = default_factory
            self.compare = compare
            self.repr = repr

    def field(*, default=MISSING, default_factory=MISSING, compare=True, repr=True):
        """Says more of a field than its default."""
        return Field(default, default_factory, compare, repr)

    def dataclass(kind=None, *, frozen=False, slots=False):
        """Makes a data class of a class, as the standard library's decorator does."""
        return _made(kind, frozen, slots) if kind else lambda kind: _made(kind, frozen, slots)

    def fields(kind):
        """The fields of a class or an object, in order."""
        return kind.__record_fields__

    def is_dataclass(kind):
        """Whether a class or an object is one of these."""
        return hasattr(kind, "__record_fields__")

    def replace(value, /, **changes):
        """An object that differs from another in some fields."""
        kind = value.__class__
        return kind(**{**{each.name: getattr(value, each.name) for each in kind.__record_fields__}, **changes})

    def _made(kind, frozen, slots):
        inside = dict(kind.__dict__)
        known = tuple(_field(name, inside) for name in inside.get("__annotations__", ()))
        shared = {
            "__record_fields__": known,
            "__record_key__": attrgetter(*([each.name for each in known if each.compare] or ["__class__"])),
            "__dataclass_fields__": _Standard(),
            "__match_args__": tuple(each.name for each in known),
            "__repr__": _repr,
            "__eq__": _equal,
            "__hash__": _hash if frozen else None,
        }
        if frozen:
            shared |= {"__setattr__": _refuse_set, "__delattr__": _refuse_delete}
        if slots:  # they can only be given to a class when it is made
            inside = {name: value for name, value in inside.items() if name not in ("__dict__", "__weakref__")}
            inside |= {"__slots__": shared["__match_args__"], "__qualname__": kind.__qualname__}
            kind = type(kind.__name__, kind.__bases__, {**shared, **inside})
        else:
            for each in known:
                if each.default is MISSING and each.name in kind.__dict__:
                    delattr(kind, each.name)
            for name, value in shared.items():
                setattr(kind, name, value)
        kind.__init__ = _first(kind, frozen, slots)
        return kind

    UNCOMPILED = 12
    """To compile an `__init__` takes as long as to make so many objects without."""

    def _field(name, inside):
        """A field, by what stands under its name in the class, which it is taken out of."""
        default = inside.pop(name, MISSING)
        made = default if isinstance(default, Field) else Field(default, MISSING, True, True)
        made.name = name
        return made

    def _first(kind, frozen, slots):
        """An `__init__` for the first objects, of a class that may have no more, which puts the compiled one in its
        place."""
        left = UNCOMPILED

        def __init__(self, *values, **named):  # noqa: N807
            nonlocal left
            left -= 1
            whole = _whole(kind.__record_fields__, values, named) if left >= 0 else None
            if whole is None:  # or these are not the arguments that it takes, which the compiled one says best
                kind.__init__ = _initializer(kind, frozen, slots)
                kind.__init__(self, *values, **named)
                return
            if frozen and not slots:
                self.__dict__.update(whole)
            else:
                for name, value in whole.items():
                    object.__setattr__(self, name, value)
            if hasattr(kind, "__post_init__"):
                self.__post_init__()

        return __init__

    def _whole(known, values, named):
        """The values of all fields, by name; None where one is missing or there is one too many."""
        if len(values) > len(known):
            return None
        whole, taken = {}, 0
        for number, each in enumerate(known):
            name = each.name
            if name in named:
                if number < len(values):
                    return None
                whole[name] = named[name]
                taken += 1
            elif number < len(values):
                whole[name] = values[number]
            elif each.default_factory is not MISSING:
                whole[name] = each.default_factory()
            elif each.default is not MISSING:
                whole[name] = each.default
            else:
                return None
        return whole if taken == len(named) else None

    def _initializer(kind, frozen, slots):
        """The compiled `__init__`. A frozen class refuses assignment: its slots are set through their descriptors."""
        inside = {"MISSING": MISSING}
        parameters, lines = ["self"], []
        for each in kind.__record_fields__:
            name, value = each.name, each.name
            if each.default_factory is not MISSING:
                inside[f"make_{name}"] = each.default_factory
                value = f"make_{name}() if {name} is MISSING else {name}"
                parameters.append(f"{name}=MISSING")
            elif each.default is not MISSING:
                inside[f"default_{name}"] = each.default
                parameters.append(f"{name}=default_{name}")
            else:
                parameters.append(name)
            if not frozen:
                lines.append(f"self.{name} = {value}")
            elif slots:
                inside[f"set_{name}"] = kind.__dict__[name].__set__
                lines.append(f"set_{name}(self, {value})")
            else:
                lines.append(f"self.__dict__[{name!r}] = {value}")
        if hasattr(kind, "__post_init__"):
            lines.append("self.__post_init__()")
        body = "\n ".join(lines or ["pass"])
        exec(f"def __init__({', '.join(parameters)}):\n {body}", inside)
        made = inside["__init__"]
        made.__qualname__ = f"{kind.__qualname__}.__init__"
        return made

    def _repr(self):
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in self.__record_fields__ if each.repr)
        return f"{self.__class__.__qualname__}({', '.join(shown)})"

    def _equal(self, other):
        if other.__class__ is not self.__class__:
            return NotImplemented
        key = self.__record_key__
        return key(self) == key(other)

    def _hash(self):
        return hash(self.__record_key__(self))

    def _refuse_set(_, name, __):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def _refuse_delete(_, name):
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")

    class _Standard:
        """What the standard library knows a data class by, made when it asks."""

        def __get__(self, _, kind):
            import dataclasses

            def told(each):
                said = {"compare": each.compare, "repr": each.repr}
                if each.default is not MISSING:
                    said["default"] = each.default
                if each.default_factory is not MISSING:
                    said["default_factory"] = each.default_factory
                return each.name, kind.__annotations__[each.name], dataclasses.field(**said)

            made = dataclasses.make_dataclass(kind.__name__, [told(each) for each in kind.__record_fields__])
            kind.__dataclass_fields__ = made.__dataclass_fields__
            return kind.__dataclass_fields__
