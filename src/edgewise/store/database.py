"""The SQLite file: opened privately and by one process at a time, brought to the schema of this version, errors put into words.

The writer's connection is the only one that writes; SQLite's own threads of reading never block it (WAL). `synchronous=FULL`: what was
committed is on the disk, for a power cut too.
"""

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edgewise.store.contract import StoreClosedError, StoreError, StoreFullError, StoreLimits

MINIMUM_SQLITE: Final = (3, 37, 0)
_CHECKPOINT_PAGES: Final = 16_000
"""The log is carried over into the database each 64 MB: rarely enough that a page written often is carried over once."""
_PAGE_BYTES: Final = 4_096
_BUSY_SECONDS: Final = 5.0

_VERSION_1: Final = """
    CREATE TABLE state (
        id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL, revision INTEGER NOT NULL, batches INTEGER NOT NULL,
        changes INTEGER NOT NULL, change_bytes INTEGER NOT NULL, compacted INTEGER NOT NULL, event_number INTEGER NOT NULL,
        frame_number INTEGER NOT NULL, frame_bytes INTEGER NOT NULL
    );
    CREATE TABLE documents (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, body BLOB NOT NULL);
    CREATE TABLE changes (revision INTEGER PRIMARY KEY, count INTEGER NOT NULL, body BLOB NOT NULL);
    CREATE TABLE events (number INTEGER PRIMARY KEY, source TEXT NOT NULL, about TEXT NOT NULL, body BLOB NOT NULL);
    CREATE TABLE frames (
        number INTEGER PRIMARY KEY, device TEXT NOT NULL, ends INTEGER NOT NULL, starts INTEGER NOT NULL, size INTEGER NOT NULL,
        body BLOB NOT NULL
    );
    CREATE INDEX frames_by_device ON frames (device, ends, starts);
    CREATE TABLE marks (
        agent TEXT NOT NULL, incarnation TEXT NOT NULL, lane TEXT NOT NULL, number INTEGER NOT NULL, dropped INTEGER NOT NULL,
        written INTEGER NOT NULL, PRIMARY KEY (agent, incarnation, lane)
    ) WITHOUT ROWID;
    CREATE TABLE liveness (agent TEXT PRIMARY KEY, seen REAL NOT NULL) WITHOUT ROWID
"""
_MIGRATIONS: Final = (_VERSION_1,)
"""What leads from each schema version to the next. The first makes version 1 of an empty file."""
SCHEMA_VERSION: Final = len(_MIGRATIONS)


def lock(path: Path) -> int:
    """Take the store at `path` for this process and return the lock's file descriptor; closing it, or dying, gives it back. Raises
    `StoreError` when another process has it."""
    # SQLite's own locks are lost when any descriptor of its file is closed; so ours is on a file beside it.
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreError(f"the store {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StoreError(f"the store {path} is in use by another process") from error
    return descriptor


def prepare(path: Path, limits: StoreLimits, clock: Callable[[], float] = time.time) -> sqlite3.Connection:
    """Make or open the database at `path`, mode 0600, bring it to `SCHEMA_VERSION` and return the writer's connection.

    Raises `StoreError`: a newer schema, something that is no store, a damaged file, no permission, no room.
    """
    if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; at least {'.'.join(map(str, MINIMUM_SQLITE))} is needed")
    try:
        _make_private(path)
    except OSError as error:
        raise StoreError(f"the store {path} cannot be opened: {error.strerror}") from error
    connection: sqlite3.Connection | None = None
    try:
        with errors(f"the store {path} cannot be opened"):
            connection = connect(path, limits)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_PAGES * _PAGE_BYTES}")
            if limits.database_bytes_max:
                connection.execute(f"PRAGMA max_page_count = {max(1, limits.database_bytes_max // _PAGE_BYTES)}")
            _migrate(connection, path, clock)
    except StoreError:
        if connection is not None:
            connection.close()
        raise
    return connection


