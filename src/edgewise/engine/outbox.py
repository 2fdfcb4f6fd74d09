"""What the device has to say and could not say yet: lanes of numbered items that survive a power cut.

Items are appended by the loop, `flush`ed at the end of a step, sent in reports, and forgotten once acknowledged. Over budget, the oldest
of the least urgent lane is dropped and counted.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

import msgspec

from edgewise.engine.lane_state import LaneCounts, LaneRules
from edgewise.engine.lanes import Lane
from edgewise.engine.limits import EngineLimits
from edgewise.ports.files import Files, FilesError, Full
from edgewise.ports.randomness import Randomness
from edgewise.resources.decoding import UNREADABLE
from edgewise.wire.report import Item, LaneItems, Report, ReportAnswer
from edgewise.wire.report import Lane as LaneName

FOLDER: Final = "outbox"
LANES: Final[tuple[LaneName, ...]] = ("alerts", "status", "events", "telemetry")
_FOLDERS: Final = {name: f"{FOLDER}/{name}" for name in LANES}
_INCARNATION: Final = f"{FOLDER}/incarnation"
_INCARNATION_CHARS_MAX: Final = 64
_INCARNATION_BYTES: Final = 12
_ITEM_ENCODER: Final = msgspec.msgpack.Encoder()
_ITEM_DECODER: Final = msgspec.msgpack.Decoder(Item)


class ReportLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much goes into one report."""

    items_max: int = 500
    bytes_max: int = 1_000_000


@lru_cache(maxsize=16)
def rules_of(limits: EngineLimits) -> tuple[LaneRules, ...]:
    """Return how each lane is kept, most urgent first."""
    return (
        LaneRules(name="alerts", use=16, bytes_max=limits.outbox_alerts_bytes_max),
        LaneRules(name="status", use=17, bytes_max=limits.outbox_status_bytes_max),
        LaneRules(name="events", use=18, bytes_max=limits.outbox_events_bytes_max),
        LaneRules(name="telemetry", use=19, bytes_max=limits.outbox_telemetry_bytes_max, lazy=True),
    )


