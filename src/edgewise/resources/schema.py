"""JSON Schema and the reference documentation of all kinds, both made from the types. `docs/generate.py` writes the latter."""

import re
from enum import StrEnum
from functools import cache
from typing import Any, Final

import msgspec

from edgewise.resources import states as states_module
from edgewise.resources.kinds import KINDS, Kind
from edgewise.resources.meta import API_VERSION

Schema = dict[str, Any]
"""A JSON Schema (draft 2020-12): JSON by nature, so no type of ours."""

_REF: Final = "#/$defs/{name}"
_SNAKE: Final = re.compile(r"(?<=`)[a-z]+(?:_[a-z0-9]+)+(?=`)")
_GENERATED: Final = "<!-- Made from the types by `python docs/generate.py`. Do not edit. -->\n\n"


def json_schema() -> Schema:
    """Return one schema for any resource, told apart by `kind`."""
    refs, components = msgspec.json.schema_components([kind.type for kind in KINDS], ref_template=_REF)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:{API_VERSION.replace('/', ':')}",
        "title": f"Edgewise resources, {API_VERSION}",
        "oneOf": list(refs),
        "discriminator": {"propertyName": "kind"},
        "$defs": _spoken(components),
    }


def kind_schema(kind: Kind) -> Schema:
    """Return the schema of one kind."""
    (ref,), components = msgspec.json.schema_components([kind.type], ref_template=_REF)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind.name, **ref, "$defs": _spoken(components)}


def _spoken(value: Any) -> Any:
    """Name fields in descriptions as they are written in YAML (`observeFor`, not `observe_for`), on one line."""
    match value:
        case {"description": str(text), **rest}:
            return {"description": re.sub(r"\s+", " ", _SNAKE.sub(_camel, text)).strip(), **_spoken(rest)}
        case dict():
            return {key: _spoken(each) for key, each in value.items()}
        case list() | tuple():
            return [_spoken(each) for each in value]
        case _:
            return value


def _camel(match: re.Match[str]) -> str:
    first, *rest = match[0].split("_")
    return first + "".join(word.capitalize() for word in rest)


def reference() -> dict[str, str]:
    """Return the reference documentation: file name to Markdown, one file per kind and an index."""
    pages = {f"{kind.name.lower()}.md": _page(kind) for kind in KINDS}
    return {"README.md": _index(), **pages, "schema.json": _json(json_schema())}


def _index() -> str:
    rows = [
        f"| [`{kind.name}`]({kind.name.lower()}.md) | `{kind.plural}`{_shorts(kind)} | {'yes' if kind.namespaced else 'no'} "
        f"| {'you' if kind.applied else 'the control plane'} | {_sentence(kind_schema(kind)['$defs'][kind.name])} |"
        for kind in KINDS
    ]
    return (
        f"# Resources\n\n{_GENERATED}"
        f"Every resource has `apiVersion: {API_VERSION}`, its `kind`, `metadata`, `spec` and `status`. You write the spec;\n"
        "the status says what was seen. YAML is read strictly: an unknown field, a wrong type or an ambiguous value is an\n"
        "error with file, line and path. [`schema.json`](schema.json) is the JSON Schema of all kinds; `edgewise schema`\n"
        "prints it.\n\n"
        "| kind | called | in a namespace | written by | what it is |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def _page(kind: Kind) -> str:
    components: Schema = kind_schema(kind)["$defs"]
    own = components[kind.name]
    parts = [f"# {kind.name}\n\n{_GENERATED}{_text(own)}\n\n{_facts(kind)}\n"]
    order = _reachable(kind.name, components)
    parts += [_section(name, components[name]) for name in order]
    return "\n".join(parts)


def _facts(kind: Kind) -> str:
    words = f"Called `{kind.plural}`{_shorts(kind)} on the command line."
    where = " Belongs to a namespace." if kind.namespaced else " Belongs to no namespace."
    return words + where + ("" if kind.applied else " Made by the control plane; it cannot be applied.")


def _shorts(kind: Kind) -> str:
    return "".join(f", `{short}`" for short in kind.short)


def _reachable(first: str, components: Schema) -> list[str]:
    """Return the structs that `first` refers to, itself included, in the order in which a reader meets them."""
    order: list[str] = []
    waiting = [first]
    while waiting:
        name = waiting.pop(0)
        if name in order or "properties" not in components[name]:
            continue
        order.append(name)
        waiting[:0] = re.findall(r"#/\$defs/([A-Za-z]+)", str(components[name]))
    return order


def _section(name: str, schema: Schema) -> str:
    required = set(schema.get("required", ()))
    lines = [f"## {name}\n", f"{_text(schema)}\n"]
    if not schema["properties"]:
        return "\n".join([*lines, "No fields: write `{}`.\n"])
    lines += ["| field | type | default | |", "|---|---|---|---|"]
    for field, each in schema["properties"].items():
        default = "required" if field in required else _default(each)
        lines.append(f"| `{field}` | {_type(each)} | {default} | {_note(each)} |")
    return "\n".join([*lines, ""])


def _type(schema: Schema) -> str:
    """Return a type as people say it."""
    match schema:
        case {"$ref": ref}:
            name = str(ref).rsplit("/", maxsplit=1)[-1]
            said = ", ".join(f"`{word}`" for word in _states()[name]) if name in _states() else f"[{name}](#{name.lower()})"
        case {"anyOf": options} | {"oneOf": options}:
            said = " or ".join(dict.fromkeys(_type(option) for option in options if option != {"type": "null"}))
        case {"enum": values}:
            said = ", ".join(f"`{value}`" for value in values if value != "")
        case {"const": value}:
            said = f"`{value}`"
        case {"type": "array"}:
            said = f"list of {_type(schema['items'])}" if schema.get("items") else "list"
        case {"type": "object", "additionalProperties": dict(inner)}:
            said = f"map of {_type(inner)}"
        case _:
            kind = str(schema.get("type", "any"))
            said = {"integer": "whole number", "boolean": "true or false", "object": "map"}.get(kind, kind)
    return said


@cache
def _states() -> dict[str, tuple[str, ...]]:
    """Return the words of each state, by the enumeration's name."""
    return {name: tuple(states) for name, states in vars(states_module).items() if isinstance(states, type) and issubclass(states, StrEnum)}


def _default(schema: Schema) -> str:
    value = schema.get("default")
    if value is None or value in ("", [], (), {}) or isinstance(value, dict):
        return ""
    return f"`{msgspec.json.encode(value).decode()}`" if not isinstance(value, str) else f"`{value}`"


def _note(schema: Schema) -> str:
    options = [option for option in schema.get("anyOf", ()) if isinstance(option, dict)]
    words = [str(each["description"]) for each in (schema, *options) if "description" in each]
    names = (("minimum", "at least"), ("exclusiveMinimum", "more than"), ("maximum", "at most"), ("minItems", "entries, at least"))
    words += [f"{word} {each[key]}" for each in (schema, *options) for key, word in names if key in each]
    return "; ".join(dict.fromkeys(words)).replace("|", "\\|").replace("\n", " ")


def _text(schema: Schema) -> str:
    return str(schema.get("description", ""))


def _sentence(schema: Schema) -> str:
    return _text(schema).split(". ")[0].rstrip(".")


def _json(value: Schema) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"
