"""What every document store must do: documents, lists."""

import asyncio

import pytest
from store_rig import A, B, C, collect, put, transaction

from edgewise.store.contract import (
    ABSENT,
    ANY,
    Change,
    ConflictError,
    Delete,
    Document,
    EventRow,
    FrameRow,
    Key,
    Mark,
    Put,
    PutStatus,
    StoreError,
)

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
