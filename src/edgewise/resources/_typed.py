"""Makes values of the types out of nodes, and says of each thing that does not fit where it stands and what to write instead.

Driven by msgspec's own description of the types, so that the types stay the one definition. Several problems are collected in one pass.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Final

import msgspec
from msgspec import inspect

from edgewise.resources._nodes import MappingNode, Node, Notes, Place, ScalarNode, SequenceNode

Value = str | int | float | bool | None | list["Value"] | dict[str, "Value"]
"""What a node becomes: plain values, which msgspec then converts."""

_ODD_NUMBER: Final = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])*(\.[0-9_]*)?|[-+]?0[bB][01_]+|0x[0-9a-fA-F_]+")
_READERS: Final[tuple[tuple[re.Pattern[str], Callable[[str], int | float | bool]], ...]] = (
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?(0|[1-9][0-9]{0,18})"), int),
    (re.compile(r"0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}"), lambda text: int(text, 0)),
    (re.compile(r"(?![-+]?0[0-9])[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?"), float),
    (re.compile(r"([-+]?\.(inf|Inf|INF))|\.(nan|NaN|NAN)"), lambda text: float(text.replace(".", ""))),
)
_NUMBER: Final = re.compile(r"[-+]?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_DIGITS: Final = re.compile(r"[0-9_]+")
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_OLD_BOOLEANS: Final = {"yes": True, "on": True, "no": False, "off": False}
"""Words that YAML 1.1 takes for booleans and YAML 1.2 for text."""

_WORDS: Final = {"scalar": "a single value", "list": "a list", "mapping": "a mapping"}


class Fits(msgspec.Struct, frozen=True, kw_only=True):
    """The value of a node, and where each part of it stands, by its path."""

    value: Value
    places: Mapping[str, Place]


def fit(node: Node, wanted: inspect.Type, notes: Notes) -> Fits:
    """Return what `node` means where `wanted` is expected. What does not fit is left out and noted."""
    reader = _Reader(notes)
    value = reader.read(node, wanted, "")
    return Fits(value=None if isinstance(value, _Skip) else value, places=reader.places)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the word of `known` that was probably meant, or what is known when they are few."""
    names = sorted(known)
    folded = {_folded(name): name for name in names}
    matches = get_close_matches(_folded(word), folded, n=1, cutoff=0.6)
    if matches:
        return f"did you mean '{folded[matches[0]]}'?"
    return f"known here: {', '.join(names)}" if 0 < len(names) <= 12 else ""


def _folded(word: str) -> str:
    return word.replace("_", "").replace("-", "").lower()


class _Skip:
    """Stands for a value that did not fit."""


_SKIP: Final = _Skip()
_Read = Value | _Skip


