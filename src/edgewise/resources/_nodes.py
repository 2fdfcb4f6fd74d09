"""Bounded reading of YAML into nodes that know where they stand.

Only what people need in a manifest: block and flow collections, scalars, anchors and aliases. Tags and merge keys are refused, duplicate
keys are problems, and what an alias multiplies is counted before it exists.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, NoReturn

import msgspec
import yaml
from yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    Event,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceStartEvent,
)

from edgewise.resources.errors import Problem

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ManifestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much one text may hold. `nodes_max` counts scalars and collections after aliases are expanded, `depth_max` collections within
    collections, `problems_max` how many problems are reported at once."""

    text_bytes_max: int = 4_000_000
    documents_max: int = 1_000
    nodes_max: int = 200_000
    depth_max: int = 32
    problems_max: int = 25


class Place(msgspec.Struct, frozen=True):
    """Where something stands in its text; both count from 1."""

    line: int
    column: int


class Notes:
    """Collects problems of one text. `base` is the path of what is being read now."""

    def __init__(self, source: str, limits: ManifestLimits, base: str = "", found: list[Problem] | None = None) -> None:
        self.source = source
        self.limits = limits
        self.base = base
        self.found: list[Problem] = [] if found is None else found

    def under(self, base: str) -> "Notes":
        """Return notes for a part of the same text, whose paths begin with `base`."""
        return Notes(self.source, self.limits, base, self.found)

    @property
    def full(self) -> bool:
        """Whether no more problems are wanted."""
        return len(self.found) >= self.limits.problems_max

    def add(self, place: Place, path: str, message: str, hint: str = "") -> None:
        """Note that what stands at `place` and is led to by `path` is wrong."""
        self.found.append(self.problem(place, path, message, hint))

    def problem(self, place: Place, path: str, message: str, hint: str = "") -> Problem:
        """Return the problem without noting it."""
        full = f"{self.base}.{path}" if self.base and path and not path.startswith("[") else self.base + path
        return Problem(path=full, message=message, hint=hint, source=self.source, line=place.line, column=place.column)


