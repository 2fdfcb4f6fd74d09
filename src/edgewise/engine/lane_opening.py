"""What is found of a lane when the outbox is opened."""

import msgspec

from edgewise.engine import emptied, segments
from edgewise.engine.lane_state import ITEM, NUMBER_BYTES, STATE, LaneState, Run, decoded, later, note, number_of
from edgewise.ports.files import Files
from edgewise.resources.decoding import UNREADABLE


class Found(msgspec.Struct, kw_only=True):
    """What a lane left behind. `sizes`: the bytes of every segment that may be kept; `emptied`: the path of a segment whose emptying was
    cut short; `damaged`: something is missing besides a last write that was cut."""

    state: LaneState = LaneState()
    runs: list[Run] = msgspec.field(default_factory=list)
    sizes: dict[int, int] = msgspec.field(default_factory=dict)
    number: int = 0
    emptied: str = ""
    damaged: bool = False

    @property
    def nothing(self) -> bool:
        """Whether there is no lane yet."""
        return not self.sizes and not self.emptied


def found_in(files: Files, folder: str, use: int, limit: int) -> Found:
    """Read a lane's folder, no segment beyond `limit` bytes. Raises `FilesError`, `SegmentNewer`."""
    found = Found()
    numbers, names = segments.numbers_in(files, folder), emptied.find(files, folder)
    for number in numbers:
        _load(found, number, _scanned(files, segments.path_of(folder, number), use, limit), newest=number == numbers[-1])
    last = names[-1] if names and names[-1].number >= found.number else None
    emptied.clear(files, folder, names[:-1] if last else names)
    if last:
        found.number, found.emptied, found.state = last.number, f"{folder}/{last.name}", later(found.state, last.state)
    return found


def _scanned(files: Files, path: str, use: int, limit: int) -> segments.Scanned | None:
    try:
        return segments.load(files, path, use, limit)
    except segments.SegmentDamaged:
        return None


def _load(found: Found, number: int, scanned: segments.Scanned | None, *, newest: bool) -> None:
    if scanned is None or scanned.number != number or not scanned.frames or scanned.damaged or (scanned.torn and not newest):
        found.damaged = True
    found.number, found.sizes[number] = number, scanned.good if scanned else 0
    for frame in scanned.frames if scanned else ():
        _fold(found, number, frame)


def _fold(found: Found, segment: int, frame: segments.Frame) -> None:
    if frame.kind == ITEM and len(frame.payload) >= NUMBER_BYTES:
        number = number_of(frame.payload)
        if not found.runs or number > found.runs[-1].last:
            note(found.runs, segment, number)
            found.state = msgspec.structs.replace(found.state, last=max(found.state.last, number), clean=False)
    elif frame.kind == STATE:
        try:
            found.state = later(found.state, decoded(frame.payload))
        except UNREADABLE:
            found.damaged = True