class Outbox:
    """An open outbox. Its methods do not fail for the disk's sake: `problem` says what the disk refused last."""

    __slots__ = ("_files", "_lanes", "_limits", "_randomness", "_volatile", "incarnation", "session")

    def __init__(self, files: Files, randomness: Randomness, session: str, limits: EngineLimits) -> None:
        self._files, self._randomness, self._limits = files, randomness, limits
        self._lanes: dict[LaneName, Lane] = {
            name: Lane(files, _FOLDERS[name], rules, limits) for name, rules in zip(LANES, rules_of(limits), strict=True)
        }
        self.incarnation, self.session = "", session
        self._volatile = False

    @property
    def problem(self) -> FilesError | None:
        """What the disk refused last, or None while it takes everything."""
        return next((lane.problem for lane in self._lanes.values() if lane.problem is not None), None)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        for lane in self._lanes.values():  # noqa: SIM110 - asked all the time, and a generator costs more than the looking
            if not lane.empty:
                return False
        return True

    def counts(self) -> dict[LaneName, LaneCounts]:
        """Return what became of every lane's items."""
        return {name: lane.counts() for name, lane in self._lanes.items()}

    # ---- writing ----

    def append(self, lane: LaneName, item: Item) -> None:
        """Hold `item` until it is acknowledged, or dropped over budget. Durable after `flush`."""
        into = self._lanes[lane]
        into.append(_ITEM_ENCODER.encode(item))
        while self._disk_bytes() > self._limits.outbox_bytes_max and self._drop(Lane.drop_segment):
            pass
        if into.problem is None:
            return
        if isinstance(into.problem, Full) and self._drop(Lane.drop_segment):
            into.flush()
        most = self._limits.outbox_memory_bytes_max
        while sum(one.memory_bytes for one in self._lanes.values()) > most and self._drop(Lane.drop_pending):
            pass

    def _disk_bytes(self) -> int:
        size = 0
        for lane in self._lanes.values():
            size += lane.disk_bytes
        return size

    def _drop(self, drop: Callable[[Lane], bool]) -> bool:
        return any(drop(self._lanes[name]) for name in reversed(LANES))

    def make_room(self) -> bool:
        """Free some disk for what is more important than anything here: call it when the journal found the disk full. Returns whether that
        worked."""
        return self._drop(Lane.drop_segment)

    def flush(self) -> None:
        """Bring all lanes but the lazy ones to the disk: once per step of the loop that emitted something."""
        for lane in self._lanes.values():
            if not lane.rules.lazy:
                lane.flush()

    # ---- sending ----

    def next_report(self, limits: ReportLimits | None = None) -> Report:
        """Return the oldest items of every lane, most urgent first, as far as they fit. Without any lane there is nothing to send. The
        same items come again until they are acknowledged."""
        limits = limits or ReportLimits()
        if self._volatile:
            self._write_incarnation()
        report = self._collect(limits)
        if not report.lanes and not self.empty and not self._volatile and self.problem is not None:
            self._renumber(written=False)  # the disk takes no reservation: numbers of an unwritten incarnation need none
            report = self._collect(limits)
        return report

    def _collect(self, limits: ReportLimits) -> Report:
        items_left, bytes_left = limits.items_max, limits.bytes_max
        chosen: dict[LaneName, LaneItems] = {}
        for name in LANES:
            if items_left <= 0 or bytes_left <= 0:
                break
            lane = self._lanes[name]
            if lane.empty:
                continue
            first, payloads = lane.take(items_left, bytes_left)
            items = _decoded(payloads)
            if payloads and not items:
                lane.drop_up_to(first)
            if items:
                chosen[name] = LaneItems(first=first, items=items, dropped=lane.dropped)
                items_left -= len(items)
                bytes_left -= sum(map(len, payloads))
        return Report(incarnation=self.incarnation, session=self.session, lanes=chosen)

    def acknowledge(self, answer: ReportAnswer) -> None:
        """Forget what the control plane keeps. A mark beyond what was ever numbered here says that this outbox lost something: it goes on
        under a new incarnation then, and sends all it holds again."""
        lanes = [(self._lanes[name], mark) for name, mark in answer.marks.items() if name in self._lanes]
        for lane, mark in lanes:
            if mark > lane.last:
                self._renumber(written=True)
                return
        for lane, mark in lanes:
            lane.acknowledge(mark)

    # ---- incarnation ----

    def _renumber(self, *, written: bool) -> None:
        self.incarnation, self._volatile = self._randomness.token(_INCARNATION_BYTES).hex(), True
        for lane in self._lanes.values():
            lane.unbounded = True
        if written:
            self._write_incarnation()

    def _write_incarnation(self) -> None:
        """Bind the lanes to a written incarnation; until that works, nothing of it survives, and nothing of it needs reserving. What may
        have been sent under it so far is reserved first."""
        if not all(lane.reserve() for lane in self._lanes.values()):
            return
        try:
            self._files.replace(_INCARNATION, self.incarnation.encode())
        except FilesError:
            return
        self._volatile = False
        for lane in self._lanes.values():
            lane.unbounded = False

    def open(self) -> None:
        """Read what is there. For `open_outbox`."""
        trusted = [self._open_lane(lane) for lane in self._lanes.values()]
        try:
            text = self._files.read(_INCARNATION, _INCARNATION_CHARS_MAX).decode("ascii", "replace")
        except FilesError:
            text = ""
        if text and all(trusted):
            self.incarnation = text
        else:
            self._renumber(written=True)

    def _open_lane(self, lane: Lane) -> bool:
        try:
            return lane.open()
        except FilesError as error:
            lane.problem = error
            return False

    def close(self) -> None:
        """Write down that the end was clean."""
        for lane in self._lanes.values():
            lane.close()


def _decoded(payloads: list[bytes]) -> tuple[Item, ...]:
    """Return the items up to the first that cannot be read (written by a newer agent, perhaps)."""
    items: list[Item] = []
    try:
        for payload in payloads:
            items.append(_ITEM_DECODER.decode(payload))  # noqa: PERF401 - what was read before an error counts
    except UNREADABLE:
        pass
    return tuple(items)


def open_outbox(files: Files, randomness: Randomness, session: str = "", limits: EngineLimits | None = None) -> Outbox:
    """Open the outbox, making it when there is none. `session` goes into every report. On a disk that takes nothing it works in memory.
    Raises `SegmentNewer`."""
    outbox = Outbox(files, randomness, session or randomness.token(_INCARNATION_BYTES).hex(), limits or EngineLimits())
    outbox.open()
    return outbox
