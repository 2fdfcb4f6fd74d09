"""The parts of the stores that stand alone: the feed, the cache, packing, the words for SQLite's errors."""

import asyncio
import contextlib
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewise.store.contract import Change, Document, Key, StoreClosedError, StoreError, StoreFullError
from edgewise.store.database import RowRefusedError, translated
from edgewise.store.feed import Feed
from edgewise.store.rows import (
    Bodies,
    as_json,
    change_body,
    changes_body,
    document_body,
    key_text,
    microseconds,
    read_changes,
    read_documents,
)
from edgewise.store.writer import _Cache


def document(name="a", spec=b"", revision=1):
    return Document(
        key=Key("K", "", name),
        uid="u",
        generation=1,
        revision=revision,
        status_revision=0,
        created_at=0.5,
        labels={},
        annotations={},
        spec=spec,
        status=b"",
    )


def change(revision, spec=b"", name="a"):
    return Change(revision=revision, key=Key("K", "", name), document=document(name, spec, revision))


def test_the_feed_keeps_the_last_changes_and_bytes():
    feed = Feed(10, changes_max=5, bytes_max=100)
    assert (feed.oldest, feed.revision) == (10, 10)
    feed.publish([(change(11), change(11)), (change(12),)])
    assert (feed.oldest, feed.revision) == (10, 12)
    feed.publish([(change(13), change(13)), (change(14),)])
    assert (feed.oldest, feed.revision) == (11, 14)
    feed.publish([(change(15, b"x" * 100),)])
    assert feed.oldest == 11
    feed.publish([(change(16, b"x"),)])
    assert feed.oldest == 15
    feed.publish([(change(17, b"x" * 101),)])
    assert (feed.oldest, feed.revision) == (17, 17)
    assert feed.since(16, 10) is None
    assert feed.since(17, 10) == []


@given(sizes=st.lists(st.integers(1, 4), max_size=12), after=st.integers(0, 12), most=st.integers(1, 6))
def test_the_feed_gives_whole_revisions_in_order(sizes, after, most):
    feed = Feed(0, changes_max=1000, bytes_max=1000)
    feed.publish([(change(revision),) * size for revision, size in enumerate(sizes, 1)])
    chunk = feed.since(min(after, feed.revision), most)
    assert [changes[0].revision for changes in chunk] == list(range(after + 1, after + 1 + len(chunk)))
    assert len(chunk) == 1 or sum(map(len, chunk)) <= most
    if after < feed.revision:
        assert chunk


async def test_a_watcher_that_nobody_wants_any_more_is_not_kept():
    feed = Feed(0, 10, 10)

    async def older(after):
        raise AssertionError(after)

    for _ in range(3):
        waiting = asyncio.create_task(anext(feed.watch(0, None, None, 10, older)))
        await asyncio.sleep(0)
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
    assert len(feed._waiters._waiting) == 0


def test_the_cache_is_bounded_and_forgets_the_least_lately_written():
    cache = _Cache(3 * 900)
    for name in ("a", "b", "c", "a"):
        cache.put(Key("K", "", name), document(name, b"x" * 100))
    assert all(cache.get(Key("K", "", name)) for name in "abc")
    cache.put(Key("K", "", "d"), document("d", b"x" * 100))
    assert cache.get(Key("K", "", "b")) is None
    assert all(cache.get(Key("K", "", name)) for name in "acd")
    cache.put(Key("K", "", "a"), None)
    assert cache.get(Key("K", "", "a")) is None
    cache.put(Key("K", "", "e"), document("e", b"x" * 9000))
    assert cache._bytes == 0
    assert not cache._documents


@given(specs=st.lists(st.binary(max_size=50), max_size=8))
def test_bodies_come_out_as_they_went_in_through_sqlite(specs):
    """Places, `substr` and `group_concat` on real SQLite, for all bytes."""
    bodies = Bodies()
    places = {f"k{number:02}": bodies.add(document_body(document(spec=spec))) for number, spec in enumerate(specs)}
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (key, body)")
        connection.execute(
            "INSERT INTO t SELECT j.key, substr(?2, j.value >> 30, j.value & 1073741823) FROM json_each(?1) AS j",
            (as_json(places), bodies.joined()),
        )
        row = connection.execute(
            "SELECT count(*), CAST(group_concat(body, '') AS BLOB) FROM (SELECT body FROM t ORDER BY key LIMIT 99)"
        ).fetchone()
    assert [each.spec for each in read_documents(*row)] == specs


def test_a_revision_comes_out_as_it_went_in():
    changes = (change(4, b"\x00\xff"), Change(revision=4, key=Key("K", "n", "gone"), document=None, spec_changed=False))
    bodies = [change_body(each, None if each.document is None else document_body(each.document)) for each in changes]
    assert read_changes(1, changes_body(bodies)) == [changes]


@given(keys=st.lists(st.builds(Key, *[st.text(st.characters(min_codepoint=32, exclude_categories=["C"]), max_size=4)] * 3)))
def test_keys_sort_in_the_database_as_they_do_here(keys):
    assert sorted(keys) == sorted(keys, key=lambda key: key_text(key).encode())


@pytest.mark.parametrize(("seconds", "whole"), [(0.0, 0), (1.5, 1_500_000), (-0.0000005, -1), (1e12, 10**18)])
def test_microseconds(seconds, whole):
    assert microseconds(seconds) == whole


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("SQLITE_FULL", StoreFullError, "full"),
        ("SQLITE_READONLY_DBMOVED", StoreError, "does not take writes"),
        ("SQLITE_BUSY_SNAPSHOT", StoreError, "another process"),
        ("SQLITE_IOERR_FSYNC", StoreClosedError, "the disk failed"),
        ("SQLITE_CORRUPT_INDEX", StoreClosedError, "damaged"),
        ("SQLITE_NOTADB", StoreClosedError, "damaged"),
        ("SQLITE_WHATEVER", StoreClosedError, "SQLite says"),
        ("SQLITE_TOOBIG", RowRefusedError, "too large"),
        ("SQLITE_CONSTRAINT_NOTNULL", RowRefusedError, "SQLite says"),
        (None, RowRefusedError, "SQLite says"),
    ],
)
def test_sqlites_errors_are_put_into_words(name, kind, words):
    error = sqlite3.OperationalError("text")
    if name:
        error.sqlite_errorname = name
    translation = translated(error, "what")
    assert type(translation) is kind
    assert str(translation).startswith("what: ")
    assert words in str(translation)
