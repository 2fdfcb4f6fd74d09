"""The SQLite store beside the contract: what survives, what is refused, and what a broken disk does."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys

import pytest

from edgewise.store import database
from edgewise.store.contract import (
    ANY,
    CompactedError,
    EventRow,
    FrameRow,
    Key,
    Mark,
    OverloadedError,
    Put,
    PutStatus,
    StoreClosedError,
    StoreError,
    StoreFullError,
    StoreLimits,
    Transaction,
)
from edgewise.store.sqlite import open_store
from edgewise.store.writer import Writer

A = Key("Device", "", "a")


def put(name, size=10, **rest):
    return Transaction(now=1.0, writes=(Put(key=Key("Device", "", name), spec=b"x" * size, **rest),))


@contextlib.asynccontextmanager
async def opened(path, **limits):
    store = await open_store(path, StoreLimits(**limits))
    try:
        yield store
    finally:
        await store.close()


async def revisions(store, after, last):
    found = []
    async with contextlib.aclosing(store.watch(after)) as watch, asyncio.timeout(10):
        while not found or found[-1] < last:
            found.extend(change.revision for change in await anext(watch))
    return found


async def test_everything_survives_a_restart(tmp_path):
    path = tmp_path / "store.db"
    event = EventRow(at=1.0, type="Audit", reason="R", message="m", source="u")
    frame = FrameRow(device="a", start=1.0, end=2.0, summary=b"s")
    async with opened(path) as store:
        epoch = store.epoch
        for number in range(20):
            await store.write(put(f"d{number}", uid=f"u{number}", labels={"n": str(number)}))
        mark = Mark(agent="a", incarnation="i", lane="status", number=7, dropped=1)
        await store.write(Transaction(now=2.0, events=(event, event), frames=(frame,), marks=(mark,)))
        await store.touch({"a": 3.5})
        before = (await store.list("Device")).documents
        await store.compact(15)
    async with opened(path, recent_changes_max=3) as store:
        assert (store.epoch, store.revision) == (epoch, 20)
        assert (await store.list("Device")).documents == before
        assert await store.marks("a") == await store.all_marks() == (mark,)
        assert await store.liveness() == {"a": 3.5}
        assert [row.number for row in await store.events()] == [1, 2]
        assert await store.wait_events(1) == 2
        assert await revisions(store, 5, 20) == list(range(6, 21))
        with pytest.raises(CompactedError):
            await revisions(store, 4, 20)
        assert (await store.write(put("new"))).revision == 21
        await store.write(Transaction(now=2.0, events=(event,), frames=(frame,)))
        assert [row.number for row in await store.recent_events(limit=1)] == [3]
        assert [row.number for row in await store.frames("a", 0, 9)] == [1, 2]
        bumped = await store.bump_epoch()
    async with opened(path) as store:
        assert store.epoch == bumped > epoch


async def test_removed_rows_do_not_give_their_numbers_back(tmp_path):
    path = tmp_path / "store.db"
    event = EventRow(at=1.0, type="Normal", reason="R", message="m", source="u")
    frame = FrameRow(device="a", start=1.0, end=2.0, summary=b"long")
    async with opened(path, events_kept=0, frame_bytes_kept=0) as store:
        await store.write(Transaction(now=2.0, events=(event,) * 3, frames=(frame,) * 3))
        assert await store.events() == await store.frames("a", 0, 9) == ()
    async with opened(path) as store:
        await store.write(Transaction(now=2.0, events=(event,), frames=(frame,)))
        assert [row.number for row in await store.events()] == [row.number for row in await store.frames("a", 0, 9)] == [4]


async def test_a_new_store_has_a_later_epoch(tmp_path):
    first = await open_store(tmp_path / "1.db", clock=lambda: 1000.9)
    assert first.epoch == 1000
    assert await first.bump_epoch() == 1001
    await first.close()
    again = await open_store(tmp_path / "1.db", clock=lambda: 5000.0)
    assert again.epoch == 1001
    assert await again.bump_epoch() == 5000
    await again.close()


async def test_the_files_are_private_even_when_they_were_not(tmp_path):
    old = os.umask(0)
    try:
        path = tmp_path / "store.db"
        path.touch(0o666)
        async with opened(path) as store:
            await store.write(put("a"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    finally:
        os.umask(old)
    assert modes == dict.fromkeys(["store.db", "store.db-wal", "store.db-shm", "store.db.lock"], 0o600)


async def test_a_path_with_odd_characters(tmp_path):
    folder = tmp_path / "50% of #1? yes"
    folder.mkdir()
    async with opened(folder / "store.db") as store:
        await store.write(put("a"))
    assert (folder / "store.db").stat().st_size > 0


async def test_only_one_process_has_it(tmp_path):
    path = tmp_path / "store.db"
    program = f"import asyncio, sys\nfrom edgewise.store.sqlite import open_store\nasyncio.run(open_store({str(path)!r}))"
    async with opened(path) as store:
        await store.write(put("a"))
        with pytest.raises(StoreError, match="in use by another process"):
            await open_store(path)
        other = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "in use by another process" in other.stderr
        await store.write(put("b"))
    async with opened(path) as store:
        assert store.revision == 2


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.write(put("a"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(database.SCHEMA_VERSION,)]
        connection.execute("UPDATE schema_version SET version = version + 1")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=f"schema version {database.SCHEMA_VERSION + 1}, this Edgewise knows versions up to"):
        await open_store(path)
    assert path.read_bytes() == before


async def test_what_is_no_store_is_refused(tmp_path):
    other, garbage, link, folder = (tmp_path / name for name in ("other.db", "garbage.db", "link.db", "folder.db"))
    with contextlib.closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE photos (id)")
        connection.commit()
    garbage.write_bytes(b"no database " * 1000)
    link.symlink_to(other)
    folder.mkdir()
    for path, reason in ((other, "something else"), (garbage, "not a database"), (link, "cannot be opened"), (folder, "cannot be opened")):
        with pytest.raises(StoreError, match=reason):
            await open_store(path)
    with pytest.raises(StoreError, match="cannot be opened: No such file"):
        await open_store(tmp_path / "missing" / "store.db")


async def test_an_interrupted_creation_is_made_good(tmp_path):
    path = tmp_path / "store.db"
    path.touch(0o600)
    async with opened(path) as store:
        assert (await store.write(put("a"))).revision == 1


async def test_a_damaged_file_is_told_and_nothing_is_acknowledged(tmp_path):
    path = tmp_path / "store.db"
    async with opened(path) as store:
        for number in range(200):
            await store.write(put(f"d{number}", 1000))
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(os.urandom(path.stat().st_size - 4096 * 2))
    try:
        store = await open_store(path)
    except StoreError as error:
        assert "damaged" in str(error)  # noqa: PT017  # either the opening or what follows tells
        return
    try:
        gets = [store.get(Key("Device", "", f"d{number}")) for number in range(200)]
        found = await asyncio.gather(*gets, return_exceptions=True)
        assert any(isinstance(result, StoreError) and "damaged" in str(result) for result in found)
        for _ in range(2):
            with pytest.raises(StoreClosedError, match="damaged"):
                await store.write(put("d0", expect=ANY))
    finally:
        await store.close()


async def test_a_damaged_document_does_not_hold_up_the_others(tmp_path):
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.write(put("a"))
        await store.write(put("b"))
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE documents SET body = x'c1c1' WHERE key LIKE '%a'")
        connection.commit()
    async with opened(path) as store:
        with pytest.raises(StoreError, match="damaged"):
            await store.get(A)
        names = ["b", "a", "b", "c"]
        writes = [PutStatus(key=Key("Device", "", name), status=b"%d" % number) for number, name in enumerate(names[:3])]
        writes.append(Put(key=Key("Device", "", "c"), spec=b""))
        results = await asyncio.gather(*(store.write(Transaction(now=1.0, writes=(write,))) for write in writes), return_exceptions=True)
        assert isinstance(results[1], StoreError)
        assert [result.revision for result in (results[0], *results[2:])] == [3, 4, 5]


async def test_a_transaction_that_cannot_be_encoded_fails_alone(tmp_path):
    async with opened(tmp_path / "store.db") as store:
        poison = Transaction(now=1.0, writes=(Put(key=A, spec=b"", labels={"a": "\ud800"}),))
        results = await asyncio.gather(store.write(put("b")), store.write(poison), store.write(put("c")), return_exceptions=True)
        assert [isinstance(result, StoreError) for result in results] == [False, True, False]
        assert store.revision == 2
        assert await revisions(store, 0, 2) == [1, 2]


async def test_a_full_store_acknowledges_nothing_and_goes_on_when_there_is_room(tmp_path):
    path = tmp_path / "store.db"
    acknowledged = []

    async def fill(store):
        for number in range(1000):
            await store.write(put(f"d{number}", 5000))
            acknowledged.append(f"d{number}")

    async with opened(path, database_bytes_max=500_000) as store:
        with pytest.raises(StoreFullError, match="full"):
            await fill(store)
        assert 10 < len(acknowledged) < 100
        assert store.revision == len(acknowledged)
        with pytest.raises(StoreFullError):
            await store.write(put("one-more", 5000))
        await store.compact(0)
        assert (await store.write(put("after", 5000))).revision == len(acknowledged) + 1
    assert path.stat().st_size <= 500_000
    async with opened(path) as store:
        assert {document.key.name for document in (await store.list("Device", limit=1000)).documents} == {*acknowledged, "after"}


async def test_a_store_that_takes_no_writes_says_so(tmp_path, monkeypatch):
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.write(put("a"))
    connect = database.connect

    def read_only(path, limits, *, read_only=False):
        connection = connect(path, limits)
        connection.execute("PRAGMA query_only = ON")
        return connection

    monkeypatch.setattr(database, "connect", read_only)
    with pytest.raises(StoreError, match="does not take writes") as caught:
        async with opened(path) as store:
            await store.write(put("b"))
    assert not isinstance(caught.value, StoreFullError)


class FailingConnection:
    """A connection whose next COMMIT fails as a disk does."""

    def __init__(self, connection, name):
        self._connection = connection
        self._name = name
        self.fail = False

    def execute(self, sql, *arguments):
        if self.fail and sql == "COMMIT":
            self.fail = False
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorname = self._name
            raise error
        return self._connection.execute(sql, *arguments)

    def __getattr__(self, name):
        return getattr(self._connection, name)


@pytest.mark.parametrize(
    ("name", "recovers"), [("SQLITE_IOERR_FSYNC", False), ("SQLITE_IOERR_WRITE", False), ("SQLITE_FULL", True), ("SQLITE_CORRUPT", False)]
)
def test_after_a_commit_that_failed_nothing_more_is_believed_unless_the_disk_was_only_full(tmp_path, name, recovers):
    limits = StoreLimits()
    connection = FailingConnection(database.prepare(tmp_path / "store.db", limits), name)
    writer = Writer(connection, limits)
    assert writer.commit([put("a")]).outcomes[0].revision == 1
    connection.fail = True
    failed = writer.commit([put("b"), put("c")])
    assert all(isinstance(outcome, StoreFullError if recovers else StoreClosedError) for outcome in failed.outcomes)
    assert failed.revisions == ()
    after = writer.commit([put("d")])
    if recovers:
        assert after.outcomes[0].revision == 2
        assert [change.key.name for changes in after.revisions for change in changes] == ["d"]
    else:
        assert isinstance(after.outcomes[0], StoreClosedError)
    writer.close()


async def test_a_disk_that_fails_under_load_makes_no_false_acknowledgement(tmp_path):
    """A real write error: the process may not make its files any larger."""
    path = tmp_path / "store.db"
    program = f"""