class _Reader:
    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self.places: dict[str, Place] = {}

    def read(self, node: Node, wanted: inspect.Type, path: str) -> _Read:
        if self._notes.full:
            return _SKIP
        self.places.setdefault(path, node.place)
        wanted, description = _unwrapped(wanted)
        options, description = _options(wanted, description)
        if _is_null(node):
            return self._null(node, options, path)
        match options:
            case [inspect.StructType() as struct]:
                return self._struct(node, struct, path)
            case [inspect.DictType() as mapping]:
                return self._dict(node, mapping, path)
            case [inspect.VarTupleType() | inspect.ListType() | inspect.TupleType() as sequence]:
                return self._list(node, sequence, path)
            case _:
                return self._scalar(node, options, description, path)

    # ---- collections ----

    def _struct(self, node: Node, struct: inspect.StructType, path: str) -> _Read:
        if not isinstance(node, MappingNode):
            return self._wrong_shape(node, "mapping", path)
        fields = {field.encode_name: field for field in struct.fields}
        known = {*fields, struct.tag_field} if struct.tag_field else set(fields)
        value: dict[str, Value] = {}
        for name, (key, child) in node.entries.items():
            inner = _joined(path, name)
            self.places[inner] = key.place
            if name == struct.tag_field:
                value[name] = str(struct.tag)
            elif name in fields:
                read = self.read(child, fields[name].type, inner)
                if not isinstance(read, _Skip):
                    value[name] = read
            elif struct.forbid_unknown_fields:
                self._notes.add(key.place, path, f"unknown field {_short(name)!r}", nearest(name, known))
        for name, field in fields.items():
            if field.required and name not in node.entries:
                self._notes.add(node.place, _joined(path, name), "is missing")
        return value

    def _dict(self, node: Node, wanted: inspect.DictType, path: str) -> _Read:
        if not isinstance(node, MappingNode):
            return self._wrong_shape(node, "mapping", path)
        if wanted.max_length is not None and len(node.entries) > wanted.max_length:
            self._notes.add(node.place, path, f"{len(node.entries)} entries, at most {wanted.max_length} are allowed")
        key_type, description = _unwrapped(wanted.key_type)
        value: dict[str, Value] = {}
        for name, (key, child) in node.entries.items():
            inner = _joined(path, name)
            self.places[inner] = key.place
            if isinstance(key_type, inspect.StrType):
                self._check_text(name, key_type, description, key.place, inner)
            read = self.read(child, wanted.value_type, inner)
            if not isinstance(read, _Skip):
                value[name] = read
        return value

    def _list(self, node: Node, wanted: inspect.VarTupleType | inspect.ListType | inspect.TupleType, path: str) -> _Read:
        if not isinstance(node, SequenceNode):
            return self._wrong_shape(node, "list", path)
        if isinstance(wanted, inspect.TupleType):
            return self._row(node, wanted, path)
        if wanted.min_length is not None and len(node.items) < wanted.min_length:
            self._notes.add(node.place, path, f"needs at least {wanted.min_length} entry" + ("" if wanted.min_length == 1 else "ies"))
        if wanted.max_length is not None and len(node.items) > wanted.max_length:
            self._notes.add(node.place, path, f"{len(node.items)} entries, at most {wanted.max_length} are allowed")
        read = [self.read(item, wanted.item_type, f"{path}[{index}]") for index, item in enumerate(node.items)]
        return [value for value in read if not isinstance(value, _Skip)]

    def _row(self, node: SequenceNode, wanted: inspect.TupleType, path: str) -> _Read:
        if len(node.items) != len(wanted.item_types):
            self._notes.add(node.place, path, f"needs {len(wanted.item_types)} entries, has {len(node.items)}")
            return _SKIP
        read = [self.read(item, wanted.item_types[index], f"{path}[{index}]") for index, item in enumerate(node.items)]
        return _SKIP if any(isinstance(value, _Skip) for value in read) else [value for value in read if not isinstance(value, _Skip)]

    # ---- scalars ----

    def _scalar(self, node: Node, options: list[inspect.Type], description: str, path: str) -> _Read:
        if not isinstance(node, ScalarNode):
            return self._wrong_shape(node, "scalar", path)
        meaning = _meaning(node)
        option = next((option for option in options if _takes(option, node, meaning)), None)
        match option:
            case inspect.LiteralType() | inspect.EnumType():
                return self._choice(node, meaning, _choices(option), path)
            case inspect.IntType() | inspect.FloatType() if isinstance(meaning, int | float):
                return self._bounded(node, meaning, option, path)
            case inspect.StrType():
                return node.text if self._check_text(node.text, option, description, node.place, path) else _SKIP
            case inspect.BoolType():
                return meaning
            case _:
                self._notes.add(node.place, path, *_mismatch(node, options, description))
                return _SKIP

    def _check_text(self, text: str, wanted: inspect.StrType, description: str, place: Place, path: str) -> bool:
        if wanted.pattern is not None and re.search(wanted.pattern, text) is None:
            self._notes.add(place, path, f"{_short(text)!r} does not fit", description.rstrip(".") or f"must match {wanted.pattern}")
        elif wanted.min_length is not None and len(text) < wanted.min_length:
            self._notes.add(
                place, path, "must not be empty" if wanted.min_length == 1 else f"is shorter than {wanted.min_length} characters"
            )
        elif wanted.max_length is not None and len(text) > wanted.max_length:
            self._notes.add(place, path, f"{len(text)} characters, at most {wanted.max_length} are allowed")
        else:
            return True
        return False

    def _choice(self, node: ScalarNode, meaning: Value, choices: tuple[str | int, ...], path: str) -> _Read:
        if node.text in choices and not (node.plain and not isinstance(meaning, str)):
            return node.text
        if isinstance(meaning, int) and not isinstance(meaning, bool) and meaning in choices:
            return meaning
        words = [_word(choice) for choice in choices if choice != ""]
        self._notes.add(
            node.place, path, f"{_short(node.text)!r} is none of {', '.join(words)}", nearest(node.text, words) if len(words) > 1 else ""
        )
        return _SKIP

    def _bounded(self, node: ScalarNode, value: float, wanted: inspect.IntType | inspect.FloatType, path: str) -> _Read:
        bounds = (
            (wanted.ge is not None and value < wanted.ge, f"must be at least {_plain(wanted.ge)}"),
            (wanted.gt is not None and value <= wanted.gt, f"must be more than {_plain(wanted.gt)}"),
            (wanted.le is not None and value > wanted.le, f"must be at most {_plain(wanted.le)}"),
            (wanted.lt is not None and value >= wanted.lt, f"must be less than {_plain(wanted.lt)}"),
        )
        for broken, message in bounds:
            if broken:
                self._notes.add(node.place, path, f"{message}, is {node.text}")
                return _SKIP
        return value

    # ---- problems ----

    def _null(self, node: Node, options: list[inspect.Type], path: str) -> _Read:
        empty = {inspect.StructType: "{}", inspect.DictType: "{}", inspect.VarTupleType: "[]", inspect.ListType: "[]"}
        word = next((empty[type(option)] for option in options if type(option) in empty), "")
        hint = f"write {word}, or remove this line" if word else 'give a value, write "" for empty text, or remove this line'
        self._notes.add(node.place, path, "has no value", hint)
        return _SKIP

    def _wrong_shape(self, node: Node, wanted: str, path: str) -> _Skip:
        shape = {ScalarNode: "scalar", SequenceNode: "list", MappingNode: "mapping"}[type(node)]
        hint = "begin each entry with '- '" if wanted == "list" else ""
        self._notes.add(node.place, path, f"must be {_WORDS[wanted]}, is {_WORDS[shape]}", hint)
        return _SKIP


