"""What a template can say, beside plain C and its structure parameters: programs, maps, values, facts, lists.

Each word gives the C that the engine needs for it, and notes what it uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from nkform.bpf import contents as filling
from nkform.bpf import values as data
from nkform.bpf.facts import Facts
from nkform.bpf.parameters import MAP, STRUCTURE, VALUE, Canonical, Parameter
from nkform.bpf.template import Template
from nkform.bpf.values import Field, Form
from nkform.dataclass import dataclass
from nkform.entries import LAYOUTS
from nkform.entries import Layout as KeyLayout

if TYPE_CHECKING:
    from nkform.bpf.sandbox import C, Parts

FACT_PREFIX = "device_"

_CTYPE = re.compile(r"(struct )?[A-Za-z_][A-Za-z0-9_]{0,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,14}")

MAP_TYPES = ("array", "percpu_array", "hash", "percpu_hash", "lru_hash", "lru_percpu_hash", "lpm_trie")

_FACT_FORMS = {"ifindex": data.U32, "peer_ifindex": data.U32, "mtu": data.U32, "mac": data.MAC, "peer_mac": data.MAC}


def function_name(template: Template) -> str:
    return f"nk_{template.name}"


@dataclass(frozen=True, slots=True)
class Used:
    """A value that the text uses: a fact, or a parameter (of one family, or its count)."""

    field: Field
    parameter: Parameter | None = None
    fact: str = ""
    family: str = ""
    counted: bool = False


def listed(used: Used) -> list[Any]:
    """A value that the text uses, as plain data."""
    parameter = used.parameter.name if used.parameter else ""
    return [used.field.name, used.field.capacity, parameter, used.fact, used.family, used.counted]


def unlisted(template: Template, data_of_used: list[Any]) -> Used:
    """The value of a template that plain data stand for."""
    name, capacity, parameter_name, fact, family, counted = data_of_used
    if fact:
        return Used(Field(name, _FACT_FORMS[fact], capacity), fact=fact)
    parameter = template.parameters[parameter_name]
    form = data.U32 if counted else dict(data.families(parameter.kind)).get(family) or data.form_of(parameter.kind)
    return Used(Field(name, form, capacity), parameter, family=family, counted=counted)


class Vocabulary:
    """The words for one program: what they need, and what they noted."""

    def __init__(self, template: Template, params: Mapping[str, Any], facts: Facts, engine: str) -> None:
        self.template = template
        self.params = params
        self.facts = facts
        self.engine = engine
        self.used: dict[str, Used] = {}
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
        words = {name: getattr(self.facts, name) for name in ("mode", "kind", "hook", "framing")}
        return {**structure, **said, **words}

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
        said: C | Parts = self._expression(Used(Field(name, data.form_of(parameter.kind)), parameter), "")
        return said

    def fact(self, name: str) -> C | Parts:
        """A fact of the device."""
        form = _FACT_FORMS.get(name)
        if form is None:
            raise _complaint(f"there is no single fact {name!r}; there are {', '.join(_FACT_FORMS)}")
        said: C | Parts = self._expression(Used(Field(FACT_PREFIX + name, form), fact=name), "")
        return said

    def count(self, name: str, family: str = "") -> C:
        """How many items a list has."""
        from nkform.bpf.sandbox import C

        parameter = self._parameter(name, is_list=True)
        items, _ = self._items(parameter, family)
        if self.engine == "bcc":
            return C(len(items))
        used = Used(Field(_field_name(name, family) + "_count", data.U32), parameter, family=family, counted=True)
        return C(self._expression(used, ""))

    def each(self, name: str, family: str = "", *, caller: Callable[[Any], str]) -> C:
        """The text within `{% call(item) each(NAME) %}`, for each item of a list."""
        from nkform.bpf.sandbox import C

        parameter = self._parameter(name, is_list=True)
        items, form = self._items(parameter, family)
        field_name = _field_name(name, family)
        capacity = data.capacity_for(len(items))
        used = Used(Field(field_name, form, capacity), parameter, family=family)
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

    def _note(self, used: Used) -> None:
        if self.used.setdefault(used.field.name, used) != used:
            raise _complaint(f"two values would be called {used.field.name}: give one of the parameters another name")

    def _expression(self, used: Used, index: str, place: int | None = None) -> Any:
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
