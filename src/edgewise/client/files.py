"""Reading resources from files and folders."""

from pathlib import Path
from typing import Final

from edgewise.client.errors import Error, Invalid, Problem
from edgewise.resources.kinds import Resource
from edgewise.resources.manifests import LIMITS
from edgewise.resources.manifests import load as load_text

SUFFIXES: Final = (".yaml", ".yml", ".json")
FILES_MAX: Final = 1_000


def load(path: str | Path) -> tuple[Resource, ...]:
    """Return the resources in a file, or in all `.yaml`, `.yml` and `.json` files of a folder, in the order of their names.

    Raises `Invalid` with the problems of all files, `Error` when something cannot be read.
    """
    root = Path(path)
    files = _files(root)
    resources: list[Resource] = []
    problems: list[Problem] = []
    for file in files:
        try:
            resources.extend(load_text(read_bounded(file), str(file)))
        except Invalid as error:
            problems.extend(error.problems)
    if problems:
        raise Invalid(problems)
    return tuple(resources)


def read_bounded(path: Path, limit: int = LIMITS.text_bytes_max) -> bytes:
    """Return a file's bytes, one more than `limit` at most. Raises `Error`."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise Error(f"{path} cannot be read: {error.strerror}") from None


def _files(root: Path) -> list[Path]:
    if not root.is_dir():
        return [root]
    files = sorted(each for each in root.iterdir() if each.suffix in SUFFIXES and each.is_file())
    if not files:
        raise Error(f"{root} holds no {', '.join(SUFFIXES)} file")
    if len(files) > FILES_MAX:
        raise Error(f"{root} holds more than {FILES_MAX} files")
    return files
