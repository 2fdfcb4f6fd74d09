"""One lane of the outbox: numbered items in segments, and the marks that say what became of them.

Every number that was ever given to an item is acknowledged, held or dropped: `produced = acknowledged + held + dropped`. Numbers are
never used twice under one incarnation, even when a power cut lost items that had been sent before they were synced: nothing with a number
above the durable `ceiling` is sent, and after an unclean end numbering goes on above the ceiling. Numbers passed over that way count as
dropped where items may have been lost (a lane that is synced lazily), and as `skipped` where they cannot have been.
"""

from collections.abc import Iterator

import msgspec

from edgewise.engine import emptied, segments
from edgewise.engine.lane_opening import found_in
from edgewise.engine.lane_state import (
    ITEM,
    NUMBER_BYTES,
    STATE,
    LaneCounts,
    LaneRules,
    LaneState,
    Pending,
    Run,
    after_start,
    count,
    encoded,
    note,
    number_of,
    numbered,
    without,
)
from edgewise.engine.limits import EngineLimits
from edgewise.ports.files import Files, FilesError, Full, Missing


class Lane:
    """One lane. Methods do not raise `FilesError` (apart from `open`): what the disk does not take is held in memory, and `problem` says
    why. `unbounded`: the incarnation is not written down, so that no number of it can ever be used again, and none needs reserving."""

    __slots__ = (
        "_durable_ceiling",
        "_emptied",
        "_files",
        "_folder",
        "_limits",
        "_lost",
        "_number",
        "_pending",
        "_runs",
        "_safe",
        "_segment_bytes",
        "_sizes",
        "_skip",
        "_state",
        "_taken",
        "_unsynced",
        "_writer",
        "disk_bytes",
        "problem",
        "rules",
        "unbounded",
    )

    def __init__(self, files: Files, folder: str, rules: LaneRules, limits: EngineLimits) -> None:
        self._files, self._folder, self.rules, self._limits = files, folder, rules, limits
        self._state = LaneState()
        self._durable_ceiling = 0
        self._runs: list[Run] = []
        self._sizes: dict[int, int] = {}
        self.disk_bytes = 0  # the sum of the sizes
        self._segment_bytes = min(limits.outbox_segment_bytes, max(1, rules.bytes_max // 4))
        self._writer: segments.SegmentWriter | None = None
        self._emptied = ""  # the path of a segment that is being emptied
        self._pending: list[Pending] = []
        self._skip = (0, 0)  # segment and offset: what stands there before it is acknowledged
        self._taken = (0, 0, 0)  # segment, number and end of the last item that was taken
        self._number = 0
        self._unsynced = False
        self._safe, self._lost = 0, False  # what is synced of the last segment; whether a sync of it failed
        self.problem: FilesError | None = None
        self.unbounded = False

    # ---- what is there ----

    @property
    def mark(self) -> int:
        """The number up to which everything is acknowledged or dropped."""
        return self._state.mark

    @property
    def last(self) -> int:
        """The last number given."""
        return self._state.last

    @property
    def dropped(self) -> int:
        """How many items were ever dropped."""
        return self._state.dropped

    @property
    def held(self) -> int:
        """How many items wait."""
        state = self._state
        return self._count(state.mark, state.last) if state.mark < state.last else 0

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        state = self._state
        return state.mark >= state.last or not self._count(state.mark, state.last)

    @property
    def memory_bytes(self) -> int:
        """Bytes that the disk has not taken yet."""
        return sum(len(item.payload) for item in self._pending) if self._pending else 0

    def counts(self) -> LaneCounts:
        """Return what became of all items."""
        state = self._state
        return LaneCounts(produced=state.last - state.skipped, acknowledged=state.acknowledged, held=self.held, dropped=state.dropped)

    def _count(self, above: int, up_to: int) -> int:
        return count(self._runs, self._pending, above, up_to) if above < up_to else 0

    # ---- writing ----

    def append(self, payload: bytes) -> None:
        """Give `payload` the next number and hold it."""
        number = self._state.last + 1
        self._state = msgspec.structs.replace(self._state, last=number)
        if len(payload) > self._limits.outbox_item_bytes_max:
            self._state = msgspec.structs.replace(self._state, dropped=self._state.dropped + 1)
            return
        self._pending.append(Pending(number, payload))
        self._write_pending()
        while self.disk_bytes > self.rules.bytes_max and self.drop_segment():
            pass

    def _write_pending(self) -> None:
        while self._pending or self._lost:
            try:
                writer = self._ready()
                if not self._pending:
                    return
                item = self._pending[0]
                self._begin_reading_at(writer)
                writer.append(ITEM, numbered(item.number, item.payload))
            except FilesError as error:
                self._broken(error)
                return
            self.problem = None
            self._sized(writer.number, writer.size)
            note(self._runs, writer.number, item.number)
            self._unsynced = True
            del self._pending[0]

    def _sized(self, segment: int, size: int) -> None:
        self.disk_bytes += size - self._sizes.get(segment, 0)
        self._sizes[segment] = size

    def _begin_reading_at(self, writer: segments.SegmentWriter) -> None:
        """Remember where the first item of a segment stands that waits, so that nothing before it is read again."""
        if self._skip[0] != writer.number and not any(run.segment == writer.number and run.last > self._state.mark for run in self._runs):
            self._skip = (writer.number, writer.size)

    def _ready(self) -> segments.SegmentWriter:
        """Return a writer with room, mending or rolling as needed. Raises `FilesError`."""
        self._mend_only()
        if self._writer is None or self._writer.size >= self._segment_bytes:
            self._roll()
        assert self._writer is not None  # noqa: S101 - `_roll` has just seen to it
        return self._writer

    def _mend_only(self) -> None:
        if self._writer is None and self._number:
            self._mend()

    def _roll(self) -> None:
        if self._writer is not None:
            self._synced(self._writer)
        number, first = self._number + 1, (STATE, encoded(self._state))
        if self._emptied and emptied.is_there(self._files, self._emptied):
            writer = segments.make_of(self._files, self._emptied, self.rules.use, number, first)
        else:
            writer = segments.make(self._files, self._folder, self.rules.use, number, first)
        self._emptied = ""
        if self._writer is not None:
            self._writer.close()
        self._writer, self._number, self._safe = writer, number, writer.size
        self._sized(number, writer.size)
        self._durable_ceiling = self._state.ceiling

    def _mend(self) -> None:
        """After a start or a failed write: cut off what was not taken, or go on in a new segment."""
        path, good = segments.path_of(self._folder, self._number), self._sizes.get(self._number, 0)
        try:
            scanned = segments.load(self._files, path, self.rules.use, self._read_limit())
        except segments.SegmentError:
            scanned = None
        if scanned is None or not any(frame.end == good for frame in scanned.frames):
            self._number, self._lost = self._number + 1, False
            return
        if self._lost:
            self._take_back(scanned)
            good = self._safe
        self._writer, self._safe = segments.resume(self._files, path, msgspec.structs.replace(scanned, good=good)), good

    def _take_back(self, scanned: segments.Scanned) -> None:
        """Hold in memory again what a failed sync left unwritten. It can still be read, but a further sync would not bring it to the
        disk."""
        frames = [frame for frame in scanned.frames if self._safe < frame.end <= self._sizes[self._number] and frame.kind == ITEM]
        items = [Pending(number_of(frame.payload), frame.payload[NUMBER_BYTES:]) for frame in frames]
        self._sized(self._number, self._safe)
        self._lost = self._unsynced = False
        self._skip, self._taken = (0, 0), (0, 0, 0)
        for run in self._runs:
            if items and run.segment == self._number:
                run.last = min(run.last, items[0].number - 1)
        self._runs = [run for run in self._runs if run.first <= run.last]
        self._pending[:0] = [item for item in items if item.number > self._state.mark]

    def _broken(self, error: FilesError) -> None:
        self.problem = error
        self._close_writer()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write_state(self, *, sync: bool) -> bool:
        """Write the marks down. Returns whether that worked."""
        try:
            writer = self._ready()
            writer.append(STATE, encoded(self._state))
            self._sized(writer.number, writer.size)
            if sync:
                self._synced(writer)
                self._durable_ceiling = self._state.ceiling
        except FilesError as error:
            self._broken(error)
            return False
        return True

    def flush(self) -> bool:
        """Bring all items to the disk. Returns whether they are there."""
        if not (self._unsynced or self._pending or self._lost):
            return True
        self._write_pending()
        if self._unsynced and self._writer is not None:
            try:
                self._synced(self._writer)
            except FilesError as error:
                self._broken(error)
        return not self._pending and not self._unsynced

    def _synced(self, writer: segments.SegmentWriter) -> None:
        try:
            writer.sync()
        except FilesError:
            self._lost = True
            raise
        self._unsynced, self._safe = False, writer.size

    # ---- dropping and acknowledging ----

    def drop_segment(self) -> bool:
        """Drop the oldest segment to free the disk. Returns whether that worked."""
        oldest = min(self._sizes, default=None)
        if oldest is None:
            return False
        if oldest == self._number and not self._try_roll():
            return isinstance(self.problem, Full) and self._shrink()
        old = self._state
        last = max((run.last for run in self._runs if run.segment == oldest), default=old.mark)
        self._state = without(old, self._runs, self._pending, last)
        if not self._remove([oldest]):
            self._state = old
            return False
        return True

    def _try_roll(self) -> bool:
        """Begin a new segment so that the only one can go; not worth it when that holds nothing."""
        return any(run.segment == self._number for run in self._runs) and self._rolled(mended=True)

    def _rolled(self, *, mended: bool) -> bool:
        """Begin a new segment, behind the last one when that was `mended`. Returns whether that worked."""
        try:
            if mended:
                self._ready()
            self._roll()
        except FilesError as error:
            self._broken(error)
            return False
        return True

    def _shrink(self) -> bool:
        """Empty the only segment, when there is no room for another one. Returns whether that freed some of the disk."""
        state = without(self._state, self._runs, self._pending, max((run.last for run in self._runs), default=self._state.mark))
        size = self._sizes[self._number]
        if size <= emptied.SMALLEST_BYTES + len(encoded(state)):
            return False
        self._emptied = f"{self._folder}/{emptied.name_of(self._number, state)}"
        try:
            self._files.rename(segments.path_of(self._folder, self._number), self._emptied)
            self._close_writer()
            self._forget_segments(state)
            self._roll()
        except FilesError as error:
            self._broken(error)
            return False
        return self.disk_bytes < size

    def _forget_segments(self, state: LaneState) -> None:
        """Go on with `state`, which is on the disk, and without any segment."""
        self._state, self._durable_ceiling = state, state.ceiling
        self._runs, self._sizes, self.disk_bytes = [], {}, 0
        self._unsynced = self._lost = False
        self._skip, self._taken = (0, 0), (0, 0, 0)

    def drop_pending(self) -> bool:
        """Drop the oldest item in memory. Returns whether there was one."""
        if not self._pending:
            return False
        item = self._pending.pop(0)
        if item.number > self._state.mark:
            self._state = msgspec.structs.replace(self._state, dropped=self._state.dropped + 1)
        return True

    def drop_up_to(self, number: int) -> None:
        """Drop everything up to `number`, which cannot be sent."""
        self._state = without(self._state, self._runs, self._pending, number)
        self._pending = [item for item in self._pending if item.number > number]
        self._write_state(sync=False)

    def acknowledge(self, mark: int) -> None:
        """Take in that everything up to `mark` is kept by the control plane."""
        if mark <= self._state.mark:
            return
        acknowledged = self._state.acknowledged + self._count(self._state.mark, mark)
        self._state = msgspec.structs.replace(self._state, mark=mark, acknowledged=acknowledged)
        segment, number, end = self._taken
        if segment and number <= mark:
            self._skip = (segment, end)
        if self._pending:
            self._pending = [item for item in self._pending if item.number > mark]
        keep = {self._number, *(run.segment for run in self._runs if run.last > mark)}
        done = [number for number in self._sizes if number not in keep]
        if not done or not self._remove(done):
            self._write_state(sync=False)

    def _remove(self, numbers: list[int]) -> bool:
        """Remove segments of which nothing is needed any more, once the marks that say so are on the disk; on a full disk the other way
        round, at the price that a power cut in between counts them as dropped."""
        written = self._write_state(sync=True)
        try:
            for number in sorted(numbers):
                self._files.remove(segments.path_of(self._folder, number))
                self.disk_bytes -= self._sizes.pop(number)
        except FilesError as error:
            self.problem = error
            return False
        finally:
            self._runs = [run for run in self._runs if run.segment in self._sizes]
        if not written:
            self._write_state(sync=True)
        return True

    # ---- reading ----

    def take(self, items_max: int, bytes_max: int) -> tuple[int, list[bytes]]:
        """Return the oldest consecutive items that may be sent, and the number of the first; at least one item if there is any, however
        large."""
        if not self.unbounded and self._state.last > self._durable_ceiling and not self.empty:
            self.reserve()
        if not self.rules.lazy:
            self.flush()
        while not self._passable(taken := self._take(items_max, bytes_max)):
            self._skip = (0, 0)  # what was cut short has nothing there any more, but may have something before it
        first, chosen, seen = taken
        self._give_up(seen - 1)
        return first, chosen

    def _take(self, items_max: int, bytes_max: int) -> tuple[int, list[bytes], int]:
        """Choose what `take` returns, and say the first number of which anything was seen: all that is held below it cannot be read."""
        chosen: list[bytes] = []
        first = after = size = seen = 0
        failed = False
        self._taken = (0, 0, 0)
        for number, payload, place in self._waiting():
            failed = failed or not number
            if not number:
                continue
            seen = seen or number
            if (number > self._durable_ceiling and not self.unbounded) or (chosen and number != after + 1):
                break
            if chosen and (len(chosen) >= items_max or size + len(payload) > bytes_max):
                break
            chosen.append(payload)
            first, after, size = first or number, number, size + len(payload)
            self._taken = place
        if failed and not seen:
            self._try_roll()  # it may be read later; what comes until then is not to stand behind it
            return 0, [], 0
        return first, chosen, seen or self._state.last + 1

    def _passable(self, taken: tuple[int, list[bytes], int]) -> bool:
        return not self._skip[0] or not self._count(self._state.mark, taken[2] - 1)

    def _give_up(self, up_to: int) -> None:
        """Drop what is held up to `up_to`, which the disk lost, and write what comes elsewhere than behind it."""
        if self._count(self._state.mark, up_to):
            self.drop_up_to(up_to)
            self._try_roll()

    def reserve(self) -> bool:
        """Make every number that was given one that may be sent. Returns whether that is on the disk."""
        if self._state.last <= self._durable_ceiling:
            return True
        old = self._state
        self._state = msgspec.structs.replace(old, ceiling=old.last + self._limits.outbox_reserve_numbers)
        if self._write_state(sync=True):
            return True
        self._state = msgspec.structs.replace(self._state, ceiling=old.ceiling)
        return False

    def _waiting(self) -> Iterator[tuple[int, bytes, tuple[int, int, int]]]:
        """Yield what waits: number, payload, and where it stands. Number 0 stands for a segment that could not be read this time."""
        for run in self._runs:
            if run.last > self._state.mark:
                yield from self._items(run)
        for item in self._pending:
            if item.number > self._state.mark:
                yield item.number, item.payload, (0, 0, 0)

    def _items(self, run: Run) -> Iterator[tuple[int, bytes, tuple[int, int, int]]]:
        try:
            frames = self._frames(run.segment)
        except Missing:
            return
        except FilesError:
            yield 0, b"", (0, 0, 0)
            return
        for frame in frames:
            number = number_of(frame.payload) if frame.kind == ITEM else 0
            if max(run.first, self._state.mark + 1) <= number <= run.last:
                yield number, frame.payload[NUMBER_BYTES:], (run.segment, number, frame.end)

    def _frames(self, segment: int) -> tuple[segments.Frame, ...]:
        """Return the whole frames of a segment, without those that are known to be of no more use, whatever became of its header. Raises
        `FilesError`."""
        offset = self._skip[1] if self._skip[0] == segment else segments.HEADER_BYTES
        data = self._files.read_at(segments.path_of(self._folder, segment), offset, self._read_limit())
        return segments.scan_from(data, offset, segment)

    def _read_limit(self) -> int:
        return self._limits.outbox_segment_bytes + self._limits.outbox_item_bytes_max + 65_536

    # ---- opening and closing ----

    def open(self) -> bool:
        """Read what is there. Returns whether the numbering can be trusted: False when anything but a cut last write was lost, or when
        there was nothing. Raises `FilesError`, `SegmentNewer`."""
        found = found_in(self._files, self._folder, self.rules.use, self._read_limit())
        self._runs, self._sizes, self.disk_bytes = found.runs, found.sizes, sum(found.sizes.values())
        self._number, self._emptied = found.number, found.emptied
        if found.nothing:
            self._files.make_folder(self._folder)
            self._roll()
            return False
        self._settle(found.state)
        if found.emptied:
            self._rolled(mended=False)
        return not found.damaged

    def _settle(self, state: LaneState) -> None:
        """Go on above every number that may have been sent, and account for all that is neither held nor acknowledged."""
        self._state = state = after_start(state, lazy=self.rules.lazy)
        self._durable_ceiling = state.ceiling
        self._state = msgspec.structs.replace(state, dropped=max(state.last - state.skipped - state.acknowledged - self.held, 0))

    def close(self) -> None:
        """Write down that the end was clean, so that the next start skips no numbers."""
        self._write_pending()
        if not self._pending:
            self._state = msgspec.structs.replace(self._state, clean=True)
            self._write_state(sync=True)
            self._state = msgspec.structs.replace(self._state, clean=False)
        self._close_writer()
