"""Where installed files are on the disk, and how they go. What puts them there is `install.py`, which a resident process does not load.

A folder below `trees/` was whole when it got its name. What rots later shows in the size of its files, or not at all as long as nobody
reads them: see `whole_trees`.
"""

from typing import Final

import msgspec

from edgewise.ports.files import Files, FilesError
from edgewise.resources.artifact import File
from edgewise.resources.decoding import UNREADABLE

TREES: Final = "trees"
STAGING: Final = "staging"
MANIFESTS: Final = "manifests"
INSTANCES: Final = "instances"
_GONE: Final = "gone-"
_MANIFEST_BYTES_MAX: Final = 16_000_000


def installed_trees(files: Files) -> tuple[str, ...]:
    """Return the installed trees. Raises `FilesError`."""
    return tuple(entry.name for entry in files.list(TREES) if entry.kind == "folder")


def whole_trees(files: Files) -> tuple[str, ...]:
    """Return the installed trees that miss no file and hold none of another size than was installed. Contents are not read: that would take
    a device minutes of its start. Raises `FilesError`."""
    return tuple(tree for tree in installed_trees(files) if is_whole(files, tree))


def is_whole(files: Files, tree: str) -> bool:
    """Whether an installed tree has all its files in their sizes, as far as can be told."""
    sizes: dict[str, dict[str, int]] = {}
    for file in held(files, tree):
        folder, _, name = f"{TREES}/{tree}/{file.path}".rpartition("/")
        if folder not in sizes:
            try:
                sizes[folder] = {entry.name: entry.size for entry in files.list(folder) if entry.kind == "file"}
            except FilesError:
                return False
        if sizes[folder].get(name) != file.size:
            return False
    return True


def held(files: Files, tree: str) -> tuple[File, ...]:
    """Return what an installed tree was made of; nothing when that cannot be read."""
    try:
        return msgspec.msgpack.decode(files.read(f"{MANIFESTS}/{tree}", _MANIFEST_BYTES_MAX), type=tuple[File, ...])
    except (FilesError, *UNREADABLE):
        return ()


def set_aside(files: Files, tree: str) -> None:
    """Take its name from an installed tree; `remove` does away with the rest. Raises `FilesError`."""
    gone = f"{STAGING}/{_GONE}{tree}"
    files.make_folder(STAGING)
    files.remove(gone)
    files.rename(f"{TREES}/{tree}", gone)


def remove(files: Files, keep_trees: tuple[str, ...], folders: tuple[str, ...] = ()) -> None:
    """Remove installed and staged trees other than `keep_trees`, and `folders` of instances that are gone (names below `instances/`): how
    the engine's `Remove` is carried out. A tree loses its name first, so that a power cut leaves no part of one where whole ones are.
    Raises `FilesError`."""
    keep = set(keep_trees)
    for entry in files.list(TREES):
        if entry.name not in keep:
            set_aside(files, entry.name)
    for folder in (STAGING, MANIFESTS):
        for entry in files.list(folder):
            if entry.name not in keep:
                files.remove(f"{folder}/{entry.name}")
    for folder in folders:
        files.remove(f"{INSTANCES}/{folder}")
