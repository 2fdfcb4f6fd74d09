"""The store in memory: for the digital twin, for tests, and as the contract's plainest reading. Nothing outlives the process."""

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Sequence

import msgspec

from edgewise.store.contract import (
    Change,
    CompactedError,
    Document,
    EventRow,
    FrameRow,
    Key,
    Mark,
    Page,
    StoreClosedError,
    StoreLimits,
    Transaction,
    Written,
)
from edgewise.store.feed import Feed, Waiters
from edgewise.store.plan import check, document_bytes, planned
from edgewise.store.rows import list_start, list_token, page_limit


class MemoryStore:
    """A `Store` in memory. `limits` hold as for every store, but for those of the queue, the pages and the database file."""

    def __init__(self, epoch: int = 1, limits: StoreLimits | None = None) -> None:
        self._limits = limits or StoreLimits()
        self._epoch = epoch
        self._documents: dict[Key, Document] = {}
        self._keys: list[Key] | None = []
        """All keys in order; None after one came or went: sorted anew when it is asked for, so that a large fleet is made quickly."""
        self._feed = Feed(0, self._limits.changes_kept, self._limits.change_bytes_kept)
        self._events: deque[EventRow] = deque()
        self._event_number = 0
        self._event_waiters = Waiters()
        self._frames: deque[FrameRow] = deque()
        self._frame_number = 0
        self._frame_bytes = 0
        self._marks: dict[str, dict[str, dict[str, Mark]]] = {}
        self._seen: dict[str, float] = {}

    @property
    def epoch(self) -> int:
        """See `Store.epoch`."""
        return self._epoch

    @property
    def revision(self) -> int:
        """See `Store.revision`."""
        return self._feed.revision

    async def write(self, transaction: Transaction) -> Written:
        """See `Store.write`."""
        self._open()
        check(transaction, self._limits)
        changes = planned(transaction, self._documents, self._feed.revision + 1, self._limits)
        for change in changes:
            self._change(change)
        self._add_events(transaction)
        self._add_frames(transaction)
        for mark in transaction.marks:
            self._add_mark(mark)
        if changes:
            self._feed.publish([changes])
        return Written(revision=self._feed.revision, changes=changes)

    def _open(self) -> None:
        if self._feed.closed:
            raise StoreClosedError("the store was closed")

    def copy(self, epoch: int | None = None) -> "MemoryStore":
        """Return a store of its own with the same contents, as a backup of this one would give (of another epoch, when one is given)."""
        other = MemoryStore(self._epoch if epoch is None else epoch, self._limits)
        other._documents = dict(self._documents)
        other._keys = None
        other._feed = Feed(self._feed.revision, self._limits.changes_kept, self._limits.change_bytes_kept)
        other._events, other._event_number = deque(self._events), self._event_number
        other._frames, other._frame_number, other._frame_bytes = deque(self._frames), self._frame_number, self._frame_bytes
        other._marks = {
            agent: {incarnation: dict(lanes) for incarnation, lanes in incarnations.items()} for agent, incarnations in self._marks.items()
        }
        other._seen = dict(self._seen)
        return other

    def _change(self, change: Change) -> None:
        if change.document is None:
            del self._documents[change.key]
            self._keys = None
            return
        if change.key not in self._documents:
            self._keys = None
        self._documents[change.key] = change.document

    def _sorted_keys(self) -> list[Key]:
        if self._keys is None:
            self._keys = sorted(self._documents)
        return self._keys

    def _add_events(self, transaction: Transaction) -> None:
        for event in transaction.events:
            self._event_number += 1
            received_at = event.received_at or transaction.now
            self._events.append(msgspec.structs.replace(event, number=self._event_number, received_at=received_at))
        while len(self._events) > self._limits.events_kept:
            self._events.popleft()
        if transaction.events:
            self._event_waiters.wake()

    def _add_frames(self, transaction: Transaction) -> None:
        for frame in transaction.frames:
            self._frame_number += 1
            self._frame_bytes += len(frame.summary) + len(frame.body)
            self._frames.append(msgspec.structs.replace(frame, number=self._frame_number))
        while self._frame_bytes > self._limits.frame_bytes_kept:
            oldest = self._frames.popleft()
            self._frame_bytes -= len(oldest.summary) + len(oldest.body)

    def _add_mark(self, mark: Mark) -> None:
        incarnations = self._marks.setdefault(mark.agent, {})
        # The latest incarnation stands last.
        lanes = incarnations.pop(mark.incarnation, {})
        incarnations[mark.incarnation] = lanes
        known = lanes.get(mark.lane)
        if known is not None and (known.number > mark.number or known.dropped > mark.dropped):
            mark = msgspec.structs.replace(mark, number=max(mark.number, known.number), dropped=max(mark.dropped, known.dropped))
        lanes[mark.lane] = mark
        while len(incarnations) > self._limits.incarnations_kept:
            del incarnations[next(iter(incarnations))]

    async def get(self, key: Key) -> Document | None:
        """See `Store.get`."""
        self._open()
        return self._documents.get(key)

    async def list(
        self, kind: str, namespace: str | None = None, labels: dict[str, str] | None = None, limit: int = 500, after: str = ""
    ) -> Page:
        """See `Store.list`."""
        self._open()
        limit = page_limit(limit, self._limits)
        start = list_start(kind, namespace, after)
        keys = self._sorted_keys()
        place = bisect_right(keys, start) if after else bisect_left(keys, start)
        found: list[Document] = []
        size = 0
        more = ""
        while place < len(keys):
            key = keys[place]
            if key.kind != kind or (namespace is not None and key.namespace != namespace):
                break
            document = self._documents[key]
            place += 1
            if labels and any(document.labels.get(name) != value for name, value in labels.items()):
                continue
            size += document_bytes(document)
            if found and (len(found) == limit or size > self._limits.list_bytes_max):
                more = list_token(found[-1].key)
                break
            found.append(document)
        return Page(documents=tuple(found), revision=self.revision, next=more)

    def watch(
        self, after: int, kinds: Sequence[str] | None = None, namespace: str | None = None
    ) -> AsyncGenerator[tuple[Change, ...], None]:
        """See `Store.watch`."""
        wanted = None if kinds is None else frozenset(kinds)
        return self._feed.watch(after, wanted, namespace, self._limits.watch_changes_max, self._older)

    async def _older(self, after: int) -> Sequence[tuple[Change, ...]]:
        raise CompactedError(f"changes are known from revision {self._feed.oldest} to {self._feed.revision}, not from {after}")

    async def events(self, after: int = 0, limit: int = 500, about: str | None = None, source: str | None = None) -> tuple[EventRow, ...]:
        """See `Store.events`."""
        self._open()
        chosen = [row for row in self._events if row.number > after and _chosen(row, about, source)]
        return tuple(chosen[: page_limit(limit, self._limits)])

    async def recent_events(self, limit: int = 500, about: str | None = None, source: str | None = None) -> tuple[EventRow, ...]:
        """See `Store.recent_events`."""
        self._open()
        chosen = [row for row in self._events if _chosen(row, about, source)]
        return tuple(chosen[-page_limit(limit, self._limits) :])

    async def wait_events(self, after: int) -> int:
        """See `Store.wait_events`."""
        while self._event_number <= after:
            self._open()
            await self._event_waiters.wait()
        return self._event_number

    async def frames(self, device: str, start: float, end: float, limit: int = 500) -> tuple[FrameRow, ...]:
        """See `Store.frames`."""
        self._open()
        chosen = [row for row in self._frames if row.device == device and row.end >= start and row.start <= end]
        chosen.sort(key=lambda row: (row.end, row.number))
        return tuple(chosen[: page_limit(limit, self._limits)])

    async def marks(self, agent: str) -> tuple[Mark, ...]:
        """See `Store.marks`."""
        self._open()
        return tuple(mark for lanes in self._marks.get(agent, {}).values() for mark in lanes.values())

    async def all_marks(self) -> tuple[Mark, ...]:
        """See `Store.all_marks`."""
        self._open()
        return tuple(mark for incarnations in self._marks.values() for mark in incarnations[next(reversed(incarnations))].values())

    async def touch(self, seen: dict[str, float]) -> None:
        """See `Store.touch`."""
        self._open()
        self._seen.update((agent, at) for agent, at in seen.items() if at > self._seen.get(agent, -math.inf))

    async def liveness(self) -> dict[str, float]:
        """See `Store.liveness`."""
        self._open()
        return dict(self._seen)

    async def compact(self, keep_changes: int) -> int:
        """See `Store.compact`."""
        self._open()
        self._feed.keep(keep_changes)
        return self._feed.oldest

    async def bump_epoch(self) -> int:
        """See `Store.bump_epoch`."""
        self._open()
        self._epoch += 1
        return self._epoch

    async def close(self) -> None:
        """See `Store.close`."""
        self._feed.close()
        self._event_waiters.wake()


def _chosen(row: EventRow, about: str | None, source: str | None) -> bool:
    return (source is None or row.source == source) and (about is None or row.about.startswith(about))
