"""Jinja for C: sandboxed, strict, and able to say from which line of a template a line of its output comes.

What is printed must be C already: a number, or text that one of our functions and filters has made. Plain text, be it
a parameter, is refused, so that no string can become code by being printed. Parameters that are text are words of a
closed list or identifiers to begin with (parameters.py); addresses never enter a template at all, only the C
expressions that stand for them. Touches no file: what a template can include was read with it (texts.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import CodeType
from typing import Any

from jinja2 import (
    BaseLoader,
    BytecodeCache,
    Environment,
    StrictUndefined,
    TemplateError,
    TemplateNotFound,
    TemplateSyntaxError,
    nodes,
)
from jinja2.bccache import Bucket
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from markupsafe import Markup

from nkform.bpf.parameters import KINDS, Kind, RefusedError
from nkform.bpf.template import Template
from nkform.bpf.texts import library, library_texts
from nkform.bpf.values import Form, form_of
from nkform.bpf.values import literal as _literal
from nkform.kernel.child import OutOfTimeError
from nkform.problem import NkformError, Position, Problem

MAX_OUTPUT = 1 << 20
"""Characters that a template may make."""

MAX_STEPS = 20_000
"""Steps that all range() of a template may make together."""

_FORMATTING = ("format", "format_map")
JOINED = "joined"
"""The filter that `~` brings its operands through."""

_HARMLESS_FILTERS = ("first", "last", "length", "list", "max", "min", "reverse", "sort", "sum", "unique")
_FILE = re.compile(r"(lib/)?[a-z0-9_]+(\.[a-z0-9_]+)*\.j2")
_MARK = re.compile("\x02([^\x02\x03]*):([0-9]+)\x03")


class C(str):
    """Text that is C. Jinja takes it for safe because of `__html__`."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


class Parts:
    """A value of several numbers: printed only part by part, such as `{{ prefix.mask }}`."""

    def __init__(self, noun: str, parts: Mapping[str, C]) -> None:
        self.__dict__.update(parts)
        self._noun = noun
        self._names = tuple(parts)

    def __str__(self) -> str:
        raise TemplateError(f"{self._noun} has parts: print one of .{', .'.join(self._names)}")


def expression(form: Form, of: Callable[[str], str], noun: str) -> C | Parts:
    """What a template prints for a value of this form; `of` gives the C expression for each part."""
    if form.parts == ("",):
        return C(of(""))
    return Parts(noun, {part: C(of(part)) for part in form.parts})


# --- the environment --------------------------------------------------------------------


