"""The contract of every document store.

A store holds documents addressed by (kind, namespace, name), an append-only event log, telemetry frames, the marks up to which each
agent's lanes are kept, and a table of when each agent was last heard. One `Transaction` changes any of them together or not at all.

Revisions: every transaction that changes documents gets the next whole number, with no gaps; all documents it changes carry it. `epoch`
is a positive number drawn when the store is made, and greater after a restore (`bump_epoch`), so that positions of before are told apart.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Final, Literal, Protocol

import msgspec


class StoreError(Exception):
    """Something is wrong with the store or with what was asked of it."""


class ConflictError(StoreError):
    """A compare-and-set found another value. `key` names the document, `current` is what is there (None: nothing). Nothing was
    written."""

    def __init__(self, key: "Key", current: "Document | None", reason: str) -> None:
        super().__init__(f"{key.kind} {key.namespace}/{key.name}: {reason}")
        self.key = key
        self.current = current


class CompactedError(StoreError):
    """The asked revision is older than what the store still knows of changes (HTTP 410): list again, then watch from the list's
    revision."""


class StoreClosedError(StoreError):
    """The store was closed, or its disk failed so that nothing more can be acknowledged."""


class StoreFullError(StoreError):
    """The disk or `StoreLimits.database_bytes_max` is full. Nothing was written; the store goes on once there is room."""


class StoreLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a store.

    `document_bytes_max`: spec, status, labels and annotations of one document together. `name_characters_max`: each part of a key or of
    a mark's address. `changes_kept` and `change_bytes_kept`: how many changes, and bytes of them, a watch can go back;
    `recent_changes_max` and `recent_bytes_max`: how much of that stays in memory for those who keep up. `events_kept` and
    `frame_bytes_kept` bound the logs, `incarnations_kept` an agent's outboxes whose marks are known (oldest removed first).

    `batch_transactions_max`, `batch_bytes_max`: what is committed together. `queue_transactions_max`, `queue_bytes_max`: what may wait
    before `write` raises `OverloadedError`. `list_items_max`, `list_bytes_max`: the most that one page of a list, of events or of frames
    holds; `watch_changes_max`: one step of a watch (a single revision is never cut, nor is a first item larger than the bytes).

    `page_cache_bytes`: the database's own memory. `document_cache_bytes`: documents that were written lately and are kept at hand.
    `database_bytes_max`: the database file, 0 for no limit.
    """

    document_bytes_max: int = 1_500_000
    name_characters_max: int = 512
    changes_kept: int = 100_000
    change_bytes_kept: int = 256_000_000
    recent_changes_max: int = 5_000
    recent_bytes_max: int = 4_000_000
    batch_transactions_max: int = 2_000
    batch_bytes_max: int = 16_000_000
    queue_transactions_max: int = 20_000
    queue_bytes_max: int = 64_000_000
    events_kept: int = 200_000
    frame_bytes_kept: int = 2_000_000_000
    incarnations_kept: int = 8
    list_items_max: int = 1_000
    list_bytes_max: int = 16_000_000
    watch_changes_max: int = 1_000
    page_cache_bytes: int = 16_000_000
    document_cache_bytes: int = 8_000_000
    database_bytes_max: int = 0


class OverloadedError(StoreError):
    """Too many transactions wait. Try again after `retry_after` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("the store has too many transactions waiting")
        self.retry_after = retry_after


class Key(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """A document's address. `namespace` is empty for kinds without one. No part holds a character that cannot be printed."""

    kind: str
    namespace: str
    name: str


