"""The newest changes in memory, and those who wait for the next one.

Lives on the event loop alone. A watch that keeps up is served from here; one that fell behind reads the log (`older`) until it is back.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from itertools import islice

from edgewise.store.contract import Change, StoreClosedError
from edgewise.store.plan import document_bytes

Older = Callable[[int], Awaitable[Sequence[tuple[Change, ...]]]]
"""Read the changes after a revision, one tuple per revision, at least one. Raises `CompactedError`."""


class Waiters:
    """Those who wait for something to happen. All are woken by one call."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self) -> None:
        """Return after the next `wake`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        try:
            await future
        finally:
            self._waiting.discard(future)

    def wake(self) -> None:
        """Let all go who wait now."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)


class Feed:
    """The changes of the last revisions, up to `changes_max` of them and `bytes_max`, one tuple per revision."""

    def __init__(self, revision: int, changes_max: int, bytes_max: int) -> None:
        self.revision = revision
        self.closed = False
        self._changes_max = changes_max
        self._bytes_max = bytes_max
        self._recent: deque[tuple[Change, ...]] = deque()
        self._weights: deque[int] = deque()
        self._changes = 0
        self._bytes = 0
        self._waiters = Waiters()

    @property
    def oldest(self) -> int:
        """The oldest revision after which everything is here."""
        return self.revision - len(self._recent)

    def publish(self, revisions: Sequence[tuple[Change, ...]]) -> None:
        """Add the next revisions, in order and without gaps, and wake those who wait."""
        if not revisions:
            return
        for changes in revisions:
            self._recent.append(changes)
            self._changes += len(changes)
            weight = _weight(changes)
            self._weights.append(weight)
            self._bytes += weight
        self.revision += len(revisions)
        self._shrink(self._changes_max, self._bytes_max)
        self._waiters.wake()

    def keep(self, changes: int) -> None:
        """Forget all but the last `changes` changes."""
        self._shrink(changes, self._bytes_max)

    def _shrink(self, changes_max: int, bytes_max: int) -> None:
        while self._recent and (self._changes > changes_max or self._bytes > bytes_max):
            forgotten = self._recent.popleft()
            self._changes -= len(forgotten)
            self._bytes -= self._weights.popleft()

    def close(self) -> None:
        """End all watches with `StoreClosedError`."""
        self.closed = True
        self._waiters.wake()

    def since(self, after: int, changes_max: int) -> list[tuple[Change, ...]] | None:
        """Return revisions after `after`, about `changes_max` changes of them, or None when they are no longer here."""
        if after < self.oldest:
            return None
        chunk: list[tuple[Change, ...]] = []
        count = 0
        for changes in islice(self._recent, after - self.oldest, None):
            if chunk and count + len(changes) > changes_max:
                break
            chunk.append(changes)
            count += len(changes)
        return chunk

    async def watch(
        self, after: int, kinds: Collection[str] | None, namespace: str | None, changes_max: int, older: Older
    ) -> AsyncGenerator[tuple[Change, ...], None]:
        """See `Store.watch`."""
        while True:
            if self.closed:
                raise StoreClosedError("the store was closed")
            if after == self.revision:
                await self._waiters.wait()
                continue
            # A position beyond the newest is of another life of the store: `older` tells it from one that is only ahead of us.
            chunk = self.since(after, changes_max) if after < self.revision else None
            if chunk is None:
                chunk = list(await older(after))
                if not chunk:
                    continue
            after = chunk[-1][-1].revision
            wanted = tuple(
                change
                for changes in chunk
                for change in changes
                if (kinds is None or change.key.kind in kinds) and (namespace is None or change.key.namespace == namespace)
            )
            if wanted:
                yield wanted


def _weight(changes: tuple[Change, ...]) -> int:
    """Return about how many bytes of documents `changes` hold."""
    return sum(document_bytes(change.document) for change in changes if change.document is not None)
