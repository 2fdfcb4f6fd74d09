"""Append-only, checksummed segments: the one file format of journal and outbox.

A segment is a header and frames. The header names the format, its version and the segment. A frame is `length, checksum, kind, payload`;
the checksum also covers where the frame stands and in which segment, so that bytes left over from elsewhere never pass for a frame.

`scan` tells a torn tail (the last write was cut: nothing good follows) from damage (good frames follow a bad one): the first is expected
after a power cut and is cut off, the second is reported and never silently believed.
"""

import struct
import zlib
from typing import Final

import msgspec

from edgewise.ports.files import Appender, Files, FilesError, Missing

VERSION: Final = 1
_MAGIC: Final = b"EWSG"
_HEADER: Final = struct.Struct("<4sHHQI")  # magic, version, use, segment number, checksum of what stands before
_FRAME: Final = struct.Struct("<IIB")  # length of the payload, checksum, kind
_PLACE: Final = struct.Struct("<QQBI")  # segment number, offset, kind, length of the payload: what the checksum covers besides it
_NEW: Final = "new"
_NAME_CHARS: Final = 8
HEADER_BYTES: Final = _HEADER.size
FRAME_BYTES: Final = _FRAME.size


class SegmentError(Exception):
    """A segment cannot be read at all."""


class SegmentDamaged(SegmentError):
    """The header is not one of ours, or damaged."""


class SegmentNewer(SegmentError):
    """The header is whole but of a version or use that this program does not know: nothing is touched, a newer program may read it."""


class Frame(msgspec.Struct, frozen=True, gc=False):
    """One whole frame. `end` is the offset behind it."""

    kind: int
    payload: bytes
    end: int


class Scanned(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a segment holds: its whole frames; `good` is the length that may be kept, `torn` the bytes of a cut last write behind it,
    `damaged` the bytes in the middle that were passed over."""

    number: int
    frames: tuple[Frame, ...]
    good: int
    torn: int = 0
    damaged: int = 0


def header(use: int, number: int) -> bytes:
    """Return a segment's header. `use` tells journal from outbox lanes."""
    start = _HEADER.pack(_MAGIC, VERSION, use, number, 0)[:-4]
    return start + struct.pack("<I", zlib.crc32(start))


def frame(number: int, offset: int, kind: int, payload: bytes) -> bytes:
    """Return a frame for segment `number` that will stand at `offset`."""
    return _FRAME.pack(len(payload), _checksum(number, offset, kind, payload), kind) + payload


def _checksum(number: int, offset: int, kind: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_PLACE.pack(number, offset, kind, len(payload))))


def scan(data: bytes, use: int) -> Scanned:
    """Read a whole segment. One that is shorter than its header was cut when it was made and holds nothing. Raises `SegmentDamaged`,
    `SegmentNewer`."""
    if len(data) < HEADER_BYTES:
        return Scanned(number=0, frames=(), good=0, torn=len(data))
    magic, version, found_use, number, checksum = _HEADER.unpack_from(data)
    if zlib.crc32(data[: HEADER_BYTES - 4]) != checksum:
        raise SegmentDamaged("the header is damaged")
    if magic != _MAGIC or version != VERSION or found_use != use:
        raise SegmentNewer(f"a segment of version {version} for use {found_use}, not {VERSION} for {use}")
    return _scanned(data, 0, HEADER_BYTES, number)


def scan_from(data: bytes, offset: int, number: int) -> tuple[Frame, ...]:
    """Return the whole frames of a part of segment `number` that begins with a frame, at `offset`."""
    return _scanned(data, offset, offset, number).frames


def _scanned(data: bytes, base: int, start: int, number: int) -> Scanned:
    """Scan `data`, which stands at `base`, from the frame at `start` on."""
    frames: list[Frame] = []
    offset = good = start
    end, damaged = base + len(data), 0
    while offset < end:
        found = _frame_at(data, base, offset, number)
        if found is None:
            after = _next_frame(data, base, offset + 1, number)
            if after is None:
                break
            damaged += after - offset
            offset = after
            continue
        frames.append(found)
        offset = good = found.end
    return Scanned(number=number, frames=tuple(frames), good=good, torn=end - good, damaged=damaged)


