"""A template, its parameters and the facts of a device → C. Reads no files; templates run in a child, within limits.

What is rendered is the *structure*: text that is alike for all devices of one shape, and rendered once for them. The
values of each device stay beside it: as data that is set when the program is loaded (clang), or as macros in front of
the text (bcc, which has no read-only data).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from nkform.bpf import contents as filling
from nkform.bpf import values as data
from nkform.bpf.facts import IDENTITY, Facts
from nkform.bpf.parameters import MAP, STRUCTURE, Canonical, FactDefault, Parameter
from nkform.bpf.template import PROGRAM, Template
from nkform.bpf.texts import library_texts
from nkform.bpf.values import Layout, Values
from nkform.bpf.vocabulary import FACT_PREFIX, Used, Vocabulary, function_name, listed, unlisted
from nkform.dataclass import dataclass, field
from nkform.kernel.child import Answer, ChildError, Limits, Worker
from nkform.model import MapsByParam
from nkform.problem import NkformError, Position, Problem

if TYPE_CHECKING:
    from nkform.bpf.sandbox import Place

ABI = 1
"""Raised when what a compiled object and this program agree on changes: no older object is taken then."""

LIMITS = Limits(seconds=30, cpu=5, memory=256 << 20, output=64 << 20)
"""Of rendering one structure, which takes some milliseconds."""

ENGINES = ("clang", "bcc")
DIGEST_DIGITS = 16


@dataclass(frozen=True)
class Rendered:
    """A program for one device.

    `text` is the C, in parts (`source`). `structure` is the SHA-256 of all that the compiled object depends on, values
    not included. `values` are the device's, by field; those named in `unknown` are facts that nobody knows yet.
    `identity` is what of them enters the digest. `contents` is what the program's maps shall hold, as far as parameters
    say, and `capacities` how many entries each of these maps takes. `places` are the template's line for each line of
    the source, where it has one.
    """

    template: Template
    engine: str
    hook: str
    mode: str
    text: tuple[Sequence[str], ...] = field(repr=False)
    structure: str
    layout: Layout
    values: Values
    identity: Values
    unknown: tuple[str, ...]
    places: tuple[Place | None, ...] = field(repr=False)
    contents: MapsByParam = field(default_factory=dict)
    capacities: Mapping[str, int] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The C. Of a thousand programs of a structure one is compiled, so it is put together when it is asked for."""
        return "\n".join([*(line for part in self.text for line in part), ""])

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


