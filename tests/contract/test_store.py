"""What every document store must do. A new implementation adds one entry to `MAKERS` and changes nothing else."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewise.store.contract import (
    ABSENT,
    ANY,
    Change,
    CompactedError,
    ConflictError,
    Delete,
    Document,
    EventRow,
    FrameRow,
    Key,
    Mark,
    OverloadedError,
    Put,
    PutStatus,
    Store,
    StoreClosedError,
    StoreError,
    StoreLimits,
    Transaction,
)
from edgewise.store.memory import MemoryStore
from edgewise.store.sqlite import open_store

Make = Callable[..., Awaitable[Store]]


async def _memory(path: Path, limits: StoreLimits) -> Store:
    return MemoryStore(limits=limits)


MAKERS = {"memory": _memory, "sqlite": open_store}


@pytest.fixture(params=sorted(MAKERS))
async def make(request, tmp_path):
    """Return a function that opens a fresh store with given limits; all are closed at the end."""
    opened = []

    async def open_one(**limits) -> Store:
        store = await MAKERS[request.param](tmp_path / f"{len(opened)}.db", StoreLimits(**limits))
        opened.append(store)
        return store

    yield open_one
    for store in opened:
        await store.close()


@pytest.fixture
async def store(make):
    return await make()


A = Key("Device", "", "a")
B = Key("Device", "", "b")
C = Key("Workload", "default", "c")


def transaction(*writes, now=100.0, **rest):
    return Transaction(now=now, writes=writes, **rest)


async def put(store, key=A, spec=b"spec", **rest):
    return await store.write(transaction(Put(key=key, spec=spec, uid=f"uid-{key.name}", **rest)))


async def collect(store, after, count, **rest):
    """Return the next `count` changes after `after`."""
    found = []
    async with contextlib.aclosing(store.watch(after, **rest)) as watch:
        async with asyncio.timeout(10):
            async for changes in watch:
                found.extend(changes)
                if len(found) >= count:
                    break
    return found


# ---- documents ----


async def test_a_fresh_store_is_empty(store):
    assert store.revision == 0
    assert store.epoch >= 1
    assert await store.get(A) is None
    page = await store.list("Device")
    assert (page.documents, page.revision, page.next) == ((), 0, "")
    assert await store.events() == await store.recent_events() == await store.frames("a", 0, 9) == ()
    assert await store.marks("a") == await store.all_marks() == ()
    assert await store.liveness() == {}


async def test_a_put_makes_a_document(store):
    written = await put(store, labels={"site": "lab"}, annotations={"note": "ä\n"}, spec=b"\x00\xff\x1f", status=b"\xc1")
    document = await store.get(A)
    assert document == Document(
        key=A,
        uid="uid-a",
        generation=1,
        revision=1,
        status_revision=1,
        created_at=100.0,
        labels={"site": "lab"},
        annotations={"note": "ä\n"},
        spec=b"\x00\xff\x1f",
        status=b"\xc1",
    )
    assert written.revision == store.revision == 1
    assert written.changes == (Change(revision=1, key=A, document=document, spec_changed=True),)


async def test_a_document_without_a_status_is_at_status_revision_0(store):
    await put(store)
    assert (await store.get(A)).status_revision == 0
    await store.write(transaction(PutStatus(key=A, status=b"s", expect=0)))
    document = await store.get(A)
    assert (document.status_revision, document.status, document.generation, document.revision) == (1, b"s", 1, 2)


async def test_the_generation_counts_changes_of_the_spec_alone(store):
    await put(store)
    await store.write(transaction(Put(key=A, spec=b"spec", labels={"x": "y"}, expect=1)))
    assert ((await store.get(A)).generation, store.revision) == (1, 2)
    await store.write(transaction(Put(key=A, spec=b"other", expect=1)))
    document = await store.get(A)
    assert (document.generation, document.revision, document.labels, document.uid, document.created_at) == (2, 3, {}, "uid-a", 100.0)
    await store.write(transaction(Put(key=A, spec=b"other", expect=ANY, deleted_at=5.0)))
    assert ((await store.get(A)).deleted_at, (await store.get(A)).generation) == (5.0, 2)


async def test_a_put_keeps_the_status_and_a_status_keeps_the_rest(store):
    await put(store, status=b"first", labels={"a": "b"})
    await store.write(transaction(Put(key=A, spec=b"new", expect=1, status=b"ignored")))
    assert (await store.get(A)).status == b"first"
    written = await store.write(transaction(PutStatus(key=A, status=b"second")))
    assert (await store.get(A)).spec == b"new"
    assert [change.spec_changed for change in written.changes] == [False]


async def test_writing_what_is_there_changes_nothing(store):
    await put(store, status=b"s")
    for write in (Put(key=A, spec=b"spec", expect=1), PutStatus(key=A, status=b"s"), PutStatus(key=A, status=b"s", expect=1)):
        written = await store.write(transaction(write))
        assert (written.revision, written.changes) == (1, ())
    assert store.revision == (await store.get(A)).revision == 1
    assert (await store.write(transaction())).revision == 1


@pytest.mark.parametrize(
    "write",
    [
        Put(key=A, spec=b"x", expect=ABSENT),
        Put(key=A, spec=b"x", expect=2),
        Put(key=A, spec=b"x", expect=1, uid="another"),
        Put(key=B, spec=b"x", expect=1),
        Put(key=B, spec=b"x", expect=ANY),
        PutStatus(key=A, status=b"x", expect=0),
        PutStatus(key=A, status=b"x", expect=2),
        PutStatus(key=A, status=b"x", uid="another"),
        PutStatus(key=A, status=b"x", expect=0, uid="uid-a", missing_ok=True),
        PutStatus(key=B, status=b"x"),
        Delete(key=A, expect=2),
        Delete(key=A, uid="another"),
        Delete(key=A, expect=2, missing_ok=True),
        Delete(key=B),
    ],
)
async def test_a_conflict_writes_nothing_of_its_transaction(store, write):
    await put(store, status=b"s")
    before = await store.get(A)
    mark = Mark(agent="a", incarnation="i", lane="status", number=1)
    event = EventRow(at=1, type="Normal", reason="R", message="m", source="a")
    frame = FrameRow(device="a", start=1, end=2, summary=b"")
    fresh = Put(key=C, spec=b"c")
    with pytest.raises(ConflictError) as caught:
        await store.write(transaction(fresh, write, events=(event,), frames=(frame,), marks=(mark,)))
    assert caught.value.key == write.key
    assert caught.value.current == (before if write.key == A else None)
    assert store.revision == 1
    assert await store.get(C) is None
    assert await store.get(A) == before
    assert await store.events() == await store.frames("a", 0, 9) == await store.marks("a") == ()


@pytest.mark.parametrize(
    "write",
    [
        PutStatus(key=B, status=b"x", missing_ok=True),
        PutStatus(key=A, status=b"x", uid="another", missing_ok=True),
        Delete(key=B, missing_ok=True),
        Delete(key=A, uid="another", missing_ok=True),
    ],
)
async def test_what_may_be_missing_is_passed_over_and_the_rest_is_written(store, write):
    await put(store)
    written = await store.write(transaction(write, Put(key=C, spec=b"c")))
    assert [change.key for change in written.changes] == [C]
    assert await store.get(A) is not None


async def test_a_document_is_removed_and_made_anew(store):
    await put(store)
    written = await store.write(transaction(Delete(key=A, expect=1, uid="uid-a")))
    assert written.changes == (Change(revision=2, key=A, document=None),)
    assert await store.get(A) is None
    assert (await store.list("Device")).documents == ()
    await store.write(transaction(Put(key=A, spec=b"again", uid="new"), now=200.0))
    document = await store.get(A)
    assert (document.uid, document.generation, document.revision, document.created_at) == ("new", 1, 3, 200.0)


async def test_writes_of_one_transaction_see_each_other_and_share_its_revision(store):
    written = await store.write(
        transaction(
            Put(key=A, spec=b"1", uid="u"),
            PutStatus(key=A, status=b"s", expect=0),
            Put(key=A, spec=b"2", expect=1),
            Delete(key=A, expect=2),
            Put(key=A, spec=b"3", uid="v"),
            Put(key=B, spec=b"b"),
        )
    )
    assert written.revision == store.revision == 1
    assert [(change.revision, change.key, change.document and change.document.spec) for change in written.changes] == [
        (1, A, b"1"),
        (1, A, b"1"),
        (1, A, b"2"),
        (1, A, None),
        (1, A, b"3"),
        (1, B, b"b"),
    ]
    assert (await store.get(A)).uid == "v"
    assert tuple(await collect(store, 0, 6)) == written.changes


async def test_of_many_at_once_one_wins_a_compare_and_set_and_the_others_conflict(store):
    await put(store, spec=b"0")
    attempts = [store.write(transaction(Put(key=A, spec=b"%d" % n, expect=1), PutStatus(key=A, status=b"%d" % n))) for n in range(1, 51)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    won = [result for result in results if not isinstance(result, BaseException)]
    assert len(won) == 1
    assert all(isinstance(result, ConflictError) for result in results if result is not won[0])
    assert store.revision == 2
    document = await store.get(A)
    assert document.spec == document.status


async def test_many_at_once_that_do_not_conflict_are_all_written(store):
    results = await asyncio.gather(*(put(store, key=Key("Device", "", f"d{n}")) for n in range(200)))
    assert sorted(result.revision for result in results) == list(range(1, 201))
    assert len((await store.list("Device")).documents) == 200


async def test_the_answer_of_a_transaction_without_writes_names_the_revision_before_it(store):
    first, second, third = await asyncio.gather(
        put(store), store.write(transaction(marks=(Mark(agent="a", incarnation="i", lane="l", number=1),))), put(store, key=B)
    )
    assert first.revision <= second.revision <= third.revision == 2


@pytest.mark.parametrize(("over", "fits"), [(-1, True), (0, True), (1, False)])
async def test_the_size_of_a_document_is_limited(make, over, fits):
    store = await make(document_bytes_max=1000)
    spec, labels, status = b"s" * 500, {"abc": "def"}, b"t" * (494 + over)
    first = transaction(Put(key=A, spec=spec, labels=labels))
    second = transaction(PutStatus(key=A, status=status))
    both = transaction(Put(key=B, spec=spec, labels=labels, status=status))
    await store.write(first)
    for attempt in (second, both):
        if fits:
            await store.write(attempt)
        else:
            with pytest.raises(StoreError, match="1001 bytes, at most 1000"):
                await store.write(attempt)
    assert store.revision == (3 if fits else 1)


@pytest.mark.parametrize("part", ["a\x1fb", "a\nb", "a\x00b", "\ud800"])
async def test_names_that_cannot_be_printed_are_refused(store, part):
    for key in (Key(part, "", "n"), Key("K", part, "n"), Key("K", "", part)):
        with pytest.raises(StoreError, match="cannot be printed"):
            await store.write(transaction(Put(key=key, spec=b"")))
    for mark in (Mark(agent=part, incarnation="i", lane="l", number=1), Mark(agent="a", incarnation=part, lane="l", number=1)):
        with pytest.raises(StoreError, match="cannot be printed"):
            await store.write(transaction(marks=(mark,)))
    with pytest.raises(StoreError, match="cannot be printed"):
        await store.write(transaction(frames=(FrameRow(device=part, start=1, end=1, summary=b""),)))
    assert store.revision == 0


async def test_the_length_of_names_is_limited(make):
    store = await make(name_characters_max=10)
    await put(store, key=Key("K", "", "n" * 10))
    with pytest.raises(StoreError, match="has 11 characters, at most 10"):
        await put(store, key=Key("K", "", "n" * 11))


async def test_what_is_of_a_wrong_type_is_refused_alone(store):
    wrong = [
        transaction(Put(key=A, spec="text")),
        transaction(Put(key=A, spec=b"", labels={"a": 1})),
        transaction(PutStatus(key=A, status=None, missing_ok=True)),
        transaction(frames=(FrameRow(device="a", start=float("nan"), end=1, summary=b""),)),
        transaction(marks=(Mark(agent="a", incarnation="i", lane="l", number=-1),)),
        transaction(events=(EventRow(at=1, type="Normal", reason="R", message="\ud800", source="\ud800"),)),
    ]
    results = await asyncio.gather(*(store.write(each) for each in [*wrong, transaction(Put(key=B, spec=b""))]), return_exceptions=True)
    assert all(isinstance(result, (StoreError, TypeError)) for result in results[: len(wrong) - 1])
    assert results[-1].revision == store.revision == 1


# ---- lists ----


async def test_a_list_is_in_key_order_of_one_kind(store):
    keys = [Key(kind, space, name) for kind in ("W", "Wa") for space in ("", "a", "a-b", "b") for name in ("n", "n-1", "n.1", "m")]
    for key in reversed(keys):
        await put(store, key=key)
    page = await store.list("W")
    assert [document.key for document in page.documents] == sorted(key for key in keys if key.kind == "W")
    assert page.revision == len(keys)
    page = await store.list("W", namespace="a")
    assert [document.key for document in page.documents] == sorted(key for key in keys if key.kind == "W" and key.namespace == "a")
    assert [document.key.namespace for document in (await store.list("W", namespace="")).documents] == [""] * 4


@pytest.mark.parametrize("labels", [None, {"odd": "no"}])
@pytest.mark.parametrize("limit", [1, 2, 5, 19, 20, 21])
async def test_pages_continue_where_the_last_one_ended(make, labels, limit):
    store = await make(list_items_max=7)
    for number in range(40):
        await put(store, key=Key("W", f"n{number % 3}", f"w{number:02}"), labels={"odd": "yes" if number % 2 else "no"})
    wanted = sorted(Key("W", f"n{number % 3}", f"w{number:02}") for number in range(40) if labels is None or number % 2 == 0)
    found, after, pages = [], "", 0
    while True:
        page = await store.list("W", labels=labels, limit=limit, after=after)
        assert 1 <= len(page.documents) <= min(limit, 7)
        found.extend(document.key for document in page.documents)
        after, pages = page.next, pages + 1
        if not after:
            break
    assert found == wanted
    assert pages == -(-len(wanted) // min(limit, 7))


async def test_a_page_is_limited_in_bytes_but_never_empty_for_it(make):
    store = await make(list_bytes_max=1000)
    for name in "abcd":
        await put(store, key=Key("W", "", name), spec=b"x" * 1500)
    found, after = [], ""
    while True:
        page = await store.list("W", after=after)
        assert len(page.documents) == 1
        found.extend(document.key.name for document in page.documents)
        if not (after := page.next):
            break
    assert found == list("abcd")


@pytest.mark.parametrize("after", ["nonsense", "a\x1f/b", "other/x"])
async def test_a_page_that_nobody_named_is_refused(store, after):
    with pytest.raises(StoreError, match="does not continue"):
        await store.list("W", namespace="n", after=after)


async def test_a_page_of_nothing_is_refused(store):
    for ask in (store.list("W", limit=0), store.events(limit=0), store.recent_events(limit=-1), store.frames("a", 0, 1, limit=0)):
        with pytest.raises(StoreError, match="at least 1"):
            await ask


# ---- watch ----


async def test_a_watch_yields_what_was_and_what_comes(store):
    await put(store)
    waiting = asyncio.create_task(collect(store, 0, 3))
    await asyncio.sleep(0.01)
    await put(store, key=B)
    await store.write(transaction(Delete(key=A)))
    changes = await waiting
    assert [(change.revision, change.key, change.document is None) for change in changes] == [(1, A, False), (2, B, False), (3, A, True)]


async def test_a_watch_may_begin_at_a_lists_revision(store):
    await put(store)
    page = await store.list("Device")
    await put(store, key=B)
    assert [change.key for change in await collect(store, page.revision, 1)] == [B]


async def test_a_watch_of_kinds_or_a_namespace_yields_those(store):
    for key in (A, C, Key("Workload", "other", "d"), B):
        await put(store, key=key)
    assert [change.key for change in await collect(store, 0, 2, kinds=["Device"])] == [A, B]
    assert [change.key for change in await collect(store, 0, 1, namespace="default")] == [C]
    assert [change.key for change in await collect(store, 0, 2, kinds=["Device", "Workload"], namespace="")] == [A, B]


async def test_a_step_of_a_watch_is_limited_and_cuts_no_revision(make):
    store = await make(watch_changes_max=5)
    for first in range(0, 12, 3):
        await store.write(transaction(*(Put(key=Key("W", "", f"{first + n}"), spec=b"") for n in range(3))))
    await store.write(transaction(*(Put(key=Key("X", "", f"{n}"), spec=b"") for n in range(8))))
    sizes = []
    async with contextlib.aclosing(store.watch(0)) as watch:
        async for changes in watch:
            sizes.append([change.revision for change in changes])
            if changes[-1].revision == 5:
                break
    assert sizes == [[1] * 3, [2] * 3, [3] * 3, [4] * 3, [5] * 8]


async def test_changes_beyond_what_is_kept_are_compacted(make):
    store = await make(changes_kept=10)
    for number in range(25):
        await put(store, key=Key("W", "", f"{number}"))
    assert [change.revision for change in await collect(store, 15, 10)] == list(range(16, 26))
    with pytest.raises(CompactedError):
        await collect(store, 14, 1)


async def test_compaction_never_cuts_a_revision(make):
    store = await make(changes_kept=10)
    for first in range(0, 12, 4):
        await store.write(transaction(*(Put(key=Key("W", "", f"{first + n}"), spec=b"") for n in range(4))))
    assert [change.revision for change in await collect(store, 1, 8)] == [2] * 4 + [3] * 4
    with pytest.raises(CompactedError):
        await collect(store, 0, 1)


async def test_the_bytes_of_changes_are_limited_too(make):
    store = await make(change_bytes_kept=10_000)
    for number in range(30):
        await put(store, key=Key("W", "", f"{number}"), spec=b"x" * 1000)
    with pytest.raises(CompactedError):
        await collect(store, 10, 1)
    assert len(await collect(store, 24, 6)) == 6


async def test_compact_forgets_all_but_the_last(store):
    for number in range(10):
        await put(store, key=Key("W", "", f"{number}"))
    assert await store.compact(100) == 0
    assert await store.compact(3) == 7
    assert [change.revision for change in await collect(store, 7, 3)] == [8, 9, 10]
    with pytest.raises(CompactedError):
        await collect(store, 6, 1)
    assert await store.compact(0) == 10
    with pytest.raises(CompactedError):
        await collect(store, 9, 1)
    waiting = asyncio.create_task(collect(store, 10, 1))
    await asyncio.sleep(0.01)
    await put(store)
    assert [change.revision for change in await waiting] == [11]
    assert len((await store.list("W")).documents) == 10


async def test_a_position_of_another_life_is_compacted(store):
    await put(store)
    with pytest.raises(CompactedError):
        await collect(store, 7, 1)


async def test_a_watcher_that_fell_too_far_behind_is_told(make):
    store = await make(changes_kept=5, recent_changes_max=5)
    await put(store)
    async with contextlib.aclosing(store.watch(0)) as watch:
        assert [change.revision for change in await anext(watch)] == [1]
        for number in range(20):
            await put(store, key=Key("W", "", f"{number}"))
        with pytest.raises(CompactedError):
            await anext(watch)


async def test_no_watcher_skips_a_revision_while_many_write(make):
    """Writers race, some conflict, some change nothing; watchers of all speeds, some beginning late, see every revision once, in order."""
    store = await make(recent_changes_max=50, watch_changes_max=20)
    writers, turns = 20, 25
    last = Key("End", "", "end")

    async def writer(number):
        for turn in range(turns):
            with contextlib.suppress(ConflictError):
                key = Key("W", "", f"{(number * 7 + turn) % 30}")
                present = await store.get(key) if turn % 5 == 0 else None
                expect = present.generation if present else (ABSENT if turn % 3 == 0 else ANY)
                more = (Put(key=Key("X", "", f"{number}-{turn}"), spec=b"x"),) if turn % 4 == 0 else ()
                await store.write(transaction(*more, Put(key=key, spec=b"%d" % turn, expect=expect)))

    async def watcher(delay, after):
        seen, documents = [], {}
        async with contextlib.aclosing(store.watch(after)) as watch:
            while last not in documents:
                for change in await anext(watch):
                    seen.append(change.revision)
                    documents[change.key] = change.document
                await asyncio.sleep(delay)
        return seen, documents

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        watchers = [group.create_task(watcher(delay, 0)) for delay in (0, 0, 0.001, 0.005)]
        writing = [group.create_task(writer(number)) for number in range(writers)]
        while store.revision < 100:
            await asyncio.sleep(0.001)
        late = [group.create_task(watcher(delay, 42)) for delay in (0, 0.003)]
        await asyncio.wait(writing)
        await put(store, key=last)
    for task, first in [*((each, 1) for each in watchers), *((each, 43) for each in late)]:
        seen, documents = task.result()
        assert sorted(set(seen)) == list(range(first, store.revision + 1))
        assert seen == sorted(seen)
        for key, document in documents.items():
            assert await store.get(key) == document
    assert store.revision > writers


async def test_a_change_is_published_before_it_is_acknowledged(store):
    """Who was told the revision finds it in `revision` and in a new watch at once."""
    for number in range(5):
        written = await put(store, key=Key("W", "", f"{number}"))
        assert store.revision >= written.revision
        assert (await collect(store, written.revision - 1, 1))[0].key.name == f"{number}"


# ---- events, frames, marks, liveness ----


def event(message="m", **rest):
    return EventRow(**({"at": 1.5, "type": "Normal", "reason": "Tested", "message": message, "source": "a"} | rest))


async def test_events_are_numbered_and_dated(store):
    await store.write(transaction(events=(event("one"), event("two ü", received_at=7.0)), now=50.0))
    await store.write(transaction(events=(event("three", type="Warning", about="Device//a"),), now=51.0))
    rows = await store.events()
    assert [(row.number, row.message, row.received_at) for row in rows] == [(1, "one", 50.0), (2, "two ü", 7.0), (3, "three", 51.0)]
    assert rows[2] == event("three", type="Warning", about="Device//a", number=3, received_at=51.0)
    assert store.revision == 0


async def test_events_are_found_by_number_source_and_about(store):
    for number in range(1, 11):
        row = event(f"{number}", source="a" if number % 2 else "b", about=f"Instance/n/w{number % 3}" if number > 2 else "")
        await store.write(transaction(events=(row,)))

    async def numbers(ask):
        return [row.number for row in await ask]

    assert await numbers(store.events(after=7)) == [8, 9, 10]
    assert await numbers(store.events(limit=2)) == [1, 2]
    assert await numbers(store.recent_events(limit=2)) == [9, 10]
    assert await numbers(store.events(source="a")) == [1, 3, 5, 7, 9]
    assert await numbers(store.recent_events(limit=2, source="b")) == [8, 10]
    assert await numbers(store.events(about="Instance/n/w1")) == [4, 7, 10]
    assert await numbers(store.events(about="Instance/")) == list(range(3, 11))
    assert await numbers(store.recent_events(limit=3, about="Instance/", source="a")) == [5, 7, 9]
    assert await numbers(store.events(about="Instance/n/w_")) == await numbers(store.events(about="%")) == []


@pytest.mark.parametrize(("written", "first"), [(9, 1), (10, 1), (11, 2)])
async def test_the_oldest_events_go_first(make, written, first):
    store = await make(events_kept=10)
    for number in range(written):
        await store.write(transaction(events=(event(f"{number}"),)))
    assert [row.number for row in await store.events()] == list(range(first, written + 1))


async def test_one_waits_for_events(store):
    waiting = asyncio.create_task(store.wait_events(0))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await store.write(transaction(events=(event(), event())))
    assert await waiting == await store.wait_events(1) == 2


def frame(start, end, device="a", summary=b"\x00s", body=b"\xffb"):
    return FrameRow(device=device, start=start, end=end, summary=summary, body=body)


async def test_frames_that_overlap_are_found_oldest_first(store):
    rows = (frame(10, 20), frame(20.5, 30), frame(30, 40), frame(12, 13, device="b"), frame(40, 40))
    await store.write(transaction(frames=rows))

    async def numbers(*ask, **rest):
        return [row.number for row in await store.frames(*ask, **rest)]

    assert await numbers("a", 0, 100) == [1, 2, 3, 5]
    assert await numbers("a", 20, 20.5) == [1, 2]
    assert await numbers("a", 20.2, 20.4) == []
    assert await numbers("a", 40, 50) == [3, 5]
    assert await numbers("a", 41, 50) == await numbers("a", 0, 9) == await numbers("c", 0, 99) == []
    assert await numbers("a", 0, 100, limit=2) == [1, 2]
    assert (await store.frames("b", 12, 13))[0] == FrameRow(device="b", start=12, end=13, summary=b"\x00s", body=b"\xffb", number=4)


@pytest.mark.parametrize(("kept", "left"), [(99, [2, 3]), (100, [1, 2, 3]), (101, [1, 2, 3]), (19, []), (20, [3])])
async def test_the_oldest_frames_go_first(make, kept, left):
    store = await make(frame_bytes_kept=kept)
    for number, size in enumerate((30, 50, 20)):
        await store.write(transaction(frames=(frame(number, number, summary=b"s" * 10, body=b"b" * (size - 10)),)))
    assert [row.number for row in await store.frames("a", 0, 9)] == left


def mark(number, agent="a", incarnation="i", lane="status", dropped=0):
    return Mark(agent=agent, incarnation=incarnation, lane=lane, number=number, dropped=dropped)


async def test_marks_only_rise(store):
    await store.write(transaction(marks=(mark(5, dropped=2), mark(3, lane="events"))))
    await store.write(transaction(marks=(mark(4, dropped=1), mark(9, lane="events"))))
    assert set(await store.marks("a")) == {mark(5, dropped=2), mark(9, lane="events")}
    assert await store.marks("b") == ()
    assert store.revision == 0


async def test_all_marks_are_those_of_the_latest_incarnations(store):
    await store.write(transaction(marks=(mark(5), mark(6, lane="events"), mark(1, agent="b"))))
    await store.write(transaction(marks=(mark(2, incarnation="j"),)))
    assert set(await store.all_marks()) == {mark(2, incarnation="j"), mark(1, agent="b")}
    assert set(await store.marks("a")) == {mark(5), mark(6, lane="events"), mark(2, incarnation="j")}
    await store.write(transaction(marks=(mark(7),)))
    assert set(await store.all_marks()) == {mark(7), mark(6, lane="events"), mark(1, agent="b")}


async def test_of_two_incarnations_written_at_once_the_later_counts(store):
    await asyncio.gather(
        store.write(transaction(marks=(mark(1),))),
        store.write(transaction(marks=(mark(2, incarnation="j"),))),
        store.write(transaction(marks=(mark(3, lane="events"), mark(4)))),
    )
    assert set(await store.all_marks()) == {mark(4), mark(3, lane="events")}


@pytest.mark.parametrize(("incarnations", "first"), [(2, 0), (3, 0), (4, 1)])
async def test_the_oldest_incarnations_go_first(make, incarnations, first):
    store = await make(incarnations_kept=3)
    for number in range(incarnations):
        await store.write(transaction(marks=(mark(1, incarnation=f"i{number}"), mark(1, incarnation=f"i{number}", lane="events"))))
    assert {each.incarnation for each in await store.marks("a")} == {f"i{number}" for number in range(first, incarnations)}


async def test_liveness_takes_the_latest_and_no_revision(store):
    await store.touch({"a": 5.25, "b": 1.0})
    await store.touch({"a": 4.0, "c": 2.5})
    await store.touch({})
    assert await store.liveness() == {"a": 5.25, "b": 1.0, "c": 2.5}
    assert store.revision == 0


# ---- the store itself ----


async def test_a_bumped_epoch_is_greater(store):
    before = store.epoch
    after = await store.bump_epoch()
    assert after == store.epoch > before
    await put(store)
    assert store.revision == 1


async def test_after_close_everything_is_refused(store):
    await put(store)
    watching = asyncio.create_task(collect(store, 1, 1))
    waiting = asyncio.create_task(store.wait_events(0))
    await asyncio.sleep(0.01)
    await store.close()
    await store.close()
    calls = [
        watching,
        waiting,
        put(store, key=B),
        store.get(A),
        store.list("Device"),
        collect(store, 0, 1),
        store.events(),
        store.recent_events(),
        store.wait_events(0),
        store.frames("a", 0, 1),
        store.marks("a"),
        store.all_marks(),
        store.touch({}),
        store.liveness(),
        store.compact(1),
        store.bump_epoch(),
    ]
    for call in calls:
        async with asyncio.timeout(5):
            with pytest.raises(StoreClosedError):
                await call


async def test_close_finishes_what_was_accepted(make):
    store = await make()
    writing = [asyncio.create_task(put(store, key=Key("W", "", f"{number}"))) for number in range(50)]
    await asyncio.sleep(0)
    await store.close()
    assert sorted(written.revision for written in await asyncio.gather(*writing)) == list(range(1, 51))


async def test_overload_is_told(make):
    store = await make(queue_transactions_max=10)
    results = await asyncio.gather(*(put(store, key=Key("W", "", f"{number}")) for number in range(40)), return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert all(isinstance(result, OverloadedError) and result.retry_after > 0 for result in refused)
    assert store.revision == 40 - len(refused) >= 10


# ---- every sequence of writes, against a model of the contract's words ----

_KEYS = st.sampled_from([A, B, C])
_SMALL = st.sampled_from([b"", b"x", b"y"])
_WRITES = st.one_of(
    st.builds(Put, key=_KEYS, spec=_SMALL, labels=st.sampled_from([{}, {"l": "v"}]), expect=st.sampled_from([ABSENT, ANY, 1, 2]), uid=st.sampled_from(["u", ""]), status=_SMALL),
    st.builds(PutStatus, key=_KEYS, status=_SMALL, expect=st.sampled_from([ANY, 0, 1, 2]), uid=st.sampled_from(["", "u"]), missing_ok=st.booleans()),
    st.builds(Delete, key=_KEYS, expect=st.sampled_from([ANY, 1, 2]), missing_ok=st.booleans()),
)  # fmt: skip


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(transactions=st.lists(st.lists(_WRITES, min_size=1, max_size=3), min_size=1, max_size=12))
def test_the_embedded_store_does_what_the_one_in_memory_does(tmp_path_factory, transactions):
    """All are sent at once to both; the same ones conflict, the same revisions are assigned, the same documents are left."""

    async def outcomes(store):
        results = await asyncio.gather(*(store.write(transaction(*writes)) for writes in transactions), return_exceptions=True)
        plain = [str(result) if isinstance(result, ConflictError) else result for result in results]
        documents = [(await store.list(kind)).documents for kind in ("Device", "Workload")]
        changes = (
            await collect(store, 0, sum(len(result.changes) for result in results if not isinstance(result, BaseException)) or 0)
            if store.revision
            else []
        )
        await store.close()
        return plain, documents, changes

    async def both():
        folder = tmp_path_factory.mktemp("model")
        return [await outcomes(await MAKERS[name](folder / "s.db", StoreLimits())) for name in sorted(MAKERS)]

    first, *others = asyncio.run(both())
    assert all(other == first for other in others)
