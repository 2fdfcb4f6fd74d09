"""Reads resources from YAML (or JSON), strictly: what is unknown, ambiguous or out of place is a problem with file, line, column and path.

load(text, source) -> resources, or raises Invalid with every problem that was found
"""

from collections.abc import Callable, Hashable, Iterable
from functools import cache
from typing import Final, TypeVar, cast

import msgspec
from msgspec import inspect

from edgewise.resources._nodes import ManifestLimits, MappingNode, Node, Notes, Place, ScalarNode, SequenceNode, Unreadable, read_nodes
from edgewise.resources._typed import Fits, fit, is_text, nearest
from edgewise.resources.errors import Invalid, Problem
from edgewise.resources.kinds import BY_NAME, KINDS, Kind, Resource
from edgewise.resources.meta import API_VERSION
from edgewise.resources.validation import problems as rule_problems

__all__ = ["LIMITS", "Invalid", "ManifestLimits", "Problem", "load", "load_as", "nearest", "reads_as_text"]

T = TypeVar("T")

LIMITS: Final = ManifestLimits()
_IGNORED: Final = frozenset({"status"})
"""The control plane writes the status; in a person's file it is passed over, so that what `get -o yaml` printed can be applied."""


def load(text: str | bytes, source: str = "", *, any_kind: bool = False, limits: ManifestLimits = LIMITS) -> tuple[Resource, ...]:
    """Return the resources in `text`, in its order. `source` is the file's name in problems. Without `any_kind`, kinds that
    only the control plane makes are refused.

    Raises `Invalid` with all problems, at most `limits.problems_max`.
    """
    notes = Notes(source, limits)
    loaded: list[tuple[Resource, Place]] = []
    for base, node in _documents(text, notes):
        resource = _resource(node, any_kind, notes.under(base))
        if resource is not None:
            loaded.append((resource, node.place))
    _note_repeated(loaded, notes)
    _refuse(notes)
    return tuple(resource for resource, _ in loaded)


def load_as(
    text: str | bytes,
    wanted: type[T],
    source: str = "",
    limits: ManifestLimits = LIMITS,
    rules: Callable[[T], Iterable[Problem]] | None = None,
) -> T:
    """Return the one document in `text` as a `wanted`, by the same strict rules. What `rules` finds wrong with it is said with the line
    where it stands. Raises `Invalid`."""
    notes = Notes(source, limits)
    try:
        nodes = read_nodes(_decoded(text, notes), notes)
    except Unreadable as error:
        raise Invalid((error.problem,)) from None
    if len(nodes) != 1:
        notes.add(Place(0, 0), "", f"must hold one document, holds {len(nodes)}")
        _refuse(notes)
    fits = fit(nodes[0], _described(cast("Hashable", wanted)), notes)
    _refuse(notes)
    value = cast("T", _converted(fits, wanted, notes))
    _refuse(notes)
    for problem in rules(value) if rules is not None else ():
        _note_at(problem, fits, notes)
    _refuse(notes)
    return value


def _documents(text: str | bytes, notes: Notes) -> list[tuple[str, Node]]:
    """Return the documents, the items of lists (`kind: WorkloadList`, as `get -o yaml` prints them) one by one, with their paths."""
    try:
        nodes = read_nodes(_decoded(text, notes), notes)
    except Unreadable as error:
        notes.found.append(error.problem)
        return []
    documents: list[tuple[str, Node]] = []
    for node in nodes:
        items = _items(node)
        if items is None:
            documents.append(("", node))
        else:
            documents.extend((f"items[{index}]", item) for index, item in enumerate(items.items))
    return documents


def _decoded(text: str | bytes, notes: Notes) -> str:
    if len(text) > notes.limits.text_bytes_max:
        raise Unreadable(notes.problem(Place(0, 0), "", f"larger than {notes.limits.text_bytes_max} bytes", "split the file"))
    if isinstance(text, str):
        return text.removeprefix("\ufeff")
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(text.count(b"\n", 0, error.start) + 1, 1)
        raise Unreadable(notes.problem(place, "", "not UTF-8 text", "save the file as UTF-8")) from None


