"""A template, its parameters and the facts of a device → C. Pure, but for the files that templates are.

What is rendered is the *structure*: text that is alike for all devices of one shape, and rendered once for them. The
values of each device stay beside it: as data that is set when the program is loaded (clang), or as macros in front of
the text (bcc, which has no read-only data).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from nkform.bpf import contents as filling
from nkform.bpf import values as data
from nkform.bpf.catalogue import library
from nkform.bpf.facts import IDENTITY, Facts
from nkform.bpf.parameters import MAP, STRUCTURE, VALUE, Canonical, FactDefault, Parameter
from nkform.bpf.template import PROGRAM, Template
from nkform.bpf.values import Field, Form, Layout, Values
from nkform.entries import LAYOUTS
from nkform.entries import Layout as KeyLayout
from nkform.model import Contents
from nkform.problem import NkformError, Problem

if TYPE_CHECKING:
    from nkform.bpf.sandbox import C, Parts, Place

ABI = 1
"""Raised when what a compiled object and this program agree on changes: no older object is taken then."""

ENGINES = ("clang", "bcc")
FACT_PREFIX = "device_"
DIGEST_DIGITS = 16

_CTYPE = re.compile(r"(struct )?[A-Za-z_][A-Za-z0-9_]{0,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,14}")

MAP_TYPES = ("array", "percpu_array", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "lpm_trie")

_FACT_FORMS = {"ifindex": data.U32, "peer_ifindex": data.U32, "mtu": data.U32, "mac": data.MAC, "peer_mac": data.MAC}


@dataclass(frozen=True)
class Rendered:
    """A program for one device.

    `source` is the C. `structure` is the SHA-256 of all that the compiled object depends on, values not included.
    `values` are the device's, by field; those named in `unknown` are facts that nobody knows yet. `identity` is what of
    them enters the digest. `contents` is what the program's maps shall hold, as far as parameters say, and `capacities`
    how many entries each of these maps takes. `places` are the template's line for each line of the source, where it
    has one.
    """

    template: Template
    engine: str
    hook: str
    mode: str
    source: str
    structure: str
    layout: Layout
    values: Values
    identity: Values
    unknown: tuple[str, ...]
    places: tuple[Place | None, ...] = field(repr=False)
    contents: Contents = field(default_factory=dict)
    capacities: Mapping[str, int] = field(default_factory=dict)

    @property
    def function(self) -> str:
        """The program's function in C."""
        return function_name(self.template)

    @property
    def name(self) -> str:
        """What the kernel calls the program."""
        return self.template.name[:15]

    @property
    def license(self) -> str:
        return self.template.license

    def packed(self) -> bytes:
        """The values as read-only data. Raises NkformError if one is not known."""
        if self.unknown:
            missing = ", ".join(name.removeprefix(FACT_PREFIX) for name in self.unknown)
            raise NkformError(
                Problem("NK0721", f"{self.template.name} cannot be loaded: the device's {missing} is not known")
            )
        return self.layout.pack(self.values)


def digest(rendered: Rendered) -> str:
    """What tells this program from any other: of its structure, its values, its hook and its engine.

    Ifindexes do not count: a device that is made anew gets others, and its program is still the same.
    """
    said = json.dumps(
        [ABI, rendered.engine, rendered.hook, rendered.structure, rendered.identity], sort_keys=True, default=list
    )
    return hashlib.sha256(said.encode()).hexdigest()[:DIGEST_DIGITS]


def function_name(template: Template) -> str:
    return f"nk_{template.name}"