def connect(path: Path, limits: StoreLimits, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection to the database at `path`, which must be there."""
    connection = sqlite3.connect(
        f"file:{_quoted(path)}?mode=rw",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=_BUSY_SECONDS,
        cached_statements=64,
    )
    cache = limits.page_cache_bytes // (4 if read_only else 1)
    connection.execute(f"PRAGMA cache_size = -{max(100, cache // 1024)}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    return connection


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _make_private(path: Path) -> None:
    """Make the file for this user alone, before SQLite, which gives its other files the same mode, opens it."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        descriptor = os.open(path, flags)
        try:
            os.fchmod(descriptor, 0o600)
        finally:
            os.close(descriptor)
        return
    os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _migrate(connection: sqlite3.Connection, path: Path, clock: Callable[[], float]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection, path)
        for script in _MIGRATIONS[version:]:
            for statement in script.split(";"):
                connection.execute(statement)
        if version == 0:
            # The epoch of a store made later is greater: a fleet must not take a new store's positions for old ones.
            connection.execute("INSERT INTO state VALUES (1, ?, 0, 0, 0, 0, 0, 0, 0, 0)", (max(1, int(clock())),))
        if version < SCHEMA_VERSION:
            connection.execute("DELETE FROM schema_version")
            connection.execute("INSERT INTO schema_version VALUES (?)", (SCHEMA_VERSION,))
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def _version(connection: sqlite3.Connection, path: Path) -> int:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
        return 0
    if "schema_version" not in tables:
        raise StoreError(f"{path} is a database of something else, not a store")
    row = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    if not isinstance(row[0], int):
        raise StoreError(f"the store {path} does not say its schema version: it is damaged")
    if row[0] > SCHEMA_VERSION:
        raise StoreError(
            f"the store {path} has schema version {row[0]}, this Edgewise knows versions up to {SCHEMA_VERSION}: "
            "start the newer Edgewise that made it, or restore a backup from before"
        )
    return row[0]


def roll_back(connection: sqlite3.Connection) -> None:
    """End the open transaction, if SQLite has not already done so."""
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            return  # nothing was committed, and the error that led here is the one to report


_WORDS: Final = {
    "SQLITE_FULL": "the disk or the store's size limit is full",
    "SQLITE_READONLY": "the disk or the file does not take writes",
    "SQLITE_IOERR": "the disk failed",
    "SQLITE_CORRUPT": "the database is damaged",
    "SQLITE_NOTADB": "the file is not a database, or its beginning is damaged",
    "SQLITE_CANTOPEN": "the file cannot be opened",
    "SQLITE_BUSY": "another process holds the database",
    "SQLITE_PERM": "the file may not be used",
    "SQLITE_TOOBIG": "it is too large for the database",
}
_PASSING: Final = frozenset({"SQLITE_READONLY", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_NOMEM", "SQLITE_INTERRUPT"})
"""After these the database is as it was, and may be asked again."""
_REFUSED: Final = frozenset({"SQLITE_TOOBIG", "SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_RANGE", "SQLITE_ERROR"})
"""These are about what was asked, not about the database."""


class RowRefusedError(StoreError):
    """SQLite did not take one of the rows; the others may well be fine."""


def translated(error: sqlite3.Error, what: str) -> StoreError:
    """Return the store's error for SQLite's: `StoreFullError`, `RowRefusedError`, `StoreError` when it may pass, or `StoreClosedError`
    when nothing may be believed any more."""
    name: str = getattr(error, "sqlite_errorname", None) or ""
    primary = "_".join(name.split("_")[:2])
    message = f"{what}: {_WORDS.get(primary, 'SQLite says')} ({name or type(error).__name__}: {error})"
    if primary == "SQLITE_FULL":
        return StoreFullError(message)
    if primary in _REFUSED or not name:
        return RowRefusedError(message)
    if primary in _PASSING:
        return StoreError(message)
    return StoreClosedError(message)


@contextmanager
def errors(what: str) -> Iterator[None]:
    """Raise SQLite's errors as the store's."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error, what) from error
