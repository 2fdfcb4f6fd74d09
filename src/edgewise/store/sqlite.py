"""The embedded store: SQLite behind one writer thread and a few reading ones.

`write` collects what one turn of the event loop brings and hands it over at once; whatever waits when the writer is free goes into one
commit; one call back to the event loop per commit tells all who wait. Nothing is acknowledged before it is on the disk.
"""

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from edgewise.resources.decoding import UNREADABLE
from edgewise.store import reader
from edgewise.store.contract import (
    Change,
    Document,
    EventRow,
    FrameRow,
    Key,
    Mark,
    OverloadedError,
    Page,
    StoreClosedError,
    StoreError,
    StoreLimits,
    Transaction,
    Written,
)
from edgewise.store.database import connect, errors, lock, prepare
from edgewise.store.feed import Feed, Waiters
from edgewise.store.plan import check
from edgewise.store.writer import Committed, Writer

T = TypeVar("T")

_READERS: Final = 2
_RETRY_AFTER_SECONDS: Final = 1.0


class _Pending(msgspec.Struct, frozen=True, gc=False):
    """A transaction that waits. `size` in bytes, about."""

    transaction: Transaction
    future: "asyncio.Future[Written]"
    size: int


class _Call(msgspec.Struct, frozen=True):
    """Something else for the writer to do, in its turn."""

    function: Callable[[], object]
    future: "asyncio.Future[object]"


_Job = list[_Pending] | _Call | None
"""What is handed to the writer's thread; None ends it."""


async def open_store(
    path: str | os.PathLike[str], limits: StoreLimits | None = None, clock: Callable[[], float] = time.time
) -> "SqliteStore":
    """Open the store at `path`, making it when it is not there (its folder must be). `clock` (wall time in seconds) draws epochs.

    Raises `StoreError`: in use by another process, made by a newer version, damaged, not permitted.
    """
    limits = limits or StoreLimits()
    where = Path(path)
    descriptor = lock(where)
    connection: sqlite3.Connection | None = None
    try:
        connection = await asyncio.to_thread(prepare, where, limits, clock)
        with errors(f"the store {where} cannot be opened"):
            writer = await asyncio.to_thread(Writer, connection, limits)
    except BaseException:
        if connection is not None:
            connection.close()
        os.close(descriptor)
        raise
    return SqliteStore(where, limits, writer, descriptor, clock)


