"""Every document store there is, and how tests write to them. A new implementation adds one entry to `MAKERS` and changes nothing else."""

import asyncio
import contextlib
from pathlib import Path

from edgewise.store.contract import (
    Key,
    Put,
    Store,
    StoreLimits,
    Transaction,
)
from edgewise.store.memory import MemoryStore
from edgewise.store.sqlite import open_store


async def _memory(path: Path, limits: StoreLimits) -> Store:
    return MemoryStore(limits=limits)


MAKERS = {"memory": _memory, "sqlite": open_store}

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