import asyncio, resource
from edgewise.store.contract import Key, Put, StoreError, Transaction
from edgewise.store.sqlite import open_store
async def main():
    store = await open_store({str(path)!r})
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    async def one(number):
        await store.write(Transaction(now=1.0, writes=(Put(key=Key("Device", "", f"d{{number}}"), spec=b"x" * 3000),)))
        print(f"d{{number}}", flush=True)
    results = [result for first in range(0, 400, 7)
               for result in await asyncio.gather(*(one(first + n) for n in range(7)), return_exceptions=True)]
    failures = [result for result in results if result is not None]
    assert failures and all(isinstance(failure, StoreError) for failure in failures), failures[:3]
    assert results.index(failures[0]) > 10
    try:
        await one(1000)
    except StoreError as error:
        print("refused:", error, flush=True)
asyncio.run(main())
"""
    child = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert child.returncode == 0, child.stderr
    *acknowledged, refused = child.stdout.splitlines()
    assert refused.startswith("refused: ")
    async with opened(path) as store:
        found = {document.key.name for document in (await store.list("Device", limit=1000)).documents}
        assert set(acknowledged) <= found
        assert len(acknowledged) > 10


async def test_more_than_may_wait_is_refused_at_once(tmp_path):
    async with opened(tmp_path / "store.db", queue_transactions_max=10) as store:
        results = await asyncio.gather(*(store.write(put(f"d{number}")) for number in range(12)), return_exceptions=True)
        assert [isinstance(result, OverloadedError) for result in results] == [False] * 10 + [True] * 2
        await store.write(put("later"))
    async with opened(tmp_path / "bytes.db", queue_bytes_max=100_000) as store:
        results = await asyncio.gather(*(store.write(put(f"d{number}", 30_000)) for number in range(5)), return_exceptions=True)
        assert [isinstance(result, OverloadedError) for result in results] == [False] * 3 + [True] * 2
        await store.write(put("large", 300_000))


async def test_what_waits_is_committed_and_told_together(tmp_path, monkeypatch):
    async with opened(tmp_path / "store.db", batch_transactions_max=100) as store:
        calls = []
        tell = asyncio.get_running_loop().call_soon_threadsafe
        monkeypatch.setattr(asyncio.get_running_loop(), "call_soon_threadsafe", lambda *arguments: calls.append(1) or tell(*arguments))
        results = await asyncio.gather(*(store.write(put(f"d{number}")) for number in range(250)))
        assert [result.revision for result in results] == list(range(1, 251))
        assert len(calls) == 3


async def test_a_cancelled_caller_harms_nobody(tmp_path):
    async with opened(tmp_path / "store.db") as store:
        writing = [asyncio.create_task(store.write(put(f"d{number}"))) for number in range(20)]
        await asyncio.sleep(0)
        writing[3].cancel()
        results = await asyncio.gather(*writing, return_exceptions=True)
        assert isinstance(results[3], asyncio.CancelledError)
        written = await store.write(put("last"))
        assert written.revision == store.revision == 21


async def test_two_stores_serve_one_loop(tmp_path):
    async with opened(tmp_path / "1.db") as first, opened(tmp_path / "2.db") as second:
        await asyncio.gather(*(store.write(put(f"d{number}")) for number in range(50) for store in (first, second)))
        assert first.revision == second.revision == 50