class ScalarNode(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of text. `plain`: without quotes, so that it may stand for a number, a boolean or null."""

    place: Place
    text: str
    plain: bool
    weight: int = 1
    height: int = 0


class SequenceNode(msgspec.Struct, frozen=True, kw_only=True):
    """A list. `weight` counts the nodes in it, itself included; `height` the collections below it, itself included."""

    place: Place
    items: tuple["Node", ...]
    weight: int
    height: int


class MappingNode(msgspec.Struct, frozen=True, kw_only=True):
    """A mapping, in the order of the text. Of duplicate keys the first is kept and a problem noted."""

    place: Place
    entries: Mapping[str, tuple[ScalarNode, "Node"]]
    weight: int
    height: int


Node = ScalarNode | SequenceNode | MappingNode


class Unreadable(Exception):
    """The text is no YAML, or more than the limits allow: nothing after `problem` was read."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def read_nodes(text: str, notes: Notes) -> tuple[Node, ...]:
    """Return the documents in `text` that are not empty. What is wrong but can be read past goes to `notes`; raises
    `Unreadable` otherwise."""
    builder = _Builder(notes)
    try:
        events = iter(yaml.parse(text, Loader=_LOADER))
        return tuple(islice(builder.documents(events), notes.limits.documents_max + 1))
    except yaml.reader.ReaderError as error:
        place = _place_of(text, error.position)
        raise Unreadable(notes.problem(place, "", "a character that YAML does not allow", f"{error.reason}")) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(0, 0) if mark is None else Place(mark.line + 1, mark.column + 1)
        message = " ".join(part for part in (error.context, error.problem) if part)
        hint = "indent with spaces, never with tabs" if "\\t" in message else ""
        raise Unreadable(notes.problem(place, "", f"not well-formed YAML: {message}", hint)) from None


class _Builder:
    """Makes nodes out of parser events without recursion deeper than the limit."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._limits = notes.limits
        self._anchors: dict[str, Node] = {}
        self._nodes = 0
        self._documents = 0

    def documents(self, events: Iterator[Event]) -> Iterator[Node]:
        for event in events:
            if not isinstance(event, DocumentStartEvent):
                continue
            self._documents += 1
            if self._documents > self._limits.documents_max:
                self._refuse(_place(event), f"more than {self._limits.documents_max} documents", "split the file")
            self._anchors = {}
            first = next(events)
            node = self._node(first, events, 0)
            if not (isinstance(node, ScalarNode) and node.plain and node.text == ""):
                yield node
            ended = next(events)
            if not isinstance(ended, DocumentEndEvent):  # pragma: no cover - the parser's own promise
                self._refuse(_place(ended), "a document with two values")

    def _node(self, event: Event, events: Iterator[Event], depth: int) -> Node:
        place = _place(event)
        if isinstance(event, AliasEvent):
            return self._aliased(event, place, depth)
        if isinstance(event, NodeEvent):
            self._check_tag(event, place)
        match event:
            case ScalarEvent():
                self._count(1, place)
                node: Node = ScalarNode(place=place, text=event.value, plain=not event.style)
            case SequenceStartEvent():
                self._descend(place, depth)
                node = self._sequence(place, events, depth + 1)
            case MappingStartEvent():
                self._descend(place, depth)
                node = self._mapping(place, events, depth + 1)
            case _:  # pragma: no cover - the parser's own promise
                self._refuse(place, "an unexpected end")
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _sequence(self, place: Place, events: Iterator[Event], depth: int) -> SequenceNode:
        items: list[Node] = []
        for event in events:
            if isinstance(event, CollectionEndEvent):
                break
            items.append(self._node(event, events, depth))
        weight = 1 + sum(item.weight for item in items)
        return SequenceNode(place=place, items=tuple(items), weight=weight, height=1 + max((item.height for item in items), default=0))

    def _mapping(self, place: Place, events: Iterator[Event], depth: int) -> MappingNode:
        entries: dict[str, tuple[ScalarNode, Node]] = {}
        for event in events:
            if isinstance(event, CollectionEndEvent):
                break
            key = self._node(event, events, depth)
            value = self._node(next(events), events, depth)
            if not isinstance(key, ScalarNode):
                self._refuse(key.place, "a list or mapping cannot be a key")
            if key.plain and key.text == "<<":
                self._refuse(key.place, "merge keys ('<<') are not allowed", "write the fields out")
            if key.text in entries:
                first = entries[key.text][0].place
                self._notes.add(
                    key.place, "", f"the key {_short(key.text)!r} is there twice, first in line {first.line}", "remove one of the two"
                )
                continue
            entries[key.text] = (key, value)
        nodes = [value for _, value in entries.values()]
        weight = 1 + len(nodes) + sum(node.weight for node in nodes)
        return MappingNode(place=place, entries=entries, weight=weight, height=1 + max((node.height for node in nodes), default=0))

    def _aliased(self, event: AliasEvent, place: Place, depth: int) -> Node:
        node = self._anchors.get(event.anchor or "")
        if node is None:
            self._refuse(place, f"'*{_short(event.anchor or '')}' refers to nothing that ends before it")
        self._count(node.weight, place)
        if depth + node.height > self._limits.depth_max:
            self._too_deep(place)
        return node

    def _check_tag(self, event: NodeEvent, place: Place) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse(place, f"the tag {_short(tag)!r} is not allowed", "write the value without a tag")

    def _count(self, weight: int, place: Place) -> None:
        self._nodes += weight
        if self._nodes > self._limits.nodes_max:
            self._refuse(place, f"more than {self._limits.nodes_max} values, aliases expanded", "split the file")

    def _descend(self, place: Place, depth: int) -> None:
        self._count(1, place)
        if depth >= self._limits.depth_max:
            self._too_deep(place)

    def _too_deep(self, place: Place) -> NoReturn:
        self._refuse(place, f"nested deeper than {self._limits.depth_max}")

    def _refuse(self, place: Place, message: str, hint: str = "") -> NoReturn:
        raise Unreadable(self._notes.problem(place, "", message, hint))


def _place(event: Event) -> Place:
    mark = event.start_mark
    return Place(0, 0) if mark is None else Place(mark.line + 1, mark.column + 1)


def _place_of(text: str, index: int) -> Place:
    before = text[:index]
    return Place(before.count("\n") + 1, index - (before.rfind("\n") + 1) + 1)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
