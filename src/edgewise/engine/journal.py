"""The engine's journal: records that survive a power cut, in one segment that is now and then written anew.

One `append` is one frame and one sync, so a cut leaves all of a step's records or none. Compaction writes a snapshot to a new file,
syncs it, renames it into place, and only then removes the old segment: at every cut the highest numbered segment is whole.
"""

from typing import Final

import msgspec

from edgewise.engine import segments
from edgewise.engine.limits import EngineLimits
from edgewise.engine.records import Record
from edgewise.ports.files import Damaged, Files, FilesError
from edgewise.resources.decoding import UNREADABLE

FOLDER: Final = "journal"
_USE: Final = 1
_RECORDS: Final = 1
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(tuple[Record, ...])


class Journal:
    """An open journal. Every method raises `FilesError`; after one did, the journal mends itself at the next `append`. `lost`: the disk has
    lost what was confirmed, so that only `compact` makes it whole again."""

    __slots__ = ("_compacted", "_files", "_good", "_limits", "_number", "_stale", "_writer", "damaged", "lost")

    def __init__(self, files: Files, limits: EngineLimits, number: int, good: int = 0, compacted: int = 0) -> None:
        self._files, self._limits = files, limits
        self._writer: segments.SegmentWriter | None = None
        self._number, self._good, self._compacted = number, good, compacted
        self._stale = 0
        self.damaged = self.lost = False

    @property
    def size(self) -> int:
        """Bytes in the journal."""
        return self._good

    @property
    def wants_compaction(self) -> bool:
        """Whether it has grown enough for a snapshot to be worth its writing, or holds damage that should not stay."""
        return self.damaged or self._good > max(self._limits.journal_compact_bytes, self._limits.journal_compact_growth * self._compacted)

    def append(self, records: tuple[Record, ...]) -> None:
        """Add records, all or none; durable on return."""
        payload = _ENCODER.encode(records)
        if self._good + len(payload) + segments.FRAME_BYTES > self._limits.journal_bytes_max:
            raise Damaged(FOLDER, f"the journal would grow beyond {self._limits.journal_bytes_max} bytes")
        self.mend()
        writer, self._writer = self._writer, None
        assert writer is not None  # noqa: S101 - `mend` has just seen to it
        try:
            writer.append(_RECORDS, payload)
            writer.sync()
        except FilesError:
            writer.close()
            raise
        self._writer, self._good = writer, writer.size

    def compact(self, records: tuple[Record, ...]) -> None:
        """Replace the whole journal by `records`, which must stand for all of it."""
        number = self._number + 1
        try:
            writer = segments.make(self._files, FOLDER, _USE, number, (_RECORDS, _ENCODER.encode(records)))
        except FilesError:
            # The new segment may be there all the same: it must go before the old one grows, or it would win at the next start.
            self._stale = number
            self.close()
            raise
        self.close()
        old, self._number, self._stale = self._number, number, 0
        self._writer, self._good, self._compacted, self.damaged = writer, writer.size, writer.size, False
        self.lost = False
        if old:
            self._files.remove(segments.path_of(FOLDER, old))

    def close(self) -> None:
        """Close it."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def mend(self) -> None:
        """After a start or a failed write: read again what is there and cut off what was not confirmed."""
        if self._writer is not None:
            return
        if self._stale:
            self._files.remove(segments.path_of(FOLDER, self._stale))
            self._files.sync_folder(FOLDER)
            self._stale = 0
        path = segments.path_of(FOLDER, self._number)
        try:
            scanned = segments.load(self._files, path, _USE, _read_limit(self._limits))
        except segments.SegmentError:
            scanned = None
        rotten = scanned is None or (scanned.damaged and not self.damaged)
        if scanned is None or rotten or not any(frame.end == self._good for frame in scanned.frames):
            self.lost = True
            raise Damaged(path, "confirmed records are gone")
        self._writer = segments.resume(self._files, path, msgspec.structs.replace(scanned, good=self._good))


def _read_limit(limits: EngineLimits) -> int:
    """Return how much to read: a cut append may have left the segment longer than it is let grow."""
    return 2 * limits.journal_bytes_max + segments.HEADER_BYTES


class Opened(msgspec.Struct, frozen=True, kw_only=True):
    """A journal and what it held. `damage` says what was lost other than a cut last write; empty when nothing was."""

    journal: Journal
    records: tuple[Record, ...]
    damage: str = ""


def open_journal(files: Files, limits: EngineLimits | None = None) -> Opened:
    """Open the journal, making it when there is none; cut off a torn tail. Raises `FilesError`, `SegmentNewer`.

    With damage, the records that are whole are returned all the same, because a device that remembers a part does more of its job than
    one that remembers nothing; the caller reports the damage (`recover(…, damage=…)`) and compacts (`wants_compaction`), so that it
    does not stay."""
    limits = limits or EngineLimits()
    numbers = segments.numbers_in(files, FOLDER)
    damage: list[str] = []
    for number in reversed(numbers):
        try:
            scanned = segments.load(files, segments.path_of(FOLDER, number), _USE, _read_limit(limits))
        except segments.SegmentDamaged as error:
            damage.append(f"journal segment {number}: {error}")
            continue
        if scanned is None or scanned.number != number or not scanned.frames:
            damage.append(f"journal segment {number} holds nothing")
            continue
        records, bad = _decode(scanned)
        if scanned.damaged or bad:
            damage.append(f"journal segment {number}: passed over {scanned.damaged} damaged bytes and {bad} unreadable frames")
        journal = Journal(files, limits, number, scanned.good, scanned.frames[0].end)
        journal.damaged = bool(damage)
        _settle(files, journal, [other for other in numbers if other != number])
        return Opened(journal=journal, records=records, damage="; ".join(damage))
    files.make_folder(FOLDER)
    journal = Journal(files, limits, max(numbers, default=0))
    journal.compact(())
    return Opened(journal=journal, records=(), damage="; ".join(damage))


def _settle(files: Files, journal: Journal, others: list[int]) -> None:
    """Cut the torn tail and remove other segments. A disk that takes nothing must not keep the device from running what it has."""
    try:
        journal.mend()
        for number in others:
            files.remove(segments.path_of(FOLDER, number))
    except FilesError:
        journal.close()


def _decode(scanned: segments.Scanned) -> tuple[tuple[Record, ...], int]:
    records: list[Record] = []
    bad = 0
    for frame in scanned.frames:
        try:
            records.extend(_DECODER.decode(frame.payload))
        except UNREADABLE:
            bad += 1
    return tuple(records), bad
