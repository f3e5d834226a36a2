"""A template: its manifest, read and checked, and the text of its program.

Reads files; executes nothing of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from nkform.bpf import parameters as kinds
from nkform.bpf.facts import Facts
from nkform.bpf.judge import Judge, Schemas, schemas
from nkform.bpf.parameters import Canonical, Checked, FactDefault, Kind, Parameter, check_all, checked
from nkform.bpf.texts import folder_texts, read_text
from nkform.bpf.values import families
from nkform.data import data_text
from nkform.dataclass import dataclass, field
from nkform.features import FEATURES
from nkform.problem import NkformError, Problem

MANIFEST = "manifest.yaml"
PROGRAM = "program.bpf.c.j2"
TESTS = "tests.yaml"
SCHEMA = "schemas/template.v1.json"

LICENSE = "Dual BSD/GPL"

MOST_FAULTS = 50
"""Violations of the manifest's schema that are told."""

RESERVED = frozenset({
    "mode", "kind", "hook", "framing", "facts", "program", "map", "lookup", "update", "delete", "value", "each",
    "count", "fact", "entries", "has", "loop", "caller", "range", "namespace", "true", "false", "none",
})  # fmt: skip
"""Names that mean something else within a template."""

C_WORDS = frozenset({
    "asm", "auto", "bool", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum",
    "extern", "float", "for", "goto", "if", "inline", "int", "linux", "long", "register", "restrict", "return", "short",
    "signed", "sizeof", "static", "struct", "switch", "typedef", "typeof", "union", "unix", "unsigned", "void",
    "volatile", "while",
})  # fmt: skip
"""A parameter's name is one in C too, and these cannot be."""

FACTS = frozenset({"ifindex", "peer_ifindex", "mac", "peer_mac", "mtu", "addresses", "peer_addresses"})
DECLARED_FACTS = frozenset({"addresses", "peer_addresses"})
"""Facts that the spec says, so that they are known before there is a device."""

MAP_NAME_BYTES = 15

