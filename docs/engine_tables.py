# noqa: INP001 - a script, not a package
"""Fills the tables and diagrams of docs/engine.md from the engine's state tables: `python docs/engine_tables.py`."""

import re
from enum import StrEnum
from pathlib import Path

from edgewise.engine.tables import INSTANCE_STATE, SLOT_TABLE, UPDATE_TABLE

PAGE = Path(__file__).with_name("engine.md")


def diagram(table: dict[tuple[StrEnum, StrEnum], StrEnum], start: StrEnum) -> str:
    """Return a Mermaid state diagram, one arrow per pair of states."""
    arrows: dict[tuple[StrEnum, StrEnum], list[str]] = {}
    for (state, event), after in table.items():
        if state is not after:
            arrows.setdefault((state, after), []).append(event)
    lines = [f"    {state} --> {after}: {', '.join(events)}" for (state, after), events in arrows.items()]
    return "\n".join(["```mermaid", "stateDiagram-v2", f"    [*] --> {start}", *lines, "```"])


def matrix(table: dict[tuple[StrEnum, StrEnum], StrEnum], states: type[StrEnum], events: type[StrEnum]) -> str:
    """Return the whole table, states down and events across; a dash is a pair that does not happen."""
    head = ["| | " + " | ".join(events) + " |", "|---|" + "---|" * len(events)]
    rows = [f"| **{state}** | " + " | ".join(table.get((state, event), "-") for event in events) + " |" for state in states]
    return "\n".join([*head, *rows])


def parts() -> dict[str, str]:
    """Return what goes between the page's marks."""
    update_state, update_event = (type(each) for each in next(iter(UPDATE_TABLE)))
    slot_phase, slot_event = (type(each) for each in next(iter(SLOT_TABLE)))
    said = "\n".join(["| slot | instance |", "|---|---|", *(f"| {phase} | {state} |" for phase, state in INSTANCE_STATE.items())])
    return {
        "update-diagram": diagram(UPDATE_TABLE, next(iter(UPDATE_TABLE))[0]),
        "update-table": matrix(UPDATE_TABLE, update_state, update_event),
        "slot-diagram": diagram(SLOT_TABLE, next(iter(SLOT_TABLE))[0]),
        "slot-table": matrix(SLOT_TABLE, slot_phase, slot_event),
        "instance-states": said,
    }


def filled(page: str) -> str:
    """Return `page` with everything between its marks made anew."""
    for name, text in parts().items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- end -->)", re.DOTALL)
        page, count = mark.subn(lambda match, text=text: match.group(1) + text + match.group(2), page)
        if count != 1:
            raise SystemExit(f"docs/engine.md has {count} places for {name}")
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text()))