class _Sandbox(ImmutableSandboxedEnvironment):
    """Its templates get no text of what is no text: that of a function, say, has an address in memory, which is
    another one in each run, and nothing that a program is made of may be."""

    intercepted_binops = frozenset({"*", "**", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:  # noqa: ARG002
        """Numbers only, and no powers: text times a million would fill the memory."""
        if operator == "**" or not (type(left) is int and type(right) is int):
            raise SecurityError(f"{operator} is only for whole numbers, and ** for none")
        return left % right if operator == "%" else left * right

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Beside what is unsafe anyway, the methods that make text of anything."""
        return not (isinstance(obj, str) and attr in _FORMATTING) and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Newer Jinja's way to let them be."""

    def _generate(self, source: nodes.Template, *rest: Any, **more: Any) -> str:
        """Code of a template, in which `~` joins texts and numbers only."""
        for joined in source.find_all(nodes.Concat):
            joined.nodes = [nodes.Filter(each, JOINED, [], [], None, None, lineno=each.lineno) for each in joined.nodes]
        return super()._generate(source, *rest, **more)


def _joined(value: Any) -> Any:
    if isinstance(value, str | int):
        return value
    if isinstance(value, Undefined | Parts):
        str(value)  # both say what is wrong
    raise SecurityError(f"~ is only for texts and numbers, and not for a {type(value).__name__}")


class _Lines(Extension):
    """Puts a mark before each line of a template's text, which says where it stands."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for token in stream:
            yield token if token.type != "data" else Token(token.lineno, "data", _marked(token, stream.name or ""))


def _marked(token: Token, name: str) -> str:
    lines = token.value.split("\n")
    return "\n".join(f"\x02{name}:{token.lineno + place}\x03{line}" for place, line in enumerate(lines))


class _Loader(BaseLoader):
    """The texts of one template, and those of the library."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._library = library()

    def path(self, name: str) -> Path:
        """Where a text was read."""
        return self._library / name[4:] if name.startswith("lib/") else self.template.folder / name

    def text(self, name: str) -> str:
        """A text. Raises TemplateNotFound."""
        found = None
        if _FILE.fullmatch(name):
            found = library_texts().get(name[4:]) if name.startswith("lib/") else self.template.texts.get(name)
        if found is None:
            raise TemplateNotFound(name, f"{name!r} cannot be included: files of the template's folder and lib/ can")
        return found

    def get_source(
        self,
        environment: Environment,  # noqa: ARG002
        template: str,
    ) -> tuple[str, str, Callable[[], bool]]:
        return self.text(template), str(self.path(template)), lambda: True


class _Compiled(BytecodeCache):
    """What Jinja made of each text, for all environments of this process: they are all made alike."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], CodeType] = {}

    def get_cache_key(self, name: str, filename: str | None = None) -> str:
        """Jinja's own makes UTF-8 of the path, which need not be text."""
        return f"{name}|{filename}"

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._known.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        if bucket.code is not None:
            self._known[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


def _finalize(value: Any) -> Any:
    if isinstance(value, C | Markup):
        return value
    if type(value) is int:
        return C(value)
    if isinstance(value, Undefined | Parts):
        str(value)  # both say what is wrong
    raise TemplateError(
        f"a {type(value).__name__} cannot be printed as it is: bring it through a filter such as integer or identifier"
    )


def environment(template: Template) -> Environment:
    """An environment for the texts of one template."""
    made = _Sandbox(
        loader=_Loader(template),
        extensions=[_Lines],
        undefined=StrictUndefined,
        autoescape=True,  # so that Jinja tells C, which is marked as safe, from text
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        cache_size=16,
        bytecode_cache=_COMPILED,
    )
    made.filters = {name: made.filters[name] for name in _HARMLESS_FILTERS} | _typed_filters() | {JOINED: _joined}
    made.globals = {"namespace": made.globals["namespace"]}
    return made


def _bounded_range() -> Callable[..., range]:
    """A range() for one rendering; loops within loops add up."""
    made = 0

    def bounded(*bounds: int) -> range:
        nonlocal made
        steps = range(*bounds)
        made += len(steps)
        if made > MAX_STEPS:
            raise TemplateError(f"range() makes more than {MAX_STEPS} steps")
        return steps

    return bounded


def _typed_filters() -> dict[str, Callable[..., Any]]:
    """A filter for each kind of value: it gives the C of a value of this kind, and refuses all others."""

    def typed(name: str) -> Callable[..., Any]:
        def convert(value: object) -> Any:
            kind = Kind(name, -(2**63), 2**64 - 1)
            canonical = _convert(kind, value)
            form = form_of(kind) if name != "integer" else None
            if form is None:
                return C(canonical)
            numbers = dict(zip(form.parts, form.encode(canonical), strict=True))
            letters = dict(zip(form.parts, form.format, strict=True))
            return expression(form, lambda part: _literal(numbers[part], letters[part]), f"a value of kind {name}")

        return convert

    kinds = ("integer", "boolean", "ipv4", "ipv6", "ipv4-prefix", "ipv6-prefix", "mac", "ifindex")
    filters = {name.replace("-", "_"): typed(name) for name in kinds}
    filters["identifier"] = lambda value: C(_convert(Kind("identifier"), value))
    filters["enumeration"] = lambda value, *words: C(_convert(Kind("enumeration", words=words), value))
    return filters


def _convert(kind: Kind, value: object) -> Any:
    if isinstance(value, Undefined):
        str(value)
    try:
        return KINDS[kind.name](kind, value)
    except RefusedError as refused:
        raise TemplateError(f"the value {refused.fault}") from None


# --- rendering --------------------------------------------------------------------------

Place = tuple[str, int]
"""A file, and a line in it from 1."""


def run(env: Environment, name: str, context: Mapping[str, Any]) -> tuple[list[str], list[Place]]:
    """Renders a template: its lines, and where each comes from. Raises NkformError with the template's line."""
    loader = env.loader
    assert isinstance(loader, _Loader)
    pieces, size = [], 0
    try:
        for piece in env.get_template(name).generate(**context, range=_bounded_range()):
            pieces.append(piece)
            size += len(piece)
            if size > 2 * MAX_OUTPUT:  # the marks are about half of it
                raise TemplateError(f"it makes more than {MAX_OUTPUT >> 20} MiB of C")
        text = "".join(pieces)
        text.encode()  # half a surrogate pair is no text
        return _unmark(text, loader, name)
    except TemplateSyntaxError as error:
        raise _failed(loader, error.name or name, error.lineno, error.message or "") from None
    except OutOfTimeError as error:
        raise _failed(loader, *_where(error, loader, name), "it takes too long", "NK0761") from None
    except MemoryError as error:
        raise _failed(loader, *_where(error, loader, name), "it needs too much memory", "NK0761") from None
    except Exception as error:  # a template can make Python complain of anything
        raise _failed(loader, *_where(error, loader, name), _said(error)) from None


def _said(error: Exception) -> str:
    message = getattr(error, "message", None) or str(error) or type(error).__name__
    return str(message).removeprefix("'").split("\n", maxsplit=1)[0]


def _where(error: BaseException, loader: _Loader, name: str) -> Place:
    """The innermost line of a template in the traceback, which Jinja makes fit the template's text."""
    place = (name, 1)
    names = {str(loader.path(each)): each for each in (*loader.template.texts, *map("lib/".__add__, library_texts()))}
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file in names:
            place = (names[file], trace.tb_lineno)
        trace = trace.tb_next
    return place


def _failed(loader: _Loader, name: str, line: int, message: str, code: str = "NK0720") -> NkformError:
    try:
        text = loader.text(name).split("\n")[line - 1]
    except (TemplateNotFound, IndexError):
        text = ""
    position = Position(str(loader.path(name)), line, 1, text)
    return NkformError(Problem(code, f"the template fails: {message}", position=position))


def _unmark(text: str, loader: _Loader, name: str) -> tuple[list[str], list[Place]]:
    """Takes the marks out. A line belongs to the last mark before its first visible character."""
    lines: list[str] = []
    places: list[Place] = []
    current = (str(loader.path(name)), 1)
    for raw in text.split("\n"):
        plain = _MARK.sub("", raw)
        visible = len(raw)
        for mark in _MARK.finditer(raw):
            if raw[mark.end() : mark.end() + 1] not in {"", "\x02"}:
                visible = mark.end()
                break
        marks = [mark for mark in _MARK.finditer(raw) if mark.end() <= visible]
        if marks:
            current = (str(loader.path(marks[-1][1])), int(marks[-1][2]))
        if plain.strip():
            lines.append(plain.rstrip())
        elif lines and lines[-1]:
            lines.append("")
        else:
            continue
        places.append(current)
    return lines, places
