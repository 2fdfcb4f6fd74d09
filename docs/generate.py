# noqa: INP001 - a script, not a package
"""Writes the documentation that is made from the code: `python docs/generate.py`. With `--check` it only says whether it is current."""

import re
import sys
from pathlib import Path

from edgewise.resources.schema import reference
from edgewise.twin.invariants import INVARIANTS
from edgewise.twin.library import names, scenario

DOCS = Path(__file__).parent
FOLDER = DOCS / "reference"
TWIN = DOCS / "twin.md"


def main() -> int:
    """Write or check what is made; return the exit code."""
    pages = {FOLDER / name: text for name, text in reference().items()}
    pages[TWIN] = with_invariants(with_scenarios(TWIN.read_text("utf-8")))
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
    surplus = [path for path in FOLDER.glob("*") if path not in pages]
    if "--check" in sys.argv[1:]:
        for path in [*stale, *surplus]:
            sys.stderr.write(f"{path.relative_to(DOCS.parent)} is not current: run python docs/generate.py\n")
        return 1 if stale or surplus else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(pages[path], "utf-8")
    for path in surplus:
        path.unlink()
    return 0


def with_scenarios(page: str) -> str:
    """Return the page on the twin with the table of the scenarios that come with Edgewise."""
    rows = [f"| `{name}` | {scenario(name).description} |" for name in names()]
    table = "\n".join(("| scenario | what happens |", "|---|---|", *rows))
    return _filled(page, "scenarios", table)


def with_invariants(page: str) -> str:
    """Return the page on the twin with the table of what every run must keep."""
    rows = [f"| `{name}` | {each.promise} | {'yes' if each.cheap else ''} |" for name, each in INVARIANTS.items()]
    table = "\n".join(("| invariant | promise | in rehearsals too |", "|---|---|---|", *rows))
    return _filled(page, "invariants", table)


def _filled(page: str, name: str, table: str) -> str:
    mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    page, count = mark.subn(lambda match: f"{match[1]}{table}\n{match[2]}", page)
    if count != 1:
        raise SystemExit(f"{TWIN.name} has {count} places for the table of {name}")
    return page


if __name__ == "__main__":
    sys.exit(main())