class Renderer:
    """Renders programs, each structure once."""

    def __init__(self) -> None:
        self._environments: dict[str, Any] = {}
        self._bodies: dict[tuple[object, ...], _Body] = {}

    def render(self, template: Template, params: Mapping[str, Canonical], facts: Facts, engine: str) -> Rendered:
        """The C of a program. `params` in their one form (template.check). Raises NkformError."""
        assert engine in ENGINES, engine
        complete = _complete(template, params, facts)
        shape = tuple(
            (name, complete[name] if p.role == STRUCTURE else _shape(p, complete[name], engine))
            for name, p in template.parameters.items()
        )
        key = (template.folder, template.source, engine, facts.kind, facts.mode, facts.hook, shape)
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = self._body(template, complete, facts, engine)
        values, identity, unknown = body.values_of(complete, facts)
        front = _values_in_c(body.layout, values, unknown) if engine == "bcc" else []
        head = len(body.head)
        return Rendered(
            template=template,
            engine=engine,
            hook=facts.hook,
            mode=facts.mode,
            source="\n".join([*body.head, *front, *body.lines, ""]),
            structure=body.structure,
            layout=body.layout,
            values=values,
            identity=identity,
            unknown=unknown,
            places=((None,) * (head + len(front)) + body.places) if front else body.all_places,
            contents=filling.of_all(template.parameters, complete),
            capacities=body.capacities,
        )

    def _body(self, template: Template, params: Mapping[str, Canonical], facts: Facts, engine: str) -> _Body:
        from nkform.bpf import sandbox

        key = str(template.folder)
        if key not in self._environments:
            self._environments[key] = sandbox.environment(template.folder, library())
        vocabulary = _Vocabulary(template, params, facts, engine)
        lines, places = sandbox.run(self._environments[key], PROGRAM, vocabulary.context())
        while lines and not lines[-1]:
            lines.pop()
        _all_declared(template, vocabulary.capacities)
        layout = data.arrange([used.field for used in vocabulary.used.values()])
        head = _head(template, engine, layout)
        structure = hashlib.sha256()
        for part in (str(ABI), engine, _library_digest(), *head, *lines, *sorted(map(str, template.headers.items()))):
            structure.update(part.encode() + b"\0")
        return _Body(
            head, lines, tuple(places[: len(lines)]), layout, vocabulary.used, structure.hexdigest(),
            vocabulary.capacities,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Used:
    """A value that the text uses: a fact, or a parameter (of one family, or its count)."""

    field: Field
    parameter: Parameter | None = None
    fact: str = ""
    family: str = ""
    counted: bool = False


@dataclass(frozen=True)
class _Body:
    """A rendered structure: `head` is what stands before the values."""

    head: list[str]
    lines: list[str]
    places: tuple[Place, ...]
    layout: Layout
    used: Mapping[str, _Used]
    structure: str
    capacities: Mapping[str, int]

    @property
    def all_places(self) -> tuple[Place | None, ...]:
        return (None,) * len(self.head) + self.places

    def values_of(self, params: Mapping[str, Canonical], facts: Facts) -> tuple[Values, Values, tuple[str, ...]]:
        """All values of a device, those that enter the digest, and the names of those that are not known."""
        values: dict[str, Canonical] = {}
        identity: dict[str, Canonical] = {}
        unknown: list[str] = []
        for name, used in self.used.items():
            if used.fact:
                found: Any = getattr(facts, used.fact)
                if used.fact not in IDENTITY:
                    identity[name] = found
            else:
                assert used.parameter is not None
                found = params[used.parameter.name]
                if used.family:
                    found = data.of_family(found, used.family)
                if used.counted:
                    found = len(found)
                identity[name] = found
                if used.parameter.kind.name == "ifindex":
                    found = _resolved(found, facts)
            if found is None or (isinstance(found, tuple) and None in found):
                unknown.append(name)
            else:
                values[name] = found
        return values, identity, tuple(unknown)


def _resolved(found: Any, facts: Facts) -> Any:
    if isinstance(found, tuple):
        return tuple(_resolved(item, facts) for item in found)
    return facts.ifindexes.get(found) if isinstance(found, str) else found


def contents_of(template: Template, params: Mapping[str, Canonical], facts: Facts) -> Contents:
    """What the maps of a program shall hold; that takes no rendering."""
    return filling.of_all(template.parameters, _complete(template, params, facts))


def _all_declared(template: Template, declared: Collection[str]) -> None:
    """Raises NkformError where a parameter fills a map that the program does not have: nobody would heed it."""
    for parameter in template.parameters.values():
        for family in filling.names(parameter) if parameter.role == MAP else ():
            if filling.map_name(parameter, family) not in declared:
                said = f'"{parameter.name}", "{family}"' if family else f'"{parameter.name}"'
                message = f"the template {template.name} does not declare the map of `{parameter.name}`"
                raise NkformError(Problem("NK0722", message, hint=f"write {{{{ entries({said}, most=…) }}}}"))


def _complete(template: Template, params: Mapping[str, Canonical], facts: Facts) -> dict[str, Any]:
    """The parameters with their defaults; None for a fact that is not known."""
    complete: dict[str, Any] = {}
    for name, parameter in template.parameters.items():
        if name in params:
            complete[name] = params[name]
        elif isinstance(parameter.default, FactDefault):
            complete[name] = _from_fact(parameter, getattr(facts, parameter.default.fact))
        else:
            complete[name] = parameter.default
    return complete


def _from_fact(parameter: Parameter, fact: Any) -> Any:
    """A fact as a parameter's value: of addresses only what the parameter's kind asks for."""
    if not isinstance(fact, tuple):
        return (fact,) if parameter.most is not None and fact is not None else fact
    wanted = {"ipv4": ":", "ipv4-prefix": ":"}.get(parameter.kind.name)
    found = []
    for text in fact:
        address = text.partition("/")[0]
        is_ipv6 = ":" in address
        if parameter.kind.name.startswith("ipv6") and not is_ipv6:
            continue
        if wanted and is_ipv6:
            continue
        host = f"{address}/{128 if is_ipv6 else 32}"
        found.append(host if parameter.kind.name.endswith("prefix") else address)
    return tuple(dict.fromkeys(found))


def _shape(parameter: Parameter, value: Any, engine: str) -> object:
    """What of a value the text depends on: of a list, how much room it needs, or with bcc how many items it has."""
    if parameter.most is None or value is None or parameter.role == MAP:
        return None
    families = [family for family, _ in data.families(parameter.kind)]
    counts = [len(data.of_family(value, family)) for family in families] if families else [len(value)]
    return tuple(counts if engine == "bcc" else map(data.capacity_for, counts))


def _head(template: Template, engine: str, layout: Layout) -> list[str]:
    lines = [f"/* {template.name}: {template.purpose.replace('*/', '* /')} */", '#include "nkform.h"', ""]
    if engine == "bcc":
        return lines
    if layout.fields:
        lines += [*data.declaration(layout), ""]
    return [*lines, f'char nk_license[] __attribute__((section("license"), used)) = "{template.license}";', ""]


def _values_in_c(layout: Layout, values: Values, unknown: tuple[str, ...]) -> list[str]:
    known = Layout(tuple(f for f in layout.fields if f.name not in unknown))
    lines = data.definitions(known, values)
    lines += [f"#error the value {name} is not known yet" for name in unknown]
    return [*lines, ""] if lines else []


@cache
def _library_digest() -> str:
    """SHA-256 of all headers that templates share."""
    total = hashlib.sha256()
    base = library()
    for file in sorted(base.rglob("*.h")):
        total.update(str(file.relative_to(base)).encode() + b"\0" + file.read_bytes() + b"\0")
    return total.hexdigest()


class _Vocabulary:
    """What a template can say, beside its structure parameters; notes which values it uses."""

    def __init__(self, template: Template, params: Mapping[str, Any], facts: Facts, engine: str) -> None:
        self.template = template
        self.params = params
        self.facts = facts
        self.engine = engine
        self.used: dict[str, _Used] = {}
        self.maps: set[str] = set()
        self.capacities: dict[str, int] = {}

    def context(self) -> dict[str, Any]:
        structure = {name: self.params[name] for name, p in self.template.parameters.items() if p.role == STRUCTURE}
        said: dict[str, Callable[..., Any]] = {
            "program": self.program,
            "map": self.map,
            "lookup": self.lookup,
            "update": self.update,
            "delete": self.delete,
            "entries": self.entries,
            "has": self.has,
            "value": self.value,
            "each": self.each,
            "count": self.count,
            "fact": self.fact,
        }
        return {**structure, **said, "mode": self.facts.mode, "kind": self.facts.kind, "hook": self.facts.hook}

    # - programs and maps -

    def program(self) -> C:
        """The head of the program's function; its packet is called `skb`."""
        from nkform.bpf.sandbox import C

        head = f"int {function_name(self.template)}(struct __sk_buff *skb)"
        return C(head if self.engine == "bcc" else f'__attribute__((section("tc"), used)) {head}')

    def map(self, name: str, type: str, key: str, value: str, entries: int) -> C:
        """Declares a map."""
        from nkform.bpf.sandbox import C

        if type not in MAP_TYPES:
            raise _complaint(f"there is no type of map {type!r}; there are {', '.join(MAP_TYPES)}")
        if not _NAME.fullmatch(name) or name in self.maps:
            raise _complaint(f"{name!r} cannot be the name of a map, or is one already")
        if not _CTYPE.fullmatch(key) or not _CTYPE.fullmatch(value):
            raise _complaint("key and value of a map are names of types in C")
        if not 0 < entries < 2**32:
            raise _complaint("a map has at least one entry")
        self.maps.add(name)
        flags = 1 if type == "lpm_trie" else 0  # BPF_F_NO_PREALLOC, which the kernel insists on there
        if self.engine == "bcc":
            return C(f'BPF_F_TABLE("{type}", {key}, {value}, {name}, {int(entries)}, {flags});')
        lines = [
            "struct {",
            f"\t__uint(type, BPF_MAP_TYPE_{type.upper()});",
            f"\t__uint(max_entries, {int(entries)});",
            *([f"\t__uint(map_flags, {flags});"] if flags else []),
            f"\t__type(key, {key});",
            f"\t__type(value, {value});",
            f'}} {name} __attribute__((section(".maps"), used));',
        ]
        return C("\n".join(lines))

    def lookup(self, name: str, key: str) -> C:
        """A pointer to a key's value, or NULL. `key` is a pointer in C."""
        return self._access(name, f"bpf_map_lookup_elem(&{name}, {key})", f"{name}.lookup({key})")

    def update(self, name: str, key: str, value: str) -> C:
        """Sets a key's value, whether it is there or not. `key` and `value` are pointers in C."""
        return self._access(
            name, f"bpf_map_update_elem(&{name}, {key}, {value}, BPF_ANY)", f"{name}.update({key}, {value})"
        )

    def delete(self, name: str, key: str) -> C:
        """Removes a key. `key` is a pointer in C."""
        return self._access(name, f"bpf_map_delete_elem(&{name}, {key})", f"{name}.delete({key})")

    def _access(self, name: str, clang: str, bcc: str) -> C:
        from nkform.bpf.sandbox import C

        if name not in self.maps:
            raise _complaint(f"there is no map {name!r} before this line")
        return C(bcc if self.engine == "bcc" else clang)

    # - maps that parameters fill -

    def entries(self, name: str, family: str = "", *, most: int) -> C:
        """Declares the map of a parameter's entries, or of those of one family.

        It has room for twice the most: while one set of entries takes the place of another, both are in it.
        """
        from nkform.bpf.sandbox import C

        label, layout = self._filled(name, family)
        declared = self.map(label, layout.map_type, layout.ctype, "__u8", 2 * most)
        self.capacities[label] = most
        # What fills the map knows the key's size from nkform.entries.
        said = f"{layout.ctype} is not what nkform fills {label} with"
        return C(f'{declared}\n_Static_assert(sizeof({layout.ctype}) == {layout.size}, "{said}");')

    def has(self, name: str, key: str, family: str = "") -> C:
        """Whether a key is among a parameter's entries, or in a trie lies in one of them. `key` is a pointer in C."""
        from nkform.bpf.sandbox import C

        return C(f"({self.lookup(self._filled(name, family)[0], key)} != NULL)")

    def _filled(self, name: str, family: str) -> tuple[str, KeyLayout]:
        parameter = self.template.parameters.get(name)
        if parameter is None or parameter.role != MAP:
            raise _complaint(f"the manifest has no parameter {name!r} that fills a map")
        if family not in filling.names(parameter):
            both = " or ".join(each for each in filling.names(parameter) if each)
            raise _complaint(f"`{name}` holds " + (f"both families: say which, {both}" if both else "one family only"))
        return filling.map_name(parameter, family), LAYOUTS[filling.layout(parameter.kind, family)]

    # - values -

    def value(self, name: str) -> C | Parts:
        """A single value parameter."""
        parameter = self._parameter(name, is_list=False)
        said: C | Parts = self._expression(_Used(Field(name, data.form_of(parameter.kind)), parameter), "")
        return said

    def fact(self, name: str) -> C | Parts:
        """A fact of the device."""
        form = _FACT_FORMS.get(name)
        if form is None:
            raise _complaint(f"there is no single fact {name!r}; there are {', '.join(_FACT_FORMS)}")
        said: C | Parts = self._expression(_Used(Field(FACT_PREFIX + name, form), fact=name), "")
        return said

    def count(self, name: str, family: str = "") -> C:
        """How many items a list has."""
        from nkform.bpf.sandbox import C

        parameter = self._parameter(name, is_list=True)
        items, _ = self._items(parameter, family)
        if self.engine == "bcc":
            return C(len(items))
        used = _Used(Field(_field_name(name, family) + "_count", data.U32), parameter, family=family, counted=True)
        return C(self._expression(used, ""))

    def each(self, name: str, family: str = "", *, caller: Callable[[Any], str]) -> C:
        """The text within `{% call(item) each(NAME) %}`, for each item of a list."""
        from nkform.bpf.sandbox import C

        parameter = self._parameter(name, is_list=True)
        items, form = self._items(parameter, family)
        field_name = _field_name(name, family)
        capacity = data.capacity_for(len(items))
        used = _Used(Field(field_name, form, capacity), parameter, family=family)
        if self.engine == "bcc":
            self._note(used)
            copies = [_indented(caller(self._expression(used, "", place))) for place in range(len(items))]
            return C("".join(f"\tdo {{\n{copy}\t}} while (0);\n" for copy in copies))
        count = self.count(name, family)
        index = f"nk_{field_name}"
        body = _indented(caller(self._expression(used, f"[{index}]")))
        return C(
            f"\tconst __u32 {index}_count = {count};\n"
            f'\t_Pragma("clang loop unroll(disable)")\n'
            f"\tfor (__u32 {index} = 0; {index} < {capacity} && {index} < {index}_count; {index}++) {{\n{body}\t}}\n"
        )

    def _items(self, parameter: Parameter, family: str) -> tuple[tuple[Canonical, ...], Form]:
        both = dict(data.families(parameter.kind))
        if both and family not in both:
            raise _complaint(f"`{parameter.name}` holds both families: say which, {' or '.join(both)}")
        if family and not both:
            raise _complaint(f"`{parameter.name}` holds one family only")
        value = self.params[parameter.name]
        items = value if isinstance(value, tuple) else ()
        return (data.of_family(items, family), both[family]) if both else (items, data.form_of(parameter.kind))

    def _parameter(self, name: str, *, is_list: bool) -> Parameter:
        parameter = self.template.parameters.get(name)
        if parameter is None:
            raise _complaint(f"the manifest has no parameter {name!r}")
        if parameter.role != VALUE:
            instead = "use has()" if parameter.role == MAP else "use its name alone"
            raise _complaint(f"`{name}` is {parameter.role}: {instead}")
        if (parameter.most is not None) != is_list:
            raise _complaint(f"`{name}` is a list: use each()" if not is_list else f"`{name}` is no list: use value()")
        return parameter

    def _note(self, used: _Used) -> None:
        if self.used.setdefault(used.field.name, used) != used:
            raise _complaint(f"two values would be called {used.field.name}: give one of the parameters another name")

    def _expression(self, used: _Used, index: str, place: int | None = None) -> Any:
        from nkform.bpf.sandbox import expression

        self._note(used)
        name = used.field.name
        if self.engine == "bcc":
            base = data.macro(name, place)
            return expression(used.field.form, lambda p: data.part(base, p, of_macro=True), f"`{name}`")
        base = f"{data.STRUCT_NAME}.{name}{index}"
        return expression(used.field.form, lambda p: data.part(base, p, of_macro=False), f"`{name}`")


def _indented(text: str) -> str:
    """C, one step to the right; the marks of lines (sandbox.py) stay in front."""
    return re.sub("(?m)^((?:\x02[^\x03]*\x03)*)(?=[^\n\x02])", r"\1\t", text)


def _field_name(name: str, family: str) -> str:
    return f"{name}_{family}" if family else name


def _complaint(message: str) -> Exception:
    from jinja2 import TemplateError

    return TemplateError(message)
