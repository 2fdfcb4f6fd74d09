"""What every document store must do: events, frames, marks, liveness."""

import asyncio

import pytest
from store_rig import transaction

from edgewise.store.contract import (
    EventRow,
    FrameRow,
    Mark,
)

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
