"""The only segment of a lane, emptied where it stands because the disk has no room for another one.

A full disk takes a new name, but no new bytes. So the segment is first given a name that says what the lane counts once all in it is
dropped; then its bytes are cut off, the next segment begins in their place, and gets its own name. Whatever cuts that short, there is the
segment as it was, the name that says it all (whatever the file holds then), or the next segment, whole.
"""

from typing import Final

import msgspec

from edgewise.engine import segments
from edgewise.engine.lane_state import STATE, LaneState, decoded, encoded
from edgewise.ports.files import Files, FilesError, Missing
from edgewise.resources.decoding import UNREADABLE

_PREFIX: Final = "emptied"
SMALLEST_BYTES: Final = segments.HEADER_BYTES + segments.FRAME_BYTES
"""What is left of an emptied segment besides what its lane counts."""


class Emptied(msgspec.Struct, frozen=True):
    """A file that was segment `number`, and what its lane counts without it."""

    name: str
    number: int
    state: LaneState


def name_of(number: int, state: LaneState) -> str:
    """Return the name of a segment that is being emptied: below 200 characters, checksummed as frames are."""
    return f"{_PREFIX}-{number:08d}-{segments.frame(number, 0, STATE, encoded(state)).hex()}"


def read(name: str) -> Emptied | None:
    """Return what a name says; None for any other name, and for one that a newer program gave."""
    parts = name.split("-")
    if len(parts) != len(("prefix", "number", "frame")) or parts[0] != _PREFIX:
        return None
    try:
        number = int(parts[1])
        frames = segments.scan_from(bytes.fromhex(parts[2]), 0, number)
        return Emptied(name, number, decoded(frames[0].payload)) if len(frames) == 1 and frames[0].kind == STATE else None
    except (ValueError, *UNREADABLE):
        return None


def find(files: Files, folder: str) -> tuple[Emptied, ...]:
    """Return those in a folder, oldest first. Raises `FilesError`."""
    found = [read(entry.name) for entry in files.list(folder) if entry.kind == "file"]
    return tuple(sorted((one for one in found if one is not None), key=lambda one: one.number))


def is_there(files: Files, path: str) -> bool:
    """Return whether a segment has its telling name, for good; asked before its bytes are cut off, because a renaming that failed may have
    come to pass all the same. Raises `FilesError`."""
    try:
        files.read_at(path, 0, 0)
    except Missing:
        return False
    files.sync_folder(path.rpartition("/")[0])
    return True


def clear(files: Files, folder: str, left: tuple[Emptied, ...]) -> None:
    """Remove what later segments have made needless. What the disk does not do now is done at the next start."""
    try:
        for one in left:
            files.remove(f"{folder}/{one.name}")
    except FilesError:
        return