class Document(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """A document as stored. `generation` counts changes of the spec (compare-and-set for specs and labels), `status_revision` those
    of the status
    (compare-and-set for statuses), `revision` is the store's revision of the last change of either. Times in seconds since the Unix
    epoch."""

    key: Key
    uid: str
    generation: int
    revision: int
    status_revision: int
    created_at: float
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: bytes
    status: bytes
    deleted_at: float | None = None


ANY: Final = -1
"""Compare-and-set value: whatever is there, but something must be."""
ABSENT: Final = 0
"""Compare-and-set value: nothing may be there."""


class Put(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Write spec, labels and annotations. `expect` is a generation, `ABSENT` (make it; `uid` and, optionally, a first `status` are
    taken from here) or `ANY`; `uid`, when not empty and the document is there, must be the document's.
    The generation grows by one when the spec differs. Writing what is there already changes nothing and takes no revision."""

    key: Key
    spec: bytes
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    expect: int = ABSENT
    uid: str = ""
    status: bytes = b""
    deleted_at: float | None = None


class PutStatus(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Write the status. `expect` is a status revision or `ANY`; `uid`, when not empty, must be the document's. With `missing_ok` a
    document that is gone
    or has another uid is passed over in silence."""

    key: Key
    status: bytes
    expect: int = ANY
    uid: str = ""
    missing_ok: bool = False


class Delete(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Remove a document. `expect` is a generation or `ANY`; with `missing_ok` it need not be there."""

    key: Key
    expect: int = ANY
    uid: str = ""
    missing_ok: bool = False


Write = Put | PutStatus | Delete


class EventRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of the event log. `type` is `Normal`, `Warning` or `Audit`; `source` is a device, `control` or a user; `about` is
    KIND/NAMESPACE/NAME or empty. `number`
    is assigned by the store and grows."""

    at: float
    type: Literal["Normal", "Warning", "Audit"]
    reason: str
    message: str
    source: str
    about: str = ""
    received_at: float = 0.0
    number: int = 0


class FrameRow(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One telemetry frame as it came: `summary` indexes it, `body` is opaque."""

    device: str
    start: float
    end: float
    summary: bytes
    body: bytes = b""
    number: int = 0


class Mark(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Up to which number an agent's lane is kept, under one incarnation of its outbox."""

    agent: str
    incarnation: str
    lane: str
    number: int
    dropped: int = 0


class Transaction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What to write together. `now` dates documents made here."""

    now: float
    writes: tuple[Write, ...] = ()
    events: tuple[EventRow, ...] = ()
    frames: tuple[FrameRow, ...] = ()
    marks: tuple[Mark, ...] = ()


class Written(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a transaction did: its revision (the store's current one when no document changed) and the changes, in order."""

    revision: int
    changes: tuple["Change", ...] = ()


class Change(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """One document changed at `revision`; `document` is None when it was removed. `spec_changed`: its spec, labels or annotations did."""

    revision: int
    key: Key
    document: Document | None
    spec_changed: bool = True


class Page(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A part of a list, in key order, all as of `revision`; `next` continues it (empty at the end)."""

    documents: tuple[Document, ...]
    revision: int
    next: str = ""


class Store(Protocol):
    """Documents, events, frames, marks and liveness. Methods may be called concurrently from one event loop. All raise `StoreError`."""

    @property
    def epoch(self) -> int:
        """The store's epoch."""
        ...

    @property
    def revision(self) -> int:
        """The revision of the last committed change."""
        ...

    async def write(self, transaction: Transaction) -> Written:
        """Commit `transaction` and return once it is durable. Raises `ConflictError` (nothing written), `OverloadedError`,
        `StoreClosedError`."""
        ...

    async def get(self, key: Key) -> Document | None:
        """Return the document, or None."""
        ...

    async def list(
        self, kind: str, namespace: str | None = None, labels: dict[str, str] | None = None, limit: int = 500, after: str = ""
    ) -> Page:
        """Return documents of `kind` in key order; `namespace` None means all, `labels` must be equal. `after` is a former page's
        `next`: pages may be of
        different revisions, and watching from the first page's revision misses nothing."""
        ...

    def watch(self, after: int, kinds: Sequence[str] | None = None, namespace: str | None = None) -> AsyncIterator[tuple[Change, ...]]:
        """Yield all changes with a revision above `after`, in order, without gaps, until closed by the caller. Raises
        `CompactedError` when `after` is too old
        or the watcher fell too far behind."""
        ...

    async def events(self, after: int = 0, limit: int = 500, about: str | None = None, source: str | None = None) -> tuple[EventRow, ...]:
        """Return events with numbers above `after`, oldest first. `about` matches the beginning."""
        ...

    async def recent_events(self, limit: int = 500, about: str | None = None, source: str | None = None) -> tuple[EventRow, ...]:
        """Return the last events, oldest first."""
        ...

    async def wait_events(self, after: int) -> int:
        """Return the last event's number once it is above `after`."""
        ...

    async def frames(self, device: str, start: float, end: float, limit: int = 500) -> tuple[FrameRow, ...]:
        """Return frames of `device` that overlap [start, end], oldest first."""
        ...

    async def marks(self, agent: str) -> tuple[Mark, ...]:
        """Return the marks of all incarnations of an agent."""
        ...

    async def all_marks(self) -> tuple[Mark, ...]:
        """Return the marks of all agents' latest incarnations."""
        ...

    async def touch(self, seen: dict[str, float]) -> None:
        """Note when agents were last heard (wall clock), in one grouped commit. Not a document change, takes no revision, need not
        be durable at once."""
        ...

    async def liveness(self) -> dict[str, float]:
        """Return when each agent was last heard."""
        ...

    async def compact(self, keep_changes: int) -> int:
        """Forget all but the last `keep_changes` changes; return the oldest revision that can be watched from."""
        ...

    async def bump_epoch(self) -> int:
        """After a restore from a backup: raise the epoch and return it."""
        ...

    async def close(self) -> None:
        """Finish what was accepted, then close."""
        ...


Digest = Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}$")]


class BlobError(StoreError):
    """A blob is missing, damaged, too large, or not what its digest says."""


class BlobStore(Protocol):
    """Immutable bytes by digest."""

    async def put(self, digest: Digest, chunks: AsyncIterator[bytes], size: int) -> None:
        """Store a blob, durable on return. Raises `BlobError` when the bytes do not hash to `digest` or are not `size` long;
        nothing is left then. Storing what is
        there already succeeds without rewriting it, and replaces it when it is damaged."""
        ...

    async def size(self, digest: Digest) -> int | None:
        """Return the blob's size, or None when it is not there."""
        ...

    def read(self, digest: Digest, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """Yield the bytes [start, end) in chunks. Raises `BlobError` when it is missing."""
        ...

    async def delete(self, digest: Digest) -> None:
        """Remove a blob; no error when it is not there."""
        ...

    async def digests(self) -> tuple[Digest, ...]:
        """Return all digests, sorted."""
        ...
