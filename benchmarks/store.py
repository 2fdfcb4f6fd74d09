"""Durable transactions per second of the SQLite store, through asyncio, beside SQLite alone.

Each caller awaits its own small transactions one after the other: a status and a mark (what a device's report is), or a frame and a mark.
Every one counted was acknowledged after its commit. The baseline replaces one row of the same size per transaction with `executemany`, a
thousand in one commit: no revisions, no log of changes, no marks, nobody who waits.
"""

import asyncio
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import uvloop

from benchmarks._load import percentile
from benchmarks.row import Row
from edgewise.store.contract import FrameRow, Key, Mark, Put, PutStatus, StoreLimits, Transaction, Written
from edgewise.store.sqlite import SqliteStore, open_store

CALLERS = 5_000
SECONDS = 3.0
BASELINE_SECONDS = 1.5
PER_COMMIT = 1_000
_STATUSES = [os.urandom(250) for _ in range(64)]
_SUMMARY = os.urandom(200)
_BODY = os.urandom(400)
_BODY_BYTES = 500


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Transactions per second, CPU microseconds of each, latencies in seconds."""

    per_second: float
    cpu_microseconds: float
    latencies: list[float]


def measure() -> Iterator[Row]:
    """Measure both sorts of transaction."""
    for name, make in (("status + mark", _status), ("frame + mark", _frame)):
        with tempfile.TemporaryDirectory() as place:
            store = uvloop.run(_store(make, Path(place)))
        with tempfile.TemporaryDirectory() as place:
            baseline = _baseline(Path(place))
        p50, p99 = (percentile(store.latencies, share) * 1e3 for share in (0.5, 0.99))
        yield Row(
            name=f"store, {name}, {CALLERS:,} callers",
            unit="1/s",
            value=store.per_second,
            baseline=baseline,
            ratio=store.per_second / baseline,
            target="",
            met=None,
            note=(
                f"{store.cpu_microseconds:.0f} µs CPU each; latency p50 {p50:.0f} ms, p99 {p99:.0f} ms; "
                f"baseline: SQLite alone, one row of {_BODY_BYTES} bytes each, {PER_COMMIT:,} in a commit"
            ),
        )


def _key(number: int) -> Key:
    return Key("Instance", "default", f"inspector.device-{number:05}")


def _status(number: int, turn: int) -> Transaction:
    return Transaction(
        now=1e9,
        writes=(PutStatus(key=_key(number), status=_STATUSES[turn % 64], missing_ok=True),),
        marks=(Mark(agent=f"device-{number:05}", incarnation="0123456789abcdef", lane="status", number=turn),),
    )


def _frame(number: int, turn: int) -> Transaction:
    name = f"device-{number:05}"
    return Transaction(
        now=1e9,
        frames=(FrameRow(device=name, start=1e9 + turn, end=1e9 + turn + 60, summary=_SUMMARY, body=_BODY),),
        marks=(Mark(agent=name, incarnation="0123456789abcdef", lane="telemetry", number=turn),),
    )


async def _fill(store: SqliteStore) -> None:
    for first in range(0, CALLERS, 500):
        writes = tuple(
            Put(key=_key(number), spec=os.urandom(150), labels={"site": "lab"}, uid=f"{number:032x}", status=_STATUSES[0])
            for number in range(first, min(first + 500, CALLERS))
        )
        await store.write(Transaction(now=1e9, writes=writes))


async def _store(make: Callable[[int, int], Transaction], folder: Path) -> Measured:
    store = await open_store(folder / "store.db", StoreLimits())
    await _fill(store)
    latencies: list[float] = []
    count = 0
    end = time.perf_counter() + SECONDS

    async def caller(number: int) -> None:
        nonlocal count
        turn = 1
        while (began := time.perf_counter()) < end:
            written = await store.write(make(number, turn))
            assert isinstance(written, Written)
            turn += 1
            count += 1
            if (turn + number) % 8 == 0:
                latencies.append(time.perf_counter() - began)

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    await store.close()
    return Measured(per_second=count / wall, cpu_microseconds=cpu / count * 1e6, latencies=latencies)


def _baseline(folder: Path) -> float:
    """Return rows per second of SQLite alone: a body replaced by its key, as durable, many in one commit, in a loop that does nothing
    else."""
    connection = sqlite3.connect(folder / "bare.db", isolation_level=None)
    connection.executescript(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 16000;"
        "CREATE TABLE documents (key TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID"
    )
    rows = [(str(_key(number)), os.urandom(_BODY_BYTES)) for number in range(CALLERS)]
    count, began = 0, time.perf_counter()
    while time.perf_counter() < began + BASELINE_SECONDS:
        first = count % CALLERS
        connection.execute("BEGIN")
        connection.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?)", rows[first : first + PER_COMMIT])
        connection.execute("COMMIT")
        count += PER_COMMIT
    seconds = time.perf_counter() - began
    connection.close()
    return count / seconds
