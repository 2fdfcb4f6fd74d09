"""The one thread that writes: all transactions that wait go into one commit.

Each is all or nothing by itself: it is planned against the documents as the ones before it in the batch leave them, so that a conflicting
one fails alone. Revisions are assigned here, inside SQLite's transaction. The thread spends its time in a few large statements
(see `rows`), without the interpreter's lock.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import msgspec

from edgewise.store import statements
from edgewise.store.contract import (
    Change,
    Document,
    Key,
    Mark,
    StoreClosedError,
    StoreError,
    StoreLimits,
    Transaction,
    Written,
)
from edgewise.store.database import RowRefusedError, roll_back, translated
from edgewise.store.plan import planned
from edgewise.store.rows import (
    Bodies,
    as_json,
    change_body,
    changes_body,
    document_body,
    event_body,
    frame_body,
    key_text,
    microseconds,
    read_documents,
)

_KEYS_PER_LOOKUP = 256
_BODIES_PER_STATEMENT = 64_000_000
_RETENTION_ROWS = 500


class State(msgspec.Struct):
    """The one row of the table `state`, columns in the order of `statements.READ_STATE`. `compacted` is the oldest revision that can be
    watched from, `batches` a clock for marks."""

    epoch: int
    revision: int
    batches: int
    changes: int
    change_bytes: int
    compacted: int
    event_number: int
    frame_number: int
    frame_bytes: int


Outcome = Written | StoreError


class Committed(msgspec.Struct, frozen=True):
    """What became of a batch: one outcome per transaction, and what is new, all on the disk."""

    outcomes: Sequence[Outcome]
    revisions: Sequence[tuple[Change, ...]] = ()
    event_number: int = 0


class _Batch:
    """What the transactions of one commit do, put together."""

    def __init__(self, state: State, documents: dict[Key, Document | None]) -> None:
        self.state = state
        self.documents = documents
        self.outcomes: list[Outcome] = []
        self.revisions: list[tuple[Change, ...]] = []
        self.bodies: dict[Key, bytes | None] = {}
        self.log: list[tuple[bytes, int]] = []
        self.event_rows: list[tuple[int, str, str]] = []
        self.event_bodies = Bodies()
        self.frame_rows: list[tuple[int, str, int, int, int]] = []
        self.frame_bodies = Bodies()
        self.marks: dict[tuple[str, str, str], tuple[int, int]] = {}

    @property
    def empty(self) -> bool:
        """Nothing is to be written."""
        return not (self.revisions or self.event_rows or self.frame_rows or self.marks)

    def add(self, transaction: Transaction, limits: StoreLimits) -> None:
        """Plan the next transaction; one that cannot be done leaves nothing but its outcome."""
        state = self.state
        changes: tuple[Change, ...] = ()
        if transaction.writes:
            try:
                changes = planned(transaction, self.documents, state.revision + 1, limits)
            except StoreError as error:
                self.outcomes.append(error)
                return
            if changes:
                state.revision += 1
                self._add_changes(changes)
        for event in transaction.events:
            place = self.event_bodies.add(event_body(event, event.received_at or transaction.now))
            self.event_rows.append((place, event.source, event.about))
        for frame in transaction.frames:
            place = self.frame_bodies.add(frame_body(frame))
            size = len(frame.summary) + len(frame.body)
            self.frame_rows.append((place, frame.device, microseconds(frame.end), microseconds(frame.start), size))
            state.frame_bytes += size
        for mark in transaction.marks:
            self._add_mark(mark)
        self.outcomes.append(Written(revision=state.revision, changes=changes))

    def _add_changes(self, changes: tuple[Change, ...]) -> None:
        log: list[bytes] = []
        for change in changes:
            document = change.document
            self.documents[change.key] = document
            self.bodies[change.key] = body = None if document is None else document_body(document)
            log.append(change_body(change, body))
        self.revisions.append(changes)
        self.log.append((changes_body(log), len(changes)))

    def _add_mark(self, mark: Mark) -> None:
        address = (mark.agent, mark.incarnation, mark.lane)
        number, dropped = self.marks.pop(address, (0, 0))
        self.marks[address] = (max(number, mark.number), max(dropped, mark.dropped))


class _Cache:
    """Documents as they were last committed, the least lately written forgotten first. `bytes_max` counts what a document weighs in
    memory, about."""

    _DOCUMENT_BYTES = 800

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._documents: dict[Key, Document] = {}
        self._bytes = 0
        self.get = self._documents.get

    def put(self, key: Key, document: Document | None) -> None:
        """Remember what was committed; None: it is gone."""
        known = self._documents.pop(key, None)
        if known is not None:
            self._bytes -= self._weight(known)
        if document is None:
            return
        self._documents[document.key] = document
        self._bytes += self._weight(document)
        while self._bytes > self._bytes_max:
            self._bytes -= self._weight(self._documents.pop(next(iter(self._documents))))

    def _weight(self, document: Document) -> int:
        return self._DOCUMENT_BYTES + len(document.spec) + len(document.status)

    def clear(self) -> None:
        """Forget all."""
        self._documents.clear()
        self._bytes = 0


class Writer:
    """Commits batches over its own connection. Everything runs in the writer's thread."""

    def __init__(self, connection: sqlite3.Connection, limits: StoreLimits) -> None:
        self._connection = connection
        self._limits = limits
        self.state = State(*connection.execute(statements.READ_STATE).fetchone())
        incarnations = connection.execute(statements.LATEST_INCARNATIONS).fetchone()[0]
        self._incarnations = msgspec.json.decode(incarnations, type=dict[str, str])
        self._cache = _Cache(limits.document_cache_bytes)
        self._failure: str = ""

    def commit(self, transactions: Sequence[Transaction]) -> Committed:
        """Commit `transactions` and say what became of each. Never raises: what cannot be written is told in the outcomes."""
        try:
            return self._attempt(transactions)
        except Exception as error:  # noqa: BLE001  # whatever one transaction does, the others and this thread go on
            self._cache.clear()
            failure = error if isinstance(error, StoreError) else RowRefusedError(f"the transaction cannot be stored: {error!r}")
            if len(transactions) == 1 or not isinstance(failure, RowRefusedError):
                return Committed([failure] * len(transactions), event_number=self.state.event_number)
        # One of them is malformed in a way that nothing foresaw: it fails alone.
        single = [self.commit((transaction,)) for transaction in transactions]
        return Committed(
            [outcome for committed in single for outcome in committed.outcomes],
            [changes for committed in single for changes in committed.revisions],
            self.state.event_number,
        )

    def _attempt(self, transactions: Sequence[Transaction]) -> Committed:
        state = msgspec.structs.replace(self.state, batches=self.state.batches + 1)
        with self._transaction("nothing was written") as execute:
            batch = _Batch(state, self._look_up(transactions))
            for transaction in transactions:
                batch.add(transaction, self._limits)
            if not batch.empty:
                self._write(batch, execute)
        if batch.empty:
            return Committed(batch.outcomes, event_number=self.state.event_number)
        self.state = state
        for key in batch.bodies:
            self._cache.put(key, batch.documents[key])
        self._incarnations.update((agent, incarnation) for agent, incarnation, _ in batch.marks)
        return Committed(batch.outcomes, batch.revisions, state.event_number)

    def _transaction(self, what: str) -> "_SqlTransaction":
        if self._failure:
            raise StoreClosedError(self._failure)
        return _SqlTransaction(self._connection, what, self._fail)

    def _fail(self, failure: str) -> None:
        self._failure = failure

    def _look_up(self, transactions: Sequence[Transaction]) -> dict[Key, Document | None]:
        documents: dict[Key, Document | None] = {}
        unknown: dict[Key, None] = {}
        for transaction in transactions:
            for write in transaction.writes:
                if (document := self._cache.get(write.key)) is None:
                    unknown[write.key] = None
                else:
                    documents[write.key] = document
        waiting = iter(unknown)
        while chunk := [key_text(key) for key in islice(waiting, _KEYS_PER_LOOKUP)]:
            count, bodies = self._connection.execute(statements.LOOK_UP, (as_json(chunk),)).fetchone()
            for document in read_documents(count, bodies):
                documents[document.key] = document
        return documents

    def _write(self, batch: _Batch, execute: Callable[..., sqlite3.Cursor]) -> None:
        state = batch.state
        self._write_documents(batch, execute)
        self._write_changes(batch, execute)
        if batch.event_rows:
            execute(statements.PUT_EVENTS, (as_json(batch.event_rows), batch.event_bodies.joined(), state.event_number + 1))
            state.event_number += len(batch.event_rows)
            execute(statements.DELETE_EVENTS, (state.event_number - self._limits.events_kept,))
        if batch.frame_rows:
            execute(statements.PUT_FRAMES, (as_json(batch.frame_rows), batch.frame_bodies.joined(), state.frame_number + 1))
            state.frame_number += len(batch.frame_rows)
            self._forget_frames(state, execute)
        if batch.marks:
            self._write_marks(batch, execute)
        execute(statements.WRITE_STATE, msgspec.structs.astuple(state))

    def _write_documents(self, batch: _Batch, execute: Callable[..., sqlite3.Cursor]) -> None:
        gone: list[str] = []
        places: dict[str, int] = {}
        bodies = Bodies()
        for key, body in batch.bodies.items():
            if body is None:
                gone.append(key_text(key))
                continue
            places[key_text(key)] = bodies.add(body)
            if bodies.size > _BODIES_PER_STATEMENT:
                execute(statements.PUT_DOCUMENTS, (as_json(places), bodies.joined()))
                places, bodies = {}, Bodies()
        if places:
            execute(statements.PUT_DOCUMENTS, (as_json(places), bodies.joined()))
        if gone:
            execute(statements.DELETE_DOCUMENTS, (as_json(gone),))

    def _write_changes(self, batch: _Batch, execute: Callable[..., sqlite3.Cursor]) -> None:
        if not batch.revisions:
            return
        state = batch.state
        first = state.revision - len(batch.revisions) + 1
        rows: list[tuple[int, int]] = []
        bodies = Bodies()
        for body, count in batch.log:
            rows.append((bodies.add(body), count))
            state.changes += count
            state.change_bytes += len(body)
            if bodies.size > _BODIES_PER_STATEMENT:
                execute(statements.PUT_CHANGES, (as_json(rows), bodies.joined(), first))
                first += len(rows)
                rows, bodies = [], Bodies()
        if rows:
            execute(statements.PUT_CHANGES, (as_json(rows), bodies.joined(), first))
        self._forget_changes(state, self._limits.changes_kept, execute)

    def _forget_changes(self, state: State, keep: int, execute: Callable[..., sqlite3.Cursor]) -> None:
        while (count := state.changes - keep) > 0 or state.change_bytes > self._limits.change_bytes_kept:
            excess = state.change_bytes - self._limits.change_bytes_kept
            last, removed, removed_bytes = execute(statements.OLDEST_CHANGES, (count, excess, max(count, _RETENTION_ROWS))).fetchone()
            if last is None:
                return
            execute(statements.DELETE_CHANGES, (last,))
            state.changes -= removed
            state.change_bytes -= removed_bytes
            state.compacted = last

    def _forget_frames(self, state: State, execute: Callable[..., sqlite3.Cursor]) -> None:
        while (excess := state.frame_bytes - self._limits.frame_bytes_kept) > 0:
            last, removed = execute(statements.OLDEST_FRAMES, (excess, _RETENTION_ROWS)).fetchone()
            if last is None:
                return
            execute(statements.DELETE_FRAMES, (last,))
            state.frame_bytes -= removed

    def _write_marks(self, batch: _Batch, execute: Callable[..., sqlite3.Cursor]) -> None:
        # Later ones stand later, and `written` grows with the row of the batch, so that of two incarnations in one batch one is later.
        for marks in _runs(batch.marks):
            execute(statements.PUT_MARKS, (as_json(marks), batch.state.batches))
            batch.state.batches += 1
        changed = {agent for agent, incarnation, _ in batch.marks if self._incarnations.get(agent, incarnation) != incarnation}
        for agent in changed:
            execute(statements.FORGET_MARKS, (agent, self._limits.incarnations_kept))

    def touch(self, seen: dict[str, float]) -> None:
        """See `Store.touch`. Raises `StoreError`."""
        with self._transaction("liveness was not written") as execute:
            execute(statements.TOUCH, (as_json(seen),))

    def compact(self, keep_changes: int) -> int:
        """See `Store.compact`. Raises `StoreError`."""
        state = msgspec.structs.replace(self.state)
        with self._transaction("nothing was compacted") as execute:
            self._forget_changes(state, max(0, keep_changes), execute)
            execute(statements.WRITE_STATE, msgspec.structs.astuple(state))
        self.state = state
        return state.compacted

    def bump_epoch(self, at_least: int) -> int:
        """Raise the epoch, to `at_least` or more, and return it. Raises `StoreError`."""
        state = msgspec.structs.replace(self.state, epoch=max(self.state.epoch + 1, at_least))
        with self._transaction("the epoch was not raised") as execute:
            execute(statements.WRITE_STATE, msgspec.structs.astuple(state))
        self.state = state
        return state.epoch

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _runs(marks: dict[tuple[str, str, str], tuple[int, int]]) -> Iterator[list[tuple[str, str, str, int, int]]]:
    """Yield `marks` so that no agent has two incarnations in one list; nearly always that is one list."""
    run: list[tuple[str, str, str, int, int]] = []
    incarnations: dict[str, str] = {}
    for (agent, incarnation, lane), (number, dropped) in marks.items():
        if incarnations.setdefault(agent, incarnation) != incarnation:
            yield run
            run, incarnations = [], {agent: incarnation}
        run.append((agent, incarnation, lane, number, dropped))
    if run:
        yield run


class _SqlTransaction:
    """One SQLite transaction: committed at the end, rolled back on any error, SQLite's errors as the store's."""

    def __init__(self, connection: sqlite3.Connection, what: str, fail: Callable[[str], None]) -> None:
        self._connection = connection
        self._what = what
        self._fail = fail

    def __enter__(self) -> Callable[..., sqlite3.Cursor]:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise self._translated(error) from error
        return self._connection.execute

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._connection.execute("COMMIT")
            except sqlite3.Error as failure:
                roll_back(self._connection)
                raise self._translated(failure) from failure
            return
        roll_back(self._connection)
        if isinstance(error, sqlite3.Error):
            raise self._translated(error) from error

    def _translated(self, error: sqlite3.Error) -> StoreError:
        translation = translated(error, self._what)
        if isinstance(translation, StoreClosedError):
            self._fail(str(translation))
        return translation
