"""Reading, on connections of its own. Every function is one statement, so that what it returns is of one moment; pages come back as
one blob (see `rows`), bounded in items and bytes."""

import sqlite3
from collections.abc import Sequence

import msgspec

from edgewise.store import statements
from edgewise.store.contract import (
    Change,
    CompactedError,
    Document,
    EventRow,
    FrameRow,
    Key,
    Mark,
    Page,
    StoreLimits,
)
from edgewise.store.rows import (
    SEPARATOR,
    key_text,
    list_start,
    list_token,
    microseconds,
    page_limit,
    read_changes,
    read_documents,
    read_events,
    read_frames,
)

_AFTER_SEPARATOR = chr(ord(SEPARATOR) + 1)


class _MarkRow(msgspec.Struct, array_like=True):
    agent: str
    incarnation: str
    lane: str
    number: int
    dropped: int


_MARK_ROWS = msgspec.json.Decoder(list[_MarkRow])
_SEEN = msgspec.json.Decoder(dict[str, float])


def get(connection: sqlite3.Connection, key: Key) -> Document | None:
    """See `Store.get`."""
    row = connection.execute(statements.GET, (key_text(key),)).fetchone()
    if row is None:
        return None
    document = read_documents(*row)[0]
    return document if document.key == key else None


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `Store.list` is asked."""

    kind: str
    namespace: str | None
    labels: dict[str, str] | None
    limit: int
    after: str


class EventQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `Store.events` is asked; and `Store.recent_events`, when `after` is None."""

    after: int | None
    limit: int
    about: str | None
    source: str | None


class FrameQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What `Store.frames` is asked."""

    device: str
    start: float
    end: float
    limit: int


def list_documents(connection: sqlite3.Connection, limits: StoreLimits, query: ListQuery) -> Page:
    """See `Store.list`. Labels are compared here, page by page, until the page is full."""
    limit = page_limit(query.limit, limits)
    kind, namespace, labels, after = query.kind, query.namespace, query.labels, query.after
    prefix = kind if namespace is None else f"{kind}{SEPARATOR}{namespace}"
    start = key_text(list_start(kind, namespace, after)) if after else prefix + SEPARATOR
    end = prefix + _AFTER_SEPARATOR
    found: list[Document] = []
    size = 0
    first_revision = None
    while True:
        asked = limits.list_items_max if labels else limit - len(found)
        revision, count, bodies, more = connection.execute(statements.LIST, (start, end, asked, limits.list_bytes_max - size)).fetchone()
        first_revision = revision if first_revision is None else first_revision
        read = sorted(read_documents(count, bodies), key=lambda document: document.key)
        for number, document in enumerate(read, 1):
            if labels and any(document.labels.get(name) != value for name, value in labels.items()):
                continue
            found.append(document)
            size += len(document.spec) + len(document.status)
            if len(found) == limit or size >= limits.list_bytes_max:
                more = more or number < count
                return Page(documents=tuple(found), revision=first_revision, next=list_token(document.key) if more else "")
        if not more:
            return Page(documents=tuple(found), revision=first_revision)
        start = key_text(read[-1].key)


def changes(connection: sqlite3.Connection, limits: StoreLimits, after: int) -> Sequence[tuple[Change, ...]]:
    """Return changes after revision `after`, whole revisions, at least one unless `after` is the newest. Raises `CompactedError`."""
    row = connection.execute(statements.CHANGES, (after, limits.watch_changes_max, limits.list_bytes_max)).fetchone()
    revision, compacted, count, bodies = row
    if not compacted <= after <= revision:
        raise CompactedError(f"changes are known from revision {compacted} to {revision}, not from {after}")
    read = sorted(read_changes(count, bodies), key=lambda changes: changes[0].revision)
    return tuple(read)


def events(connection: sqlite3.Connection, limits: StoreLimits, query: EventQuery) -> tuple[EventRow, ...]:
    """See `Store.events` and `Store.recent_events`."""
    first = (page_limit(query.limit, limits), limits.list_bytes_max)
    if query.after is None:
        row = connection.execute(statements.RECENT_EVENTS, (*first, query.source, query.about)).fetchone()
    else:
        row = connection.execute(statements.EVENTS, (*first, query.after, query.source, query.about)).fetchone()
    return tuple(read_events(*row))


def frames(connection: sqlite3.Connection, limits: StoreLimits, query: FrameQuery) -> tuple[FrameRow, ...]:
    """See `Store.frames`. Times are compared in whole microseconds."""
    first = (page_limit(query.limit, limits), limits.list_bytes_max)
    row = connection.execute(statements.FRAMES, (*first, query.device, microseconds(query.start), microseconds(query.end))).fetchone()
    return tuple(read_frames(*row))


def marks(connection: sqlite3.Connection, agent: str) -> tuple[Mark, ...]:
    """See `Store.marks`."""
    return _read_marks(connection.execute(statements.MARKS, (agent,)).fetchone()[0])


def all_marks(connection: sqlite3.Connection) -> tuple[Mark, ...]:
    """See `Store.all_marks`."""
    return _read_marks(connection.execute(statements.ALL_MARKS).fetchone()[0])


def _read_marks(text: str) -> tuple[Mark, ...]:
    return tuple(
        Mark(agent=row.agent, incarnation=row.incarnation, lane=row.lane, number=row.number, dropped=row.dropped)
        for row in _MARK_ROWS.decode(text)
    )


def liveness(connection: sqlite3.Connection) -> dict[str, float]:
    """See `Store.liveness`."""
    return _SEEN.decode(connection.execute(statements.LIVENESS).fetchone()[0])
