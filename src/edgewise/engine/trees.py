"""Where installed files are on the disk, and how they go. What puts them there is `install.py`, which a resident process does not load.

A folder below `trees/` is whole, always.
"""

from typing import Final

from edgewise.ports.files import Files

TREES: Final = "trees"
STAGING: Final = "staging"
MANIFESTS: Final = "manifests"
INSTANCES: Final = "instances"
_GONE: Final = "gone-"


def installed_trees(files: Files) -> tuple[str, ...]:
    """Return the installed trees, all of them whole. Raises `FilesError`."""
    return tuple(entry.name for entry in files.list(TREES) if entry.kind == "folder")


def remove(files: Files, keep_trees: tuple[str, ...], folders: tuple[str, ...] = ()) -> None:
    """Remove installed and staged trees other than `keep_trees`, and `folders` of instances that are gone (names below `instances/`): how
    the engine's `Remove` is carried out. A tree loses its name first, so that a power cut leaves no part of one where whole ones are.
    Raises `FilesError`."""
    keep = set(keep_trees)
    for entry in files.list(TREES):
        if entry.name not in keep:
            gone = f"{STAGING}/{_GONE}{entry.name}"
            files.make_folder(STAGING)
            files.remove(gone)
            files.rename(f"{TREES}/{entry.name}", gone)
    for folder in (STAGING, MANIFESTS):
        for entry in files.list(folder):
            if entry.name not in keep:
                files.remove(f"{folder}/{entry.name}")
    for folder in folders:
        files.remove(f"{INSTANCES}/{folder}")
