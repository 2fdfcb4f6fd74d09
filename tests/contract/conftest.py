"""The stores that the contract is tried on; and lets the tests in this folder import their helper."""

import sys
from pathlib import Path

import pytest

from edgewise.store.contract import Store, StoreLimits

sys.path.insert(0, str(Path(__file__).parent))


from store_rig import MAKERS  # its folder is on the path only from here on


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
    """Return a fresh store."""
    return await make()
