"""What every document store must do: of its life as a whole, and after any sequence of writes."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_rig import MAKERS, A, B, C, collect, put, transaction

from edgewise.store.contract import (
    ABSENT,
    ANY,
    ConflictError,
    Delete,
    Key,
    OverloadedError,
    Put,
    PutStatus,
    StoreClosedError,
    StoreLimits,
)

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
