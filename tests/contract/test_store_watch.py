"""What every document store must do: watching."""

import asyncio
import contextlib

import pytest
from store_rig import A, B, C, collect, put, transaction

from edgewise.store.contract import (
    ABSENT,
    ANY,
    CompactedError,
    ConflictError,
    Delete,
    Key,
    Put,
)

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