VERDICTS = frozenset({"next", "pass", "drop", "redirect", "answer"})
"""What a manifest can say that a program does with a packet; `answer`: it goes back to its sender."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """A map with numbers for people: the names of its keys 0, 1, …, and of the 64 bit fields of its values."""

    keys: tuple[str, ...]
    fields: tuple[str, ...]
    description: str = ""


@dataclass(frozen=True, slots=True)
class Template:
    """A program template. `texts` are the *.h and *.j2 of its folder, by name; `needs` names features of the kernel."""

    name: str
    folder: Path
    purpose: str
    hooks: tuple[str, ...]
    modes: tuple[str, ...]
    texts: Mapping[str, str] = field(repr=False)
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    maps: Mapping[str, Numbers] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    framings: tuple[str, ...] = ("ethernet",)
    verdicts: tuple[str, ...] = ()
    """Words of VERDICTS, or `=NAME` for the value of a parameter; none: the manifest does not say."""
    license: str = LICENSE
    description: str = ""
    builtin: bool = False
    schemas: Schemas = field(default_factory=dict, repr=False)
    """What parameters must obey beside being of their kinds."""

    @property
    def path(self) -> Path:
        """The file with the program's text."""
        return self.folder / PROGRAM

    @property
    def manifest(self) -> Path:
        """The file that says what it is for."""
        return self.folder / MANIFEST

    @property
    def source(self) -> str:
        """The program's text."""
        return self.texts[PROGRAM]

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of its folder, by name."""
        return {name: text for name, text in self.texts.items() if name.endswith(".h")}

    @property
    def tests(self) -> Path:
        """The file with its packet tests, which may be missing."""
        return self.folder / TESTS


def check(template: Template, given: Mapping[str, object]) -> Checked:
    """Parameters in their one form, and what is wrong with them; paths begin at the parameters.

    What the manifest asks for beside their kinds (`schemas`) is another's to judge (judge.py).
    """
    return check_all(template.parameters, given, f"the template {template.name}")


def verdicts(template: Template, params: Mapping[str, Canonical]) -> frozenset[str] | None:
    """The verdicts that the program can give with these parameters, in their one form; None: its manifest is silent."""
    found = set()
    for word in template.verdicts:
        name = word.removeprefix("=")
        found.add(word if name == word else str(params.get(name, template.parameters[name].default)))
    return frozenset(found) or None


def excluded(template: Template, facts: Facts) -> str | None:
    """Why the program leaves the chain of this device, or None: it stays."""
    return None if facts.mode in template.modes else f"{template.name} has no work in mode {facts.mode}"


def misplaced(template: Template, hook: str) -> Problem | None:
    """What is wrong with using the template at a hook."""
    if hook in template.hooks:
        return None
    return Problem(
        "NK0713",
        f"the template {template.name} is not made for the hook {hook}",
        hint=f"it is made for {', '.join(template.hooks)}",
    )


# --- reading ----------------------------------------------------------------------------


def read(folder: Path, *, builtin: bool = False, judge: Judge | None = None) -> Template:
    """Reads a template. Raises NkformError with all that is wrong with its manifest.

    Without a judge, what it says more of parameters than their kinds is taken to be right, as it was when it was used.
    """
    from nkform.document import source as files
    from nkform.document import yaml_events
    from nkform.document.explain import explain

    try:
        source = files.read(folder / MANIFEST, within=folder)
        texts = {PROGRAM: read_text(folder / PROGRAM, folder), **folder_texts(folder)}
    except OSError as error:
        raise NkformError(_unreadable(error)) from None
    parsed = yaml_events.parse(source.text)
    if parsed.faults:
        raise NkformError(*map(source.problem, parsed.faults))
    found: list[Any] = []
    _schema_check()(parsed.data, None, found)
    if found:
        more = [Problem("NK0131", f"and {len(found) - MOST_FAULTS} more problems")] * (len(found) > MOST_FAULTS)
        raise NkformError(*(explain(violation, source) for violation in found[:MOST_FAULTS]), *more)
    data: dict[str, Any] = parsed.data  # type: ignore[assignment]
    reading = _Reading()
    parameters = {name: reading.parameter(name, raw) for name, raw in (data.get("parameters") or {}).items()}
    for place, need in enumerate(data.get("needs") or ()):
        reading.need(place, need)
    said = tuple(reading.verdict(place, raw, parameters) for place, raw in enumerate(data.get("verdicts") or ()))
    rules = schemas(data.get("parameters") or {})
    problems = reading.problems + (judge.faults(folder / MANIFEST, rules) if judge else [])
    if problems:
        raise NkformError(*(_placed(problem, source) for problem in problems))
    return Template(
        name=folder.name,
        folder=folder,
        purpose=data["purpose"].strip(),
        description=(data.get("description") or "").strip(),
        hooks=tuple(dict.fromkeys(data["hooks"])),
        modes=tuple(dict.fromkeys(data["modes"])),
        needs=tuple(data.get("needs") or ()),
        framings=tuple(dict.fromkeys(data.get("framings") or ("ethernet",))),
        verdicts=said,
        license=data.get("license") or LICENSE,
        parameters=parameters,
        maps={
            name: Numbers(tuple(m["keys"]), tuple(m["fields"]), m.get("description", ""))
            for name, m in (data.get("maps") or {}).items()
        },
        texts=texts,
        builtin=builtin,
        schemas=rules,
    )


@cache
def _schema_check() -> Any:
    import json

    from nkform.document.json_schema import compile_schema

    return compile_schema(json.loads(data_text(SCHEMA)))


class _Reading:
    """Turns the parameters of a manifest that obeys the schema into Parameters, noting what makes no sense."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def fault(self, name: str, key: str, message: str, hint: str = "") -> None:
        path = ("parameters", name, key) if key else ("parameters", name)
        self.problems.append(Problem("NK0702", f"the parameter `{name}` {message}", path=path, hint=hint))

    def parameter(self, name: str, raw: Mapping[str, Any]) -> Parameter:
        if name in RESERVED or name in C_WORDS:
            self.fault(name, "", "has a name that means something else in templates, or in C")
        is_list = raw["type"] == "array"
        kind = self.kind(name, raw.get("items") or {"type": "integer"} if is_list else raw)
        if is_list and "items" not in raw:
            self.fault(name, "type", "is a list and does not say of what", "for example items: {type: integer}")
        allowed = _ALLOWED[raw["role"]]
        if kind.name not in allowed:
            self.fault(name, "role", f"cannot be a {raw['role']}", f"a {raw['role']} is one of {_words(allowed)}")
        if not is_list and kind.name in {"address", "prefix"}:
            self.fault(
                name, "format", f"cannot be a single {kind.name}: its family must be known", "write ipv4 or ipv6"
            )
        if raw["role"] == kinds.MAP:
            self.entries(name, raw, kind)
        elif "map" in raw:
            self.fault(name, "map", f"is a {raw['role']} and fills no map", "write role: map")
        parameter = Parameter(
            name=name,
            role=raw["role"],
            kind=kind,
            description=raw["description"].strip(),
            least=raw.get("minItems", 0) if is_list else 0,
            most=raw.get("maxItems", kinds.MOST_ENTRIES if raw["role"] == kinds.MAP else 16) if is_list else None,
            examples=tuple(raw.get("examples") or ()),
            map=raw.get("map", ""),
        )
        if "default" not in raw:
            return parameter
        return Parameter(**{**_as_dict(parameter), "default": self.default(parameter, raw["default"])})

    def need(self, place: int, name: str) -> None:
        """A feature of the kernel: one that can be looked for."""
        if name not in FEATURES and not name.startswith("sysctl:"):
            known = ", ".join(FEATURES)
            message = f"`{name}` is no feature that nkform can look for"
            self.problems.append(
                Problem("NK0702", message, path=("needs", place), hint=f"known are {known}, and sysctl:ipv4.KEY")
            )

    def verdict(self, place: int, raw: object, parameters: Mapping[str, Parameter]) -> str:
        """A word, or a parameter that is one."""
        if not isinstance(raw, dict):
            return str(raw)
        name = raw["parameter"]
        parameter = parameters.get(name)
        if parameter is None:
            message, hint = f"there is no parameter `{name}` to say a verdict", f"known here: {', '.join(parameters)}"
        elif parameter.kind.name != "enumeration" or not VERDICTS.issuperset(parameter.kind.words):
            message, hint = f"the parameter `{name}` is no verdict", f"its enum would be of {_words(VERDICTS)}"
        else:
            return f"={name}"
        self.problems.append(Problem("NK0702", message, path=("verdicts", place), hint=hint))
        return ""

    def entries(self, name: str, raw: Mapping[str, Any], kind: Kind) -> None:
        """What a parameter must be whose entries stand in a map."""
        if raw["type"] != "array":
            self.fault(name, "type", "fills a map and is no list", "for example type: array, items: {type: integer}")
        if "maxItems" in raw:
            self.fault(name, "maxItems", "has as many entries as its map takes", "say so in entries(…, most=…)")
        room = MAP_NAME_BYTES - max((len(f"_{family}") for family, _ in families(kind)), default=0)
        if not raw.get("map"):
            self.fault(name, "", "does not say which map it fills", "for example map: listed")
        elif len(raw["map"]) > room:
            self.fault(name, "map", f"has a map with a long name: the kernel leaves {room} characters for it")

    def default(self, parameter: Parameter, raw: object) -> Canonical | FactDefault | None:
        if isinstance(raw, dict):
            fact = raw.get("fact")
            if set(raw) != {"fact"} or fact not in FACTS:
                self.fault(parameter.name, "default", "has a default that is no fact", f"facts are {_words(FACTS)}")
                return None
            if parameter.role == kinds.STRUCTURE:
                self.fault(parameter.name, "default", "changes the code, so a fact cannot be its default")
            if parameter.role == kinds.MAP and fact not in DECLARED_FACTS:
                self.fault(parameter.name, "default", "fills a map", f"its default can be {_words(DECLARED_FACTS)}")
            return FactDefault(fact)
        problems: list[Problem] = []
        value = checked(parameter, raw, ("parameters", parameter.name, "default"), problems)
        self.problems += problems
        return value

    def kind(self, name: str, raw: Mapping[str, Any]) -> Kind:
        match raw["type"]:
            case "integer":
                low, high = raw.get("minimum", 0), raw.get("maximum", 2**32 - 1)
                if low > high or (low < 0 and high >= 2**63):
                    self.fault(name, "maximum", "has bounds that no number fits")
                return Kind("integer", low, high)
            case "boolean":
                return Kind("boolean")
        if "enum" in raw:
            if not all(isinstance(word, str) for word in raw["enum"]):
                self.fault(name, "enum", "is text, and its words are not", "write `type: integer`, or words")
            return Kind("enumeration", words=tuple(map(str, raw["enum"])))
        if "format" not in raw:
            self.fault(
                name, "type", "is any text, which nothing in a program can be", "give it a `format` or an `enum`"
            )
            return Kind("identifier")
        return Kind(raw["format"])


_ALLOWED = {kinds.STRUCTURE: kinds.STRUCTURAL, kinds.VALUE: kinds.VALUES, kinds.MAP: kinds.ENTRIES}


def _as_dict(parameter: Parameter) -> dict[str, Any]:
    return {name: getattr(parameter, name) for name in Parameter.__slots__}


def _words(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _placed(problem: Problem, source: Any) -> Problem:
    place, _ = source.find(problem.path or ())
    return Problem(problem.code, problem.message, position=source.spot(place), hint=problem.hint)


def _unreadable(error: OSError) -> Problem:
    hint = f"a template is a folder with {MANIFEST} and {PROGRAM}" if isinstance(error, FileNotFoundError) else ""
    return Problem("NK0701", f"cannot read {error.filename}: {error.strerror}", hint=hint)