def _frame_at(data: bytes, base: int, offset: int, number: int) -> Frame | None:
    at = offset - base
    if len(data) - at < FRAME_BYTES:
        return None
    length, checksum, kind = _FRAME.unpack_from(data, at)
    end = at + FRAME_BYTES + length
    if end > len(data):
        return None
    payload = data[at + FRAME_BYTES : end]
    return Frame(kind, payload, base + end) if _checksum(number, offset, kind, payload) == checksum else None


def _next_frame(data: bytes, base: int, offset: int, number: int) -> int | None:
    """Return where the next whole frame begins. Zeros never begin one."""
    for at in range(offset - base, len(data) - FRAME_BYTES + 1):
        if data[at] or data[at + 4]:
            found = _frame_at(data, base, base + at, number)
            if found is not None:
                return base + at
    return None


class SegmentWriter:
    """Writes one segment. After a failed `append` or `sync` it is of no more use: `close` it and scan the file again."""

    __slots__ = ("_appender", "number", "synced")

    def __init__(self, appender: Appender, number: int) -> None:
        self._appender, self.number = appender, number
        self.synced = False

    @property
    def size(self) -> int:
        """Bytes in the segment."""
        return self._appender.size

    def append(self, kind: int, payload: bytes) -> None:
        """Write one frame at the end. Raises `FilesError`."""
        self.synced = False
        self._appender.append(frame(self.number, self._appender.size, kind, payload))

    def sync(self) -> None:
        """Return once all frames are on the disk. Raises `FilesError`."""
        if not self.synced:
            self._appender.sync()
            self.synced = True

    def close(self) -> None:
        """Close without syncing."""
        self._appender.close()


def make(files: Files, folder: str, use: int, number: int, first: tuple[int, bytes]) -> SegmentWriter:
    """Begin segment `number` in `folder` with one frame. It appears under its name only once it is whole and on the disk. Raises
    `FilesError`; the segment may be there or not then."""
    new = f"{folder}/{_NEW}"
    files.remove(new)
    return make_of(files, new, use, number, first)


def make_of(files: Files, path: str, use: int, number: int, first: tuple[int, bytes]) -> SegmentWriter:
    """Do the same in the place of a file beside it of which nothing is needed any more. Raises `FilesError`; there is that file or the
    segment then."""
    appender = files.appender(path)
    try:
        if appender.size:
            appender.truncate(0)
        appender.append(header(use, number))
        writer = SegmentWriter(appender, number)
        writer.append(*first)
        writer.sync()
        files.rename(path, path_of(path.rpartition("/")[0], number))
    except FilesError:
        appender.close()
        raise
    return writer


def resume(files: Files, path: str, scanned: Scanned) -> SegmentWriter:
    """Go on writing a scanned segment behind its last whole frame. What was read is on the disk on return, too: after a mere crash of the
    program it may not have been. Raises `FilesError`."""
    appender = files.appender(path)
    try:
        if appender.size > scanned.good:
            appender.truncate(scanned.good)
        appender.sync()
    except FilesError:
        appender.close()
        raise
    return SegmentWriter(appender, scanned.number)


def path_of(folder: str, number: int) -> str:
    """Return where segment `number` of `folder` is."""
    return f"{folder}/{number:08d}"


def numbers_in(files: Files, folder: str) -> list[int]:
    """Return the numbers of the segments in `folder`, oldest first. Raises `FilesError`."""
    names = [entry.name for entry in files.list(folder) if entry.kind == "file"]
    return sorted(int(name) for name in names if len(name) == _NAME_CHARS and name.isascii() and name.isdigit())


def load(files: Files, path: str, use: int, limit: int) -> Scanned | None:
    """Read the segment at `path`, or return None when there is none. Raises `SegmentDamaged`, `SegmentNewer`,
    `FilesError`."""
    try:
        return scan(files.read(path, limit), use)
    except Missing:
        return None