def _items(node: Node) -> SequenceNode | None:
    if not isinstance(node, MappingNode) or "items" not in node.entries or "kind" not in node.entries:
        return None
    kind, items = node.entries["kind"][1], node.entries["items"][1]
    if isinstance(kind, ScalarNode) and kind.text.endswith("List") and isinstance(items, SequenceNode):
        return items
    return None


def _resource(node: Node, any_kind: bool, notes: Notes) -> Resource | None:
    before = len(notes.found)
    kind = _kind(node, any_kind, notes)
    if kind is None or not isinstance(node, MappingNode):
        return None
    entries = {name: entry for name, entry in node.entries.items() if name not in _IGNORED}
    body = MappingNode(place=node.place, entries=entries, weight=node.weight, height=node.height)
    fits = fit(body, _described(kind.type), notes)
    if len(notes.found) > before:
        return None
    resource = _converted(fits, kind.type, notes)
    if resource is not None:
        for problem in rule_problems(resource):
            _note_at(problem, fits, notes)
    return resource


def _kind(node: Node, any_kind: bool, notes: Notes) -> Kind | None:
    if not isinstance(node, MappingNode):
        notes.add(node.place, "", "must be a resource with apiVersion, kind, metadata and spec")
        return None
    for field, hint in (("apiVersion", f"write apiVersion: {API_VERSION}"), ("kind", "")):
        if field not in node.entries:
            notes.add(node.place, field, "is missing", hint)
    if "kind" not in node.entries:
        return None
    _, word = node.entries["kind"]
    text = word.text[:60] if isinstance(word, ScalarNode) else ""
    kind = BY_NAME.get(text)
    names = [known.name for known in KINDS if known.applied or any_kind]
    if kind is None:
        notes.add(word.place, "kind", f"unknown kind {text!r}", nearest(text, names))
    elif not (kind.applied or any_kind):
        notes.add(word.place, "kind", f"{kind.plural} are made by the control plane and cannot be applied", f"one of {', '.join(names)}")
        return None
    return kind


@cache
def _described(wanted: Hashable) -> inspect.Type:
    return inspect.type_info(wanted)


def _converted(fits: Fits, wanted: type[T], notes: Notes) -> T | None:
    # What `fit` let pass, msgspec converts; it has the last word.
    try:
        return msgspec.convert(fits.value, wanted)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$")
        _note_at(Problem(path=where.rstrip("`").removeprefix("."), message=message), fits, notes)
        return None


def _note_at(problem: Problem, fits: Fits, notes: Notes) -> None:
    """Note `problem` at the place of what it speaks of, or of the nearest thing around it."""
    path = problem.path
    while path and path not in fits.places:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    notes.add(fits.places.get(path, Place(0, 0)), problem.path, problem.message, problem.hint)


def _note_repeated(loaded: list[tuple[Resource, Place]], notes: Notes) -> None:
    seen: dict[tuple[str, str, str], Place] = {}
    for resource, place in loaded:
        kind, name = type(resource).__name__, resource.metadata.name
        first = seen.setdefault((kind, resource.metadata.namespace, name), place)
        if first is not place:
            notes.add(place, "metadata.name", f"{kind} {name} is there twice, first in line {first.line}", "remove one of the two")


def _refuse(notes: Notes) -> None:
    if notes.found:
        ordered = sorted(notes.found, key=lambda problem: (problem.line, problem.column))
        raise Invalid(ordered[: notes.limits.problems_max])


def reads_as_text(text: str) -> bool:
    """Return whether `text`, written without quotes, reads back as text under YAML 1.1 and 1.2 alike. Whether it may be written without
    quotes at all is the writer's business."""
    return is_text(ScalarNode(place=Place(0, 0), text=text, plain=True))