class Renderer:
    """Renders programs, each structure once, in a child that is forked for the first. Close it.

    `templates` are those that are going to be rendered, as far as they are known.
    """

    def __init__(self, templates: Iterable[Template] = ()) -> None:
        self._templates = list(templates)
        self._numbers = {id(template): number for number, template in enumerate(self._templates)}
        self._environments: dict[int, Any] = {}
        """Of templates by number. The child's: this process renders nothing."""
        self._worker = Worker(self._serve, LIMITS, _load)
        self._bodies: dict[tuple[object, ...], _Body] = {}

    def begin(self) -> None:
        """Has the child load what it needs, while this process does something else."""
        self._worker.start()

    def close(self) -> None:
        self._worker.close()

    def render(self, template: Template, params: Mapping[str, Canonical], facts: Facts, engine: str) -> Rendered:
        """The C of a program. `params` in their one form (template.check). Raises NkformError."""
        assert engine in ENGINES, engine
        complete = _complete(template, params, facts)
        shape = tuple(
            (name, complete[name] if p.role == STRUCTURE else _shape(p, complete[name], engine))
            for name, p in template.parameters.items()
        )
        key = (self._number(template), engine, facts.kind, facts.mode, facts.hook, facts.framing, shape)
        body = self._bodies.get(key)
        if body is None:
            body = self._bodies[key] = self._body(template, complete, facts, engine)
        values, identity, unknown = body.values_of(complete, facts)
        front = _values_in_c(body.layout, values, unknown) if engine == "bcc" else []
        return Rendered(
            template=template,
            engine=engine,
            hook=facts.hook,
            mode=facts.mode,
            text=(body.head, front, body.lines),
            structure=body.structure,
            layout=body.layout,
            values=values,
            identity=identity,
            unknown=unknown,
            places=((None,) * (len(body.head) + len(front)) + body.places) if front else body.all_places,
            contents=filling.of_all(template.parameters, complete),
            capacities=body.capacities,
        )

    def _number(self, template: Template) -> int:
        number = self._numbers.get(id(template))
        if number is None:
            number = self._numbers[id(template)] = len(self._templates)
            self._templates.append(template)
            self._worker.close()  # the next one knows this template too
            _load()  # what is loaded before a fork need not be loaded after each
        return number

    def _body(self, template: Template, params: Mapping[str, Canonical], facts: Facts, engine: str) -> _Body:
        from nkform.bpf.outcome import heard

        request = [self._number(template), params, facts.kind, facts.mode, facts.hook, facts.framing, engine]
        try:
            answer, _ = self._worker.ask(json.dumps(request).encode())
        except ChildError as error:
            position = Position(str(template.path), 1, 1)
            message = f"the template {template.name} cannot be rendered: it {error}"
            raise NkformError(Problem("NK0761", message, position=position)) from None
        lines, files, numbers, used_data, capacities = heard(answer)
        places = [(files[number], line) for number, line in numbers]
        used = {each.field.name: each for each in (unlisted(template, data_of) for data_of in used_data)}
        while lines and not lines[-1]:
            lines.pop()
        _all_declared(template, capacities)
        layout = data.arrange([each.field for each in used.values()])
        head = _head(template, engine, layout, facts.framing)
        structure = hashlib.sha256()
        for part in (str(ABI), engine, _library_digest(), *head, *lines, *sorted(map(str, template.headers.items()))):
            structure.update(part.encode() + b"\0")
        own = tuple(places[: len(lines)])
        return _Body(
            head, lines, own, layout, used, structure.hexdigest(), capacities, (None,) * len(head) + own,
        )  # fmt: skip

    def _serve(self, request: bytes) -> Answer:
        """What the child does."""
        from nkform.bpf.outcome import told

        return told(lambda: self._rendered(*json.loads(request))), ()

    def _rendered(
        self, number: int, params: dict[str, Any], kind: str, mode: str, hook: str, framing: str, engine: str
    ) -> list[Any]:
        """The lines of a structure; the files that they are of, and for each its file's number and its line there;
        the values that it uses; and how many entries its maps take."""
        from nkform.bpf import sandbox

        template = self._templates[number]
        if number not in self._environments:
            self._environments[number] = sandbox.environment(template)
        given = {name: tuple(value) if isinstance(value, list) else value for name, value in params.items()}
        vocabulary = Vocabulary(template, given, Facts(kind, mode, hook, framing=framing), engine)
        lines, places = sandbox.run(self._environments[number], PROGRAM, vocabulary.context())
        files = {file: place for place, file in enumerate(dict.fromkeys(file for file, _ in places))}
        numbered = [(files[file], line) for file, line in places]
        used = [listed(each) for each in vocabulary.used.values()]
        return [lines, list(files), numbered, used, vocabulary.capacities]


def _load() -> None:
    from nkform.bpf import outcome, sandbox  # noqa: F401


@dataclass(frozen=True)
class _Body:
    """A rendered structure: `head` is what stands before the values."""

    head: list[str]
    lines: list[str]
    places: tuple[Place, ...]
    layout: Layout
    used: Mapping[str, Used]
    structure: str
    capacities: Mapping[str, int]
    all_places: tuple[Place | None, ...]
    """`places`, with those of the head before them."""

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
                    identity[name] = _identified(found, facts)
                    found = _resolved(found, facts)
            if found is None or (isinstance(found, tuple) and None in found):
                unknown.append(name)
            else:
                values[name] = found
        return values, identity, tuple(unknown)


def _identified(found: Any, facts: Facts) -> Any:
    """Names of devices with their ifindexes, where these are known beforehand: another device is another program."""
    if isinstance(found, tuple):
        return tuple(_identified(item, facts) for item in found)
    return (found, facts.ifindexes[found]) if found in facts.ifindexes else found


def _resolved(found: Any, facts: Facts) -> Any:
    if isinstance(found, tuple):
        return tuple(_resolved(item, facts) for item in found)
    return facts.ifindexes.get(found) if isinstance(found, str) else found


def facts_used(rendered: Rendered, params: Collection[str]) -> frozenset[str]:
    """The facts of its device that a program knows, by itself or as defaults of parameters other than `params`."""
    names = {name.removeprefix(FACT_PREFIX) for name in (*rendered.values, *rendered.unknown)}
    defaults = {
        parameter.default.fact
        for name, parameter in rendered.template.parameters.items()
        if isinstance(parameter.default, FactDefault) and name not in params
    }
    return frozenset(defaults | names)


def contents_of(template: Template, params: Mapping[str, Canonical], facts: Facts) -> MapsByParam:
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


def _head(template: Template, engine: str, layout: Layout, framing: str) -> list[str]:
    lines = [f"/* {template.name}: {template.purpose.replace('*/', '* /')} */", '#include "nkform.h"', ""]
    if framing != "ethernet":
        lines.insert(1, "#define NK_ETH_HLEN 0")
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
    for name, text in library_texts().items():
        if name.endswith(".h"):
            total.update(name.encode() + b"\0" + text.encode() + b"\0")
    return total.hexdigest()
