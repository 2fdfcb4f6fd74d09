"""Watches: changes as server-sent events, without a gap, with bookmarks, and an end that says why.

An event's data is `{"type", "revision", "object"}`. `BOOKMARK` says how far the watcher is; `ERROR` carries an error body: with the reason
`Gone` the asked revision is too old, so list again and watch from the list's revision.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Final, Literal

import msgspec
from litestar.response import Stream

from edgewise.control.api.errors import ApiError
from edgewise.control.api.shown import shown
from edgewise.control.services import Services
from edgewise.resources.kinds import Resource
from edgewise.store.contract import Change, CompactedError, Document, EventRow, Key, Store, StoreError

_ENCODER: Final = msgspec.json.Encoder()


class WatchEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a watch."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    revision: int
    object: "Resource | Event | WatchError | msgspec.UnsetType" = msgspec.UNSET


class WatchError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a watch ended."""

    reason: str
    message: str


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One line of the event log."""

    number: int
    at: float
    type: str
    reason: str
    message: str
    source: str
    about: str
    received_at: float


def event_of(row: EventRow) -> Event:
    """Return how an event is shown."""
    return Event(
        number=row.number, at=row.at, type=row.type, reason=row.reason, message=row.message, source=row.source, about=row.about,
        received_at=row.received_at,
    )  # fmt: skip


class Watches:
    """Counts the open watches, so that there are never too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open = 0

    def stream(self, events: AsyncGenerator[bytes, None]) -> Stream:
        """Return the answer that sends `events` until the watcher goes. Raises `ApiError` when there are too many already."""
        if self._open >= self._most:
            raise ApiError(503, "Overloaded", f"there are already {self._most} watches", retry_after=10.0)
        self._open += 1
        return Stream(self._counted(events), media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _counted(self, events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        try:
            async with aclosing(events):
                async for each in events:
                    yield each
        finally:
            self._open -= 1


class _Matching:
    """Which documents the watcher takes for matching its labels. `since` is the revision from which on that is known for sure."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._labels = labels
        self._known: dict[Key, Document] = {}
        self._since = 0

    async def load(self, store: Store, kind: str, namespace: str | None) -> None:
        """Note what matches now."""
        after = ""
        while self._labels:
            page = await store.list(kind, namespace, self._labels, after=after)
            self._known.update((document.key, document) for document in page.documents)
            self._since = max(self._since, page.revision)
            after = page.next
            if not after:
                return

    def told(self, change: Change, last: Document | None) -> WatchEvent | None:
        """Return the event for a change, or None. `last` is what a removed document was. Raises `CompactedError` when nobody knows."""
        document = change.document
        if document is not None and all(document.labels.get(name) == value for name, value in self._labels.items()):
            new = change.key not in self._known and document.generation == 1 and change.spec_changed
            if self._labels:
                self._known[change.key] = document
            return WatchEvent(type="ADDED" if new else "MODIFIED", revision=change.revision, object=shown(document))
        known = self._known.pop(change.key, None)
        if self._labels and known is None and change.revision > self._since:
            return None
        gone = document or known or last
        if gone is None:
            raise CompactedError(f"{change.key.kind} {change.key.name} was deleted, and what it was is not known any more: list again")
        return WatchEvent(type="DELETED", revision=change.revision, object=shown(gone))


async def watch_resources(
    services: Services, kind: str, namespace: str | None, labels: dict[str, str], after: int
) -> AsyncGenerator[bytes, None]:
    """Yield the changes of a kind after a revision. With `labels`, what stops matching is told as deleted."""
    yield b": watching\n\n"
    matching = _Matching(labels)
    try:
        await matching.load(services.store, kind, namespace)
        steps = _with_bookmarks(services, after, kind, namespace)
        async with aclosing(steps):
            async for step in steps:
                if isinstance(step, int):
                    after = max(after, step)
                    yield _sse(WatchEvent(type="BOOKMARK", revision=after))
                    continue
                events = [matching.told(change, services.runner.last_of(change.key)) for change in step]
                after = step[-1].revision
                out = b"".join(_sse(event) for event in events if event is not None)
                if out:
                    yield out
    except CompactedError as error:
        yield _sse(WatchEvent(type="ERROR", revision=after, object=WatchError(reason="Gone", message=str(error))))
    except StoreError as error:
        yield _sse(WatchEvent(type="ERROR", revision=after, object=WatchError(reason="Closing", message=str(error))))


async def _with_bookmarks(services: Services, after: int, kind: str, namespace: str | None) -> AsyncGenerator[Sequence[Change] | int, None]:
    """Yield what a watch of the store yields and, whenever nothing has come for a while, the revision up to which that is sure: the one at
    the beginning of the wait. Ends with the process."""
    changes = aiter(services.store.watch(after, [kind], namespace))
    waiting: asyncio.Task[tuple[Change, ...]] | None = None
    ending = asyncio.ensure_future(services.ending.wait())
    try:
        while not ending.done():
            waiting = waiting or asyncio.ensure_future(_next(changes))
            revision = services.store.revision
            await asyncio.wait((waiting, ending), timeout=services.limits.watch_bookmark_seconds, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                step, waiting = waiting, None
                yield step.result()
            elif not ending.done():
                yield revision
    finally:
        ending.cancel()
        if waiting is not None:
            waiting.cancel()
        await asyncio.gather(ending, *((waiting,) if waiting is not None else ()), return_exceptions=True)
        if isinstance(changes, AsyncGenerator):
            await changes.aclose()


async def _next(changes: AsyncIterator[tuple[Change, ...]]) -> tuple[Change, ...]:
    return await anext(changes)


async def watch_events(services: Services, after: int, about: str | None, source: str | None) -> AsyncGenerator[bytes, None]:
    """Yield events with numbers above `after` as they come."""
    yield b": watching\n\n"
    limit = services.limits.events_max
    try:
        while not services.ending.is_set():
            rows = await services.store.events(after, limit, about, source)
            if rows:
                after = rows[-1].number
                yield b"".join(_sse(WatchEvent(type="ADDED", revision=row.number, object=event_of(row))) for row in rows)
                continue
            newest = await _newest_event(services, after)
            if newest is None:
                yield _sse(WatchEvent(type="BOOKMARK", revision=after))
            elif (about is not None or source is not None) and not await services.store.events(after, 1, about, source):
                after = newest  # none of them is wanted: wait for later ones
    except StoreError as error:
        yield _sse(WatchEvent(type="ERROR", revision=after, object=WatchError(reason="Closing", message=str(error))))


async def _newest_event(services: Services, after: int) -> int | None:
    """Return the newest event's number once it is above `after`, or None after a while, or when the process ends."""
    waiting = asyncio.ensure_future(services.store.wait_events(after))
    ending = asyncio.ensure_future(services.ending.wait())
    try:
        await asyncio.wait((waiting, ending), timeout=services.limits.watch_bookmark_seconds, return_when=asyncio.FIRST_COMPLETED)
        return waiting.result() if waiting.done() else None
    finally:
        waiting.cancel()
        ending.cancel()
        await asyncio.gather(waiting, ending, return_exceptions=True)


def _sse(event: WatchEvent) -> bytes:
    return b"data: " + _ENCODER.encode(event) + b"\n\n"
