"""Printing: tables that fit, JSON, YAML that can be applied again, names; colour on terminals only."""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from edgewise.cli import failures, tables
from edgewise.resources.kinds import BY_TYPE, Kind, Resource
from edgewise.resources.meta import API_VERSION

if TYPE_CHECKING:
    from edgewise.cli.options import OutputFormat

_GOOD: Final = frozenset(
    {"Online", "Healthy", "UpToDate", "Running", "Succeeded", "Successful", "Enrolled", "created", "configured", "True"}
)
_BAD: Final = frozenset(
    {"Error", "Errored", "Broken", "Failed", "RolledBack", "RollingBack", "Aborted", "Revoked", "Quarantined", "Warning", "Offline"}
)
_WAITING: Final = frozenset(
    {"Pending", "Progressing", "Paused", "Starting", "Stopping", "Updating", "OutOfDate", "Degraded", "AwaitingReconnect", "Inconclusive"}
)


def out(text: str) -> None:
    """Write to standard output, at once. A closed pipe ends the command quietly."""
    import typer

    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise typer.Exit(failures.pipe_closed()) from None


def note(text: str) -> None:
    """Write a line to standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def is_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def columns() -> int:
    """Return how wide the terminal is; written elsewhere, lines may be as long as they like."""
    return shutil.get_terminal_size((100, 24)).columns if is_terminal() else sys.maxsize


def in_colour() -> bool:
    """Whether to print in colour: on a terminal, unless `NO_COLOR` says otherwise."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str) -> str:
    """Colour a state on terminals."""
    if not in_colour():
        return text
    word = text.split(",", maxsplit=1)[0].strip()
    code = "32" if word in _GOOD else "31" if word in _BAD else "33" if word in _WAITING else ""
    return f"\033[{code}m{text}\033[0m" if code else text


def table(
    titles: Sequence[str], rows: Sequence[Sequence[str]], *, headers: bool = True, cut: bool = True, least: Sequence[int] = ()
) -> str:
    """Return rows in columns, at least `least` wide each. On a terminal, `cut` makes them as wide as it at most: the widest cells are cut.
    Written elsewhere, nothing is cut."""
    lines = [tuple(titles), *rows] if headers else list(rows)
    if not lines:
        return ""
    widths = [max(pair) for pair in zip(widths_of(lines), least or [0] * len(titles), strict=True)]
    if cut and is_terminal():
        widths = fitted(widths, shutil.get_terminal_size((100, 24)).columns, [len(title) for title in titles])
    return "".join(_line(line, widths, paint=index > 0 or not headers) for index, line in enumerate(lines))


def widths_of(lines: Sequence[Sequence[str]]) -> list[int]:
    """Return how wide each column must be to hold `lines`."""
    return [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]


def fitted(widths: Sequence[int], columns: int, least: Sequence[int]) -> list[int]:
    """Return widths that fit into `columns` with three spaces between them, taking from the widest first, never below `least`."""
    fitting = list(widths)
    surplus = sum(fitting) + 3 * (len(fitting) - 1) - columns
    while surplus > 0:
        shrinkable = [index for index, width in enumerate(fitting) if width > max(least[index], 8)]
        if not shrinkable:
            break
        widest = max(shrinkable, key=lambda index: fitting[index])
        fitting[widest] -= 1
        surplus -= 1
    return fitting


def _line(cells: Sequence[str], widths: Sequence[int], *, paint: bool) -> str:
    shown = []
    for cell, width in zip(cells, widths, strict=True):
        text = cell if len(cell) <= width else cell[: max(width - 1, 0)] + "…"
        shown.append((painted(text) if paint else text) + " " * (width - len(text)))
    return "   ".join(shown).rstrip() + "\n"


def resources(
    kind: Kind,
    items: Sequence[Resource],
    form: "OutputFormat",
    now: float,
    *,
    namespaces: bool,
    headers: bool = True,
    least: Sequence[int] = (),
) -> str:
    """Return resources of one kind as a list in the form that was asked for. `least`: widths of a table's columns."""
    match form:
        case "json":
            return as_json(listed(f"{kind.name}List", items))
        case "yaml":
            return as_yaml(listed(f"{kind.name}List", items))
        case "name":
            return "".join(f"{kind.name.lower()}/{item.metadata.name}\n" for item in items)
        case "table" | "wide":
            titles, rows = _cells(kind, items, form, now, namespaces=namespaces)
            return table(titles, rows, headers=headers, cut=form == "table", least=least)


def column_widths(kind: Kind, items: Sequence[Resource], form: "OutputFormat", now: float, *, namespaces: bool) -> list[int]:
    """Return the widths that a table of `items` has, so that rows which come later can align with it."""
    titles, rows = _cells(kind, items, form, now, namespaces=namespaces)
    return widths_of([titles, *rows])


def _cells(
    kind: Kind, items: Sequence[Resource], form: "OutputFormat", now: float, *, namespaces: bool
) -> tuple[list[str], list[list[str]]]:
    columns = tables.columns(kind, wide=form == "wide", namespaces=namespaces)
    return [column.title for column in columns], [[column.cell(item, now) for column in columns] for item in items]


def one(resource: Resource, form: "OutputFormat", now: float) -> str:
    """Return one resource in the form that was asked for."""
    match form:
        case "json":
            return as_json(_ordered(resource))
        case "yaml":
            return as_yaml(_ordered(resource))
        case _:
            return resources(BY_TYPE[type(resource)], [resource], form, now, namespaces=False)


def listed(kind: str, items: Sequence[Resource]) -> dict[str, object]:
    """Return a list as an object of its own, as the API answers it."""
    return {"apiVersion": API_VERSION, "kind": kind, "items": [_ordered(item) for item in items]}


def _ordered(resource: Resource) -> dict[str, object]:
    """Return a resource's fields in the order in which people write them."""
    fields: dict[str, object] = msgspec.to_builtins(resource)
    return {name: fields[name] for name in ("apiVersion", "kind", "metadata", "spec", "status") if name in fields} | fields


def as_json(value: object) -> str:
    """Return indented JSON."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n"


def as_yaml(value: object) -> str:
    """Return YAML that reads back as the same, whichever YAML version the reader follows."""
    import yaml

    from edgewise.resources.manifests import reads_as_text

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - every value is written out
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        style = "|" if "\n" in value else None if reads_as_text(value) else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    dumped: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)
    return dumped
