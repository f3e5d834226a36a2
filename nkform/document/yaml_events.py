"""YAML text → plain data, bounded, with all that is wrong in it, and the place of every value if one asks.

It reads libyaml's events rather than its nodes: composing nodes recurses in C (deep nesting kills the process), and
takes longer. The good path builds dicts, lists and scalars and forgets the places; who needs them (an error does)
parses the text a second time with `places=True`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from nkform.dataclass import dataclass, field
from nkform.document.fault import Fault
from nkform.document.late_patterns import late_patterns
from nkform.document.scalars import Scalar, quoted, resolve

MAX_DEPTH = 64
"""Mappings and lists within each other. A spec needs six."""

MAX_NODES = 1_000_000
"""Keys, values and items after aliases are expanded: 20,000 devices."""


MAX_FAULTS = 100

_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
"""A character beyond the first 65,536 as JSON spells it (RFC 8259, 7), which YAML does not know."""


@dataclass(slots=True)
class Place:
    """Where a value and its key stand (from 1), how a scalar is written, and the places within."""

    line: int
    column: int
    key_line: int
    key_column: int
    raw: str | None = None
    plain: bool = False
    children: dict[str | int, Place] = field(default_factory=dict)


class Tree(NamedTuple):
    """What a text says. With faults the data is what could be read. `place` only if it was asked for."""

    data: object
    place: Place | None
    faults: list[Fault]


def parse(text: str, *, places: bool = False) -> Tree:
    """Parse one YAML document. Never raises for what the text contains."""
    with late_patterns("yaml"):
        import yaml

    builder = _Builder(places)
    if "\\u" in text:
        text = _PAIR.sub(_character, text)
    try:
        builder.build(_events(text))
    except _StopError:
        pass
    except yaml.YAMLError as error:
        from nkform.document.yaml_syntax import syntax_fault

        builder.faults.append(syntax_fault(error, text))
    root = builder.root
    return Tree(
        root.container[0] if root.container else None,
        root.place.children.get(0) if root.place else None,
        builder.faults,
    )


def _character(pair: re.Match[str]) -> str:
    """As YAML spells it."""
    high, low = int(pair[2], 16), int(pair[3], 16)
    return f"{pair[1]}\\U{0x10000 + ((high & 0x3FF) << 10 | low & 0x3FF):08X}"


def _events(text: str) -> Callable[[], Any]:
    """A function that returns the next event each time, and None after the last. Raises yaml.YAMLError."""
    import yaml

    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_event


class _StopError(Exception):
    """The rest of the text is not worth reading, or not safe to."""


_NO_KEY: Any = object()
_SKIP: Any = object()
_MERGE: Any = object()


@dataclass(slots=True)
class _Anchor:
    value: object
    place: Place | None
    size: int = 0
    """Nodes within, aliases expanded. 0 while the anchored value is still open."""
    height: int = 0
    """Mappings and lists within each other, aliases expanded."""


class _Frame:
    """An open mapping or list; `key` waits for its value."""

    __slots__ = ("anchor", "container", "is_list", "key", "merges", "place", "start")

    def __init__(
        self, container: Any, is_list: bool, start: int = 0, place: Place | None = None, anchor: _Anchor | None = None
    ) -> None:
        self.container = container
        self.is_list = is_list
        self.start = start
        self.place = place
        self.anchor = anchor
        self.key: Any = _NO_KEY
        self.merges: list[tuple[object, Place | None, Any]] | None = None


class _Builder:
    """Takes one event after another. An event carries `start_mark`, and `anchor` and `tag` where the node has them."""

    def __init__(self, places: bool) -> None:
        self.faults: list[Fault] = []
        self.root = self.frame = _Frame([], True, 0, Place(1, 1, 1, 1) if places else None)
        self.stack: list[_Frame] = []
        self.anchors: dict[str, _Anchor] = {}
        self.resolved: dict[str, Scalar] = {}
        """What each plain scalar means; of text, one object for all that is alike."""
        self.quoted: dict[str, str] = {}
        self.heights: dict[int, tuple[int, object]] = {}
        """Of anchored mappings and lists, by identity; and themselves, so that no other gets the same identity."""
        self.nodes = 0
        self.documents = 0

    def build(self, get_event: Callable[[], Any]) -> None:  # noqa: PLR0915  (a call for each event costs a third more)
        """Takes all events. What is nearly all of a spec is dealt with here, the rest where it belongs."""
        import yaml

        known = {
            yaml.ScalarEvent: self.scalar,
            yaml.AliasEvent: self.alias,
            yaml.MappingStartEvent: self.open_mapping,
            yaml.SequenceStartEvent: self.open_sequence,
            yaml.MappingEndEvent: self.close,
            yaml.SequenceEndEvent: self.close,
            yaml.DocumentStartEvent: self.document,
        }
        scalar, placed = yaml.ScalarEvent, self.frame.place is not None
        opening = {yaml.MappingStartEvent: dict, yaml.SequenceStartEvent: list}
        closing = {yaml.MappingEndEvent, yaml.SequenceEndEvent}
        resolved, stack = self.resolved, self.stack
        value: Any
        while (event := get_event()) is not None:
            kind, frame = event.__class__, self.frame
            key = frame.key
            if kind in closing:
                if frame.merges is None and frame.anchor is None:
                    self.frame = stack.pop()
                else:
                    self.close(event)
                continue
            if placed or key is _MERGE or key is _SKIP or self.nodes >= MAX_NODES:
                known.get(kind, self.ignore)(event)
                continue
            if kind is scalar and event.anchor is None and event.tag is None:
                text = event.value
                if event.style:
                    value = self.quoted.setdefault(text, text)
                elif text in resolved:
                    value = resolved[text]
                else:
                    value = self.resolve(text)
                if frame.is_list:
                    frame.container.append(value)
                elif key is not _NO_KEY:
                    frame.container[key] = value
                    frame.key = _NO_KEY
                elif value.__class__ is str and value != "<<" and value not in frame.container:
                    frame.key = value
                else:
                    self.add(value, event, None)
                    continue
                self.nodes += 1
            elif kind in opening and event.anchor is None and event.tag is None and len(stack) < MAX_DEPTH:
                value = opening[kind]()
                if frame.is_list:
                    frame.container.append(value)
                elif key is not _NO_KEY:
                    frame.container[key] = value
                    frame.key = _NO_KEY
                else:
                    known[kind](event)
                    continue
                stack.append(frame)
                self.frame = _Frame(value, kind is yaml.SequenceStartEvent, self.nodes)
                self.nodes += 1
            else:
                known.get(kind, self.ignore)(event)

    def resolve(self, text: str) -> Scalar:
        """What a plain scalar means, which is found out once."""
        if text not in self.resolved:
            self.resolved[text] = resolve(text)
        return self.resolved[text]

    def fault(self, code: str, message: str, mark: Any, hint: str = "") -> None:
        line, column = mark.line + 1, mark.column + 1
        self.faults.append(Fault(code, message, line, column, hint))
        if len(self.faults) == MAX_FAULTS:
            self.faults.append(Fault("NK0131", "too many problems: the rest of the file is not read", line, column))
            raise _StopError

    def ignore(self, event: Any) -> None:
        """Stream start and end, document end."""

    def document(self, event: Any) -> None:
        self.documents += 1
        if self.documents > 1:
            self.fault(
                "NK0111", "a second YAML document starts here", event.start_mark,
                "give each document a file of its own and name all the files: nkform plan a.yaml b.yaml",
            )  # fmt: skip
            raise _StopError

    def scalar(self, event: Any) -> None:
        value = event.value
        value = self.quoted.setdefault(value, value) if event.style else self.resolve(value)
        if event.anchor is not None or event.tag is not None or self.frame.place:
            self.annotated(value, event)
        else:
            self.add(value, event, None)

    def annotated(self, value: Scalar, event: Any) -> None:
        """A scalar with an anchor or a tag, or any scalar if places are kept."""
        self.refuse_tag(event)
        place = self.here(event, event.value, not event.style)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchor(value, place, 1)
        self.add(value, event, place)

    def open_mapping(self, event: Any) -> None:
        self.open({}, False, event)

    def open_sequence(self, event: Any) -> None:
        self.open([], True, event)

    def open(self, container: Any, is_list: bool, event: Any) -> None:
        self.refuse_tag(event)
        if len(self.stack) >= MAX_DEPTH:
            self.too_deep(event)
        if event.tag is not None:
            self.drop()
        place = self.here(event, None, False)
        anchor = None
        if event.anchor is not None:
            anchor = self.anchors[event.anchor] = _Anchor(container, place)
        start = self.nodes
        self.add(container, event, place)
        self.stack.append(self.frame)
        self.frame = _Frame(container, is_list, start, place, anchor)

    def close(self, _: Any) -> None:
        frame = self.frame
        for value, place, mark in frame.merges or ():
            self.merge(frame, value, place, mark)
        if frame.anchor is not None:
            frame.anchor.size = self.nodes - frame.start
            frame.anchor.height = self.height(frame.container)
            self.heights[id(frame.container)] = frame.anchor.height, frame.container
        self.frame = self.stack.pop()

    def too_deep(self, event: Any) -> None:
        self.fault("NK0108", f"more than {MAX_DEPTH} mappings and lists within each other", event.start_mark)
        raise _StopError

    def alias(self, event: Any) -> None:
        anchor = self.anchors.get(event.anchor)
        if anchor is None:
            self.fault(
                "NK0110", f"*{event.anchor} refers to an anchor that does not exist", event.start_mark,
                f"put &{event.anchor} before the value that is meant, further up; a * in text needs quotes",
            )  # fmt: skip
        elif anchor.size == 0:
            self.fault("NK0110", f"*{event.anchor} refers to the value that it is part of", event.start_mark)
            anchor = None
        if anchor is None:
            self.drop()
        elif len(self.stack) + anchor.height > MAX_DEPTH:
            self.too_deep(event)
        self.nodes += anchor.size if anchor else 0
        place = self.here(event, f"*{event.anchor}", True)
        if anchor and anchor.place and place:
            place.raw, place.plain, place.children = (
                anchor.place.raw,
                anchor.place.plain,
                anchor.place.children,
            )
        self.add(anchor.value if anchor else None, event, place)

    def height(self, container: object) -> int:
        """How many mappings and lists are within each other. Of what an alias stands for that is known already."""
        highest = depth = 0
        level: list[Any] = [container]
        while level:
            depth += 1
            below: list[Any] = []
            for each in level:
                for item in each.values() if isinstance(each, dict) else each:
                    if id(item) in self.heights:
                        highest = max(highest, depth + self.heights[id(item)][0])
                    elif isinstance(item, dict | list):
                        below.append(item)
            level = below
        return max(highest, depth)

    def drop(self) -> None:
        """What comes is refused: its key is as if it were not there."""
        if not self.frame.is_list and self.frame.key is not _NO_KEY:
            self.frame.key = _SKIP

    def refuse_tag(self, event: Any) -> None:
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.fault(
                "NK0107", f"the tag {tag[:60]} is not allowed", event.start_mark,
                "leave it out; nothing in a spec makes objects or runs code"
                + (", and text that looks like a number goes into quotes" if tag == "!!str" else ""),
            )  # fmt: skip

    def here(self, event: Any, raw: str | None, plain: bool) -> Place | None:
        if not self.frame.place:
            return None
        line, column = event.start_mark.line + 1, event.start_mark.column + 1
        return Place(line, column, line, column, raw, plain)

    def add(self, value: object, event: Any, place: Place | None) -> None:
        """Put a value where it belongs: into the list, as the key to come, or under its key."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.fault(
                "NK0109",
                f"more than {MAX_NODES:,} values (each alias counts all it stands for)",
                event.start_mark,
                "divide the spec into several files; if aliases of aliases multiply, write less of them",
            )
            raise _StopError
        frame = self.frame
        if frame.is_list:
            if place and frame.place:
                frame.place.children[len(frame.container)] = place
            frame.container.append(value)
            return
        key = frame.key
        if key is _NO_KEY:
            frame.key = value if type(value) is str else _SKIP
            merges = value == "<<" and not getattr(event, "style", "alias")
            if frame.key is _SKIP or merges or value in frame.container:
                self.special_key(frame, value, event, merges)
            elif place and frame.place:
                frame.place.children[value] = place  # type: ignore[index]
            return
        frame.key = _NO_KEY
        if key is _MERGE:
            frame.merges = [*(frame.merges or ()), (value, place, event.start_mark)]
        elif key is not _SKIP:
            frame.container[key] = value
            if place and frame.place:
                at = frame.place.children[key]
                place.key_line, place.key_column = at.line, at.column
                frame.place.children[key] = place

    def special_key(self, frame: _Frame, value: object, event: Any, merges: bool) -> None:
        """A key that is not text, or there already, or `<<`."""
        mark = event.start_mark
        if merges:
            if frame.merges is not None:
                self.fault("NK0105", "a second << in one mapping", mark, "write one: <<: [*first, *second]")
            frame.key = _MERGE
        elif isinstance(value, dict | list):
            what = "mapping" if isinstance(value, dict) else "list"
            self.fault(
                "NK0106",
                f"a {what} stands where a key is expected",
                mark,
                "text that begins with [ or { needs quotes",
            )
        elif value is None and not getattr(event, "value", ""):
            self.fault("NK0106", "the key before this colon is missing", mark)
        elif not isinstance(value, str):
            raw = getattr(event, "value", str(value))
            self.fault("NK0106", f"the key {raw[:60]} is not text", mark, f"write it in quotes: {quoted(raw)}")
        elif value in frame.container:
            first = frame.place.children.get(value) if frame.place else None
            at = f"; it stands in line {first.key_line} already" if first else ""
            self.fault("NK0105", f"the key {quoted(value)} is given twice{at}", mark, "keep one of the two")
            frame.key = _SKIP

    def merge(self, frame: _Frame, value: object, place: Place | None, mark: Any) -> None:
        """`<<: *a` or `<<: [*a, *b]`: what the mapping does not say itself, it takes from there; earlier ones win."""
        sources = value if isinstance(value, list) else [value]
        for index, source in enumerate(sources):
            if not isinstance(source, dict):
                self.fault(
                    "NK0113",
                    "<< merges a mapping, and this value is not one",
                    mark,
                    "write <<: *name, where &name marks a mapping",
                )
                continue
            at = place.children.get(index) if place and isinstance(value, list) else place
            for key, item in source.items():
                if key not in frame.container:
                    frame.container[key] = item
                    if frame.place and at and key in at.children:
                        frame.place.children[key] = at.children[key]
