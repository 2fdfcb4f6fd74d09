"""The loop between store and view, on a store in memory."""

import asyncio
import contextlib

import msgspec
import pytest

from edgewise.control.limits import ControlLimits
from edgewise.control.runner import Runner
from edgewise.controllers.known import known_keys
from edgewise.controllers.view import VIEWED, FleetView
from edgewise.ports.clock import SystemClock
from edgewise.store.contract import Delete, Key, Put, Transaction
from edgewise.store.memory import MemoryStore

SPECS = {
    Key("Site", "", "lab"): {},
    Key("Device", "", "cam-1"): {"agent": "cam-1"},
    Key("Agent", "", "cam-1"): {"devices": ["cam-1"]},
    Key("Artifact", "n", "m"): {},
    Key("Config", "n", "c"): {},
    Key("Workload", "n", "w"): {"artifact": {"name": "m", "version": "1"}, "placement": {"replicas": 1}},
    Key("AccessToken", "", "0123"): {"name": "me", "digest": "0123", "role": "admin", "expiresAt": 9e9},
    Key("JoinToken", "", "4567"): {"digest": "4567", "uses": 1, "expiresAt": 9e9},
}


@pytest.fixture
async def runner():
    store = MemoryStore()
    one = Runner(store, FleetView(store.epoch, 0.0), SystemClock(), ControlLimits(), lambda _agent: None)
    yield one
    await one.stop()
    await store.close()


async def put(store, *keys):
    writes = tuple(Put(key=key, spec=msgspec.msgpack.encode(SPECS[key]), uid=f"u-{key.name}") for key in keys)
    await store.write(Transaction(now=1.0, writes=writes))


def known(runner):
    return {key for kind in VIEWED for key in known_keys(runner.view, kind)}


async def test_what_was_deleted_while_the_view_was_too_far_behind_is_gone_from_it(runner):
    """A token that was revoked meanwhile must not let anybody in."""
    store = runner._store
    await put(store, *SPECS)
    await runner.load()
    assert known(runner) == set(SPECS)
    kept = Key("Site", "", "lab")
    await store.write(Transaction(now=2.0, writes=tuple(Delete(key=key) for key in SPECS if key != kept)))
    await store.compact(0)
    runner.start()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while known(runner) != {kept}:
                await asyncio.sleep(0.01)
    assert known(runner) == {kept}
    back = Key("Config", "n", "c")
    await put(store, back)
    await runner.caught_up(store.revision, 30)
    assert known(runner) == {kept, back}