class SqliteStore:
    """A `Store` in one SQLite file. Made by `open_store`; belongs to the event loop it was opened on."""

    def __init__(self, path: Path, limits: StoreLimits, writer: Writer, descriptor: int, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = descriptor
        self._loop = asyncio.get_running_loop()
        self._epoch = writer.state.epoch
        self._feed = Feed(
            writer.state.revision,
            min(limits.recent_changes_max, limits.changes_kept),
            min(limits.recent_bytes_max, limits.change_bytes_kept),
        )
        self._event_number = writer.state.event_number
        self._event_waiters = Waiters()
        self._gathered: list[_Pending] = []
        self._waiting = 0
        self._waiting_bytes = 0
        self._closing: asyncio.Future[None] | None = None
        self._writer = writer
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._readers = _Readers(path, limits)
        self._thread = threading.Thread(target=self._run_writer, name="edgewise-store-writer", daemon=True)
        self._thread.start()

    @property
    def epoch(self) -> int:
        """See `Store.epoch`."""
        return self._epoch

    @property
    def revision(self) -> int:
        """See `Store.revision`."""
        return self._feed.revision

    # ---- writing ----

    async def write(self, transaction: Transaction) -> Written:
        """See `Store.write`. When the caller is cancelled the transaction may yet be committed."""
        self._open()
        size = check(transaction, self._limits)
        if self._waiting >= self._limits.queue_transactions_max or (
            self._waiting and self._waiting_bytes + size > self._limits.queue_bytes_max
        ):
            raise OverloadedError(_RETRY_AFTER_SECONDS)
        self._waiting += 1
        self._waiting_bytes += size
        future: asyncio.Future[Written] = self._loop.create_future()
        if not self._gathered:
            self._loop.call_soon(self._hand_over)
        self._gathered.append(_Pending(transaction, future, size))
        return await future

    def _open(self) -> None:
        if self._closing is not None:
            raise StoreClosedError("the store was closed")

    def _hand_over(self) -> None:
        if self._gathered:
            gathered, self._gathered = self._gathered, []
            self._jobs.put(gathered)

    async def _call(self, function: Callable[[], T]) -> T:
        """Run `function` in the writer's thread, after what was handed over before."""
        self._open()
        self._hand_over()
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Call(function, future))  # type: ignore[arg-type]  # the future takes just what the function returns
        return await future

    def _run_writer(self) -> None:
        """Take what waits, commit it, tell the event loop; until None comes. Runs in the writer's thread."""
        backlog: deque[_Pending] = deque()
        job: _Job = []
        while True:
            job = self._collect(backlog)
            while backlog:
                self._commit(backlog)
                if job == []:
                    job = self._collect(backlog, wait=False)
            if isinstance(job, _Call):
                self._answer(job)
            elif job is None:
                break
        self._writer.close()

    def _collect(self, backlog: deque[_Pending], *, wait: bool = True) -> _Job:
        """Move what waits into `backlog`; stop at, and return, what is not a transaction. An empty list: nothing but transactions."""
        wait = wait and not backlog
        while len(backlog) < self._limits.batch_transactions_max:
            try:
                job = self._jobs.get(block=wait)
            except queue.Empty:
                break
            if not isinstance(job, list):
                return job
            backlog.extend(job)
            wait = False
        return []

    def _commit(self, backlog: deque[_Pending]) -> None:
        batch: list[_Pending] = []
        size = 0
        while backlog and len(batch) < self._limits.batch_transactions_max:
            size += backlog[0].size
            if batch and size > self._limits.batch_bytes_max:
                break
            batch.append(backlog.popleft())
        committed = self._writer.commit([pending.transaction for pending in batch])
        self._tell(self._committed, batch, committed)

    def _answer(self, call: _Call) -> None:
        result: object = None
        failure: StoreError | None = None
        try:
            result = call.function()
        except StoreError as error:
            failure = error
        except Exception as error:  # noqa: BLE001  # the caller is told; the thread goes on
            failure = StoreError(f"the store could not do what was asked: {error!r}")
        self._tell(_settle, call.future, result, failure)

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _committed(self, batch: Sequence[_Pending], committed: Committed) -> None:
        """On the event loop: what was committed is seen by watchers first, then acknowledged."""
        self._waiting -= len(batch)
        self._feed.publish(committed.revisions)
        if committed.event_number > self._event_number:
            self._event_number = committed.event_number
            self._event_waiters.wake()
        for pending, outcome in zip(batch, committed.outcomes, strict=True):
            self._waiting_bytes -= pending.size
            future = pending.future
            if future.done():
                continue
            if isinstance(outcome, Written):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    async def touch(self, seen: dict[str, float]) -> None:
        """See `Store.touch`."""
        await self._call(lambda: self._writer.touch(seen))

    async def compact(self, keep_changes: int) -> int:
        """See `Store.compact`."""
        oldest = await self._call(lambda: self._writer.compact(keep_changes))
        self._feed.keep(keep_changes)
        return oldest

    async def bump_epoch(self) -> int:
        """See `Store.bump_epoch`. The new epoch is at least the wall clock's seconds, so that two restores of one backup differ."""
        self._epoch = await self._call(lambda: self._writer.bump_epoch(int(self._clock())))
        return self._epoch

    # ---- reading ----

    async def get(self, key: Key) -> Document | None:
        """See `Store.get`."""
        return await self._read(lambda connection: reader.get(connection, key))

    async def list(
        self, kind: str, namespace: str | None = None, labels: dict[str, str] | None = None, limit: int = 500, after: str = ""
    ) -> Page:
        """See `Store.list`."""
        query = reader.ListQuery(kind=kind, namespace=namespace, labels=labels, limit=limit, after=after)
        return await self._read(lambda connection: reader.list_documents(connection, self._limits, query))

    def watch(
        self, after: int, kinds: Sequence[str] | None = None, namespace: str | None = None
    ) -> AsyncGenerator[tuple[Change, ...], None]:
        """See `Store.watch`."""
        wanted = None if kinds is None else frozenset(kinds)
        return self._feed.watch(after, wanted, namespace, self._limits.watch_changes_max, self._older)

    async def _older(self, after: int) -> Sequence[tuple[Change, ...]]:
        return await self._read(lambda connection: reader.changes(connection, self._limits, after))

    async def events(self, after: int = 0, limit: int = 500, about: str | None = None, source: str | None = None) -> tuple[EventRow, ...]:
        """See `Store.events`."""
        query = reader.EventQuery(after=after, limit=limit, about=about, source=source)
        return await self._read(lambda connection: reader.events(connection, self._limits, query))

    async def recent_events(self, limit: int = 500, about: str | None = None, source: str | None = None) -> tuple[EventRow, ...]:
        """See `Store.recent_events`."""
        query = reader.EventQuery(after=None, limit=limit, about=about, source=source)
        return await self._read(lambda connection: reader.events(connection, self._limits, query))

    async def wait_events(self, after: int) -> int:
        """See `Store.wait_events`."""
        while self._event_number <= after:
            self._open()
            await self._event_waiters.wait()
        return self._event_number

    async def frames(self, device: str, start: float, end: float, limit: int = 500) -> tuple[FrameRow, ...]:
        """See `Store.frames`."""
        query = reader.FrameQuery(device=device, start=start, end=end, limit=limit)
        return await self._read(lambda connection: reader.frames(connection, self._limits, query))

    async def marks(self, agent: str) -> tuple[Mark, ...]:
        """See `Store.marks`."""
        return await self._read(lambda connection: reader.marks(connection, agent))

    async def all_marks(self) -> tuple[Mark, ...]:
        """See `Store.all_marks`."""
        return await self._read(reader.all_marks)

    async def liveness(self) -> dict[str, float]:
        """See `Store.liveness`."""
        return await self._read(reader.liveness)

    async def _read(self, function: Callable[[sqlite3.Connection], T]) -> T:
        self._open()
        return await self._readers.run(self._loop, function)

    # ---- the end ----

    async def close(self) -> None:
        """See `Store.close`. May be called again."""
        if self._closing is None:
            self._hand_over()
            self._closing = self._loop.create_future()
            self._jobs.put(None)
            self._feed.close()
            self._event_waiters.wake()
            try:
                await asyncio.to_thread(self._thread.join)
                await asyncio.to_thread(self._readers.close)
            finally:
                os.close(self._lock)
                self._closing.set_result(None)
        await asyncio.shield(self._closing)


