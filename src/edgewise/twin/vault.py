"""The control plane's store as the twin drives it: the real stores, every call run to its end, with backups and deaths of the process.

`MemoryVault` never waits. `SqliteVault` runs the real SQLite store on an event loop of its own; its file lies in a temporary folder.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from edgewise.controllers.view import VIEWED
from edgewise.store.contract import Document, Key, Mark, Store, StoreLimits, Transaction, Written
from edgewise.store.memory import MemoryStore
from edgewise.store.sqlite import open_store

T = TypeVar("T")

_LIMITS: Final = StoreLimits(changes_kept=1_000, events_kept=20_000, frame_bytes_kept=20_000_000)
_PAGE: Final = 1_000


class Vault(Protocol):
    """A store that outlives the control plane's process. All raise `StoreError`."""

    @property
    def epoch(self) -> int:
        """The store's epoch."""
        ...

    @property
    def revision(self) -> int:
        """The revision of the last change."""
        ...

    def write(self, transaction: Transaction) -> Written:
        """Commit a transaction."""
        ...

    def get(self, key: Key) -> Document | None:
        """Return a document, or None."""
        ...

    def documents(self) -> list[Document]:
        """Return all documents, by kind and name."""
        ...

    def marks(self) -> tuple[Mark, ...]:
        """Return the marks of all agents' latest incarnations."""
        ...

    def touch(self, seen: dict[str, float]) -> None:
        """Note who was heard when."""
        ...

    def backup(self) -> object:
        """Return a backup."""
        ...

    def restore(self, backup: object, at_least: int) -> None:
        """Set everything back to a backup, under a new epoch that is `at_least` or more."""
        ...

    def close(self) -> None:
        """Let go of everything."""
        ...


def run_to_end(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine gives that never really waits. Raises `RuntimeError` when it does."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError("the store in memory waited for something")


def _all_documents(store: Store, call: Callable[[Coroutine[Any, Any, Any]], Any]) -> list[Document]:
    found: list[Document] = []
    for kind in VIEWED:
        after = ""
        while True:
            page = call(store.list(kind, limit=_PAGE, after=after))
            found.extend(page.documents)
            after = page.next
            if not after:
                break
    return found


class MemoryVault:
    """A `Vault` over the store in memory."""

    def __init__(self) -> None:
        self.store = MemoryStore(1, _LIMITS)

    @property
    def epoch(self) -> int:
        """See `Vault`."""
        return self.store.epoch

    @property
    def revision(self) -> int:
        """See `Vault`."""
        return self.store.revision

    def write(self, transaction: Transaction) -> Written:
        """See `Vault`."""
        return run_to_end(self.store.write(transaction))

    def get(self, key: Key) -> Document | None:
        """See `Vault`."""
        return run_to_end(self.store.get(key))

    def documents(self) -> list[Document]:
        """See `Vault`."""
        return _all_documents(self.store, run_to_end)

    def marks(self) -> tuple[Mark, ...]:
        """See `Vault`."""
        return run_to_end(self.store.all_marks())

    def touch(self, seen: dict[str, float]) -> None:
        """See `Vault`."""
        run_to_end(self.store.touch(seen))

    def backup(self) -> object:
        """See `Vault`."""
        return self.store.copy()

    def restore(self, backup: object, at_least: int) -> None:
        """See `Vault`."""
        if not isinstance(backup, MemoryStore):
            raise TypeError("this is no backup of a store in memory")
        self.store = backup.copy(max(backup.epoch + 1, at_least))

    def close(self) -> None:
        """See `Vault`."""


class SqliteVault:
    """A `Vault` over the SQLite store. Its folder goes when it is closed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._folder = Path(tempfile.mkdtemp(prefix="edgewise-twin-"))
        self._loop = asyncio.new_event_loop()
        self._backups = 0
        self._store = self._call(open_store(self._folder / "store.db", None, clock))

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(coroutine)

    @property
    def epoch(self) -> int:
        """See `Vault`."""
        return self._store.epoch

    @property
    def revision(self) -> int:
        """See `Vault`."""
        return self._store.revision

    def write(self, transaction: Transaction) -> Written:
        """See `Vault`."""
        return self._call(self._store.write(transaction))

    def get(self, key: Key) -> Document | None:
        """See `Vault`."""
        return self._call(self._store.get(key))

    def documents(self) -> list[Document]:
        """See `Vault`."""
        return _all_documents(self._store, self._call)

    def marks(self) -> tuple[Mark, ...]:
        """See `Vault`."""
        return self._call(self._store.all_marks())

    def touch(self, seen: dict[str, float]) -> None:
        """See `Vault`."""
        self._call(self._store.touch(seen))

    def backup(self) -> object:
        """See `Vault`."""
        self._call(self._store.close())
        self._backups += 1
        folder = self._folder / f"backup-{self._backups}"
        folder.mkdir()
        for path in sorted(self._folder.glob("store.db*")):
            shutil.copy2(path, folder / path.name)
        self._store = self._call(open_store(self._folder / "store.db", None, self._clock))
        return folder

    def restore(self, backup: object, at_least: int) -> None:
        """See `Vault`. The store itself sees to an epoch that is never less than the clock's seconds."""
        del at_least
        if not isinstance(backup, Path):
            raise TypeError("this is no backup of a store in SQLite")
        self._call(self._store.close())
        for path in sorted(self._folder.glob("store.db*")):
            path.unlink()
        for path in sorted(backup.glob("store.db*")):
            shutil.copy2(path, self._folder / path.name)
        self._store = self._call(open_store(self._folder / "store.db", None, self._clock))
        self._call(self._store.bump_epoch())

    def close(self) -> None:
        """See `Vault`."""
        self._call(self._store.close())
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)