def _unwrapped(wanted: inspect.Type) -> tuple[inspect.Type, str]:
    description = ""
    while isinstance(wanted, inspect.Metadata):
        description = str((wanted.extra_json_schema or {}).get("description", description))
        wanted = wanted.type
    return wanted, description


def _options(wanted: inspect.Type, description: str) -> tuple[list[inspect.Type], str]:
    if not isinstance(wanted, inspect.UnionType):
        return [wanted], description
    options = []
    for option in wanted.types:
        inner, said = _unwrapped(option)
        description = said or description
        if not isinstance(inner, inspect.NoneType):
            options.append(inner)
    # Exact kinds first: a whole number stays one where both are allowed.
    order = (inspect.BoolType, inspect.IntType, inspect.FloatType)
    return sorted(options, key=lambda option: order.index(type(option)) if isinstance(option, order) else len(order)), description


def _choices(option: inspect.LiteralType | inspect.EnumType) -> tuple[str | int, ...]:
    if isinstance(option, inspect.LiteralType):
        return tuple(value for value in option.values if isinstance(value, str | int))
    return tuple(member.value for member in option.cls)


def _word(choice: str | int) -> str:
    """Return a choice as people write it: files' modes in octal."""
    return choice if isinstance(choice, str) else f"0o{choice:o}" if choice > 7 else str(choice)


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.plain and node.text in _NULLS


def _takes(option: inspect.Type, node: ScalarNode, meaning: Value) -> bool:
    match option:
        case inspect.LiteralType() | inspect.EnumType():
            return True
        case inspect.BoolType():
            return isinstance(meaning, bool)
        case inspect.IntType():
            return isinstance(meaning, int) and not isinstance(meaning, bool)
        case inspect.FloatType():
            return isinstance(meaning, int | float) and not isinstance(meaning, bool)
        case inspect.StrType():
            return isinstance(meaning, str) and not _ambiguous(node)
        case _:
            return False


def _meaning(node: ScalarNode) -> str | int | float | bool:
    """Return what the scalar stands for by the core schema of YAML 1.2."""
    text = node.text
    if node.plain:
        for pattern, read in _READERS:
            if pattern.fullmatch(text):
                return read(text)
    return text


def _ambiguous(node: ScalarNode) -> bool:
    """Whether YAML 1.1 takes this plain text for a number or boolean, and YAML 1.2 for text."""
    if not node.plain or not isinstance(_meaning(node), str):
        return False
    return node.text.lower() in _OLD_BOOLEANS or _ODD_NUMBER.fullmatch(node.text) is not None


def _mismatch(node: ScalarNode, options: list[inspect.Type], description: str) -> tuple[str, str]:
    """Return what is wrong with a scalar that fits none of `options`, and what to write."""
    text, kinds = _short(node.text), {type(option) for option in options}
    numeric = bool(kinds & {inspect.IntType, inspect.FloatType})
    old = _OLD_BOOLEANS.get(node.text.lower()) if node.plain else None
    if old is not None and inspect.BoolType in kinds:
        return f"{text} is ambiguous: YAML readers differ on it", _either(str(old).lower(), text, kinds)
    if numeric and _ambiguous(node) and old is None:
        plain = text.replace("_", "").lstrip("0") if _DIGITS.fullmatch(text) else "the number in plain digits"
        return f"{text} is ambiguous: YAML readers differ on it", _either(plain or "0", text, kinds)
    if inspect.StrType in kinds:
        patterns = [option.pattern for option in options if isinstance(option, inspect.StrType) and option.pattern]
        if any(re.search(pattern, node.text) is None for pattern in patterns):
            return f"{text!r} does not fit", description.rstrip(".")
        return "must be a string", f'write "{text}"'
    if not numeric:
        return f"must be true or false, is {text!r}", ""
    word = "a number" if inspect.FloatType in kinds else "a whole number"
    quoted = not node.plain and _NUMBER.fullmatch(node.text)
    return f"must be {word}, is {'text' if quoted else repr(text)}", f"write {text} without quotes" if quoted else ""


def _either(plain: str, text: str, kinds: set[type]) -> str:
    return f"write {plain}" + (f', or "{text}" for text' if inspect.StrType in kinds else "")


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _plain(bound: float | None) -> float | None:
    """Return a bound as people write it: 1, not 1.0. Types that differ in nothing else are one and the same for Python."""
    return int(bound) if bound is not None and float(bound).is_integer() else bound


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def is_text(node: ScalarNode) -> bool:
    """Return whether every YAML version takes this scalar for text."""
    return isinstance(_meaning(node), str) and not _ambiguous(node) and not _is_null(node)