def _settle(future: "asyncio.Future[object]", result: object, failure: StoreError | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(result)
    else:
        future.set_exception(failure)


class _Readers:
    """A few threads that read, each over its own connection."""

    def __init__(self, path: Path, limits: StoreLimits) -> None:
        self._path = path
        self._limits = limits
        self._own = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._executor = ThreadPoolExecutor(_READERS, thread_name_prefix="edgewise-store-reader")

    async def run(self, loop: asyncio.AbstractEventLoop, function: Callable[[sqlite3.Connection], T]) -> T:
        """Run `function` in one of the threads. Raises `StoreError` for what SQLite raises, and for what cannot be decoded."""
        return await loop.run_in_executor(self._executor, self._run, function)

    def _run(self, function: Callable[[sqlite3.Connection], T]) -> T:
        with errors("the store cannot be read"):
            connection: sqlite3.Connection | None = getattr(self._own, "connection", None)
            if connection is None:
                connection = self._own.connection = connect(self._path, self._limits, read_only=True)
                self._connections.append(connection)
            try:
                return function(connection)
            except UNREADABLE as error:
                raise StoreError(f"the store cannot be read: the database is damaged ({error})") from error

    def close(self) -> None:
        """Wait for what runs, then close the connections."""
        self._executor.shutdown()
        for connection in self._connections:
            connection.close()
