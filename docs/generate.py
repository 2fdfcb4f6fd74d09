# noqa: INP001 - a script, not a package
"""Writes the documentation that is made from the types: `python docs/generate.py`. With `--check` it only says whether it is current."""

import sys
from pathlib import Path

from edgewise.resources.schema import reference

FOLDER = Path(__file__).parent / "reference"


def main() -> int:
    """Write or check `docs/reference`; return the exit code."""
    pages = reference()
    stale = [name for name, text in pages.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text("utf-8") != text]
    surplus = [path for path in FOLDER.glob("*") if path.name not in pages]
    if "--check" in sys.argv[1:]:
        for name in [*stale, *(path.name for path in surplus)]:
            sys.stderr.write(f"docs/reference/{name} is not current: run python docs/generate.py\n")
        return 1 if stale or surplus else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(pages[name], "utf-8")
    for path in surplus:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
